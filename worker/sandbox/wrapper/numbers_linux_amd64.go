package wrapper

func numbersOfCalls() (callNumbers, bool) {
	return callNumbers{
		architecture: 0xc000003e, foreign: 0x40000000, seccomp: 317,
		clone: 56, socket: 41, sendTo: 44, sendMessage: 46, sendMessages: 307, kill: 62, killThread: 234, limit: 302,
		denied: append([]uint32{
			57, 58, 322, // fork, vfork, execveat
			101, 310, 311, 312, // ptrace, process_vm_readv, process_vm_writev, kcmp
			200, 129, 297, // tkill, rt_sigqueueinfo, rt_tgsigqueueinfo
			49, 50, 43, 288, 53, // bind, listen, accept, accept4, socketpair
			165, 166, 155, 161, 308, 272, // mount, umount2, pivot_root, chroot, setns, unshare
			321, 298, 323, // bpf, perf_event_open, userfaultfd
			250, 248, 249, // keyctl, add_key, request_key
			246, 320, 175, 313, 176, // kexec_load, kexec_file_load, init_module, finit_module, delete_module
			169, 167, 168, 170, 171, // reboot, swapon, swapoff, sethostname, setdomainname
			164, 227, 305, 159, // settimeofday, clock_settime, clock_adjtime, adjtimex
			163, 179, 103, 153, 212, // acct, quotactl, syslog, vhangup, lookup_dcookie
			172, 173, 154, 135, // iopl, ioperm, modify_ldt, personality
			304, 303, 300, // open_by_handle_at, name_to_handle_at, fanotify_init
			240, 68, 64, 29, // mq_open, msgget, semget, shmget
			256, 279, // migrate_pages, move_pages
			86, 265, 88, 266, 133, 259, // link, linkat, symlink, symlinkat, mknod, mknodat
		}, deniedEverywhere...),
	}, true
}
