// Package sandbox runs a program that reads hostile input so that, taken over
// by it, it can reach nothing: no file but the libraries it is made of and the
// one folder it may write to, no address but one port, no other process, and
// no right that this process has and it doesn't need.
//
// A program that imports this package is its own wrapper: Command starts
// /proc/self/exe under another name, an init function finds that name, gives
// up what the policy in the arguments says, and becomes the program that was
// asked for. So nothing has to be installed beside, there is no shell, and no
// moment at which the program runs without its bounds. The package imports
// little, so that its init comes before the dear ones.
//
// The layers are Landlock (files and ports), seccomp (system calls), a user
// without rights, and resource limits. New tries them out on this machine, and
// says of each that is missing why; a layer that was there then and fails later
// fails the run, never silently.
package sandbox
