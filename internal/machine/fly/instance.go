package fly

import (
	"fmt"

	api "github.com/superfly/fly-go"

	"github.com/tcoder-dev/tcoder/internal/machine"
)

// ours reports whether a machine is of this pool.
func (p *Provider) ours(m *api.Machine) bool { return m.GetMetadataByKey(poolKey) == p.cfg.Pool }

// gone reports whether a machine in a state of Fly's can't come back.
func gone(state string) bool {
	switch state {
	case "destroyed", "replaced", "migrated":
		return true
	default:
		return false
	}
}

// instance is a machine in our words.
func (p *Provider) instance(m *api.Machine) machine.Instance {
	i := machine.Instance{
		ID:         m.GetMetadataByKey(machineKey),
		ProviderID: m.ID,
		Region:     m.Region,
		Outdated:   m.GetMetadataByKey(revisionKey) != p.revision,
		Created:    parseTime(m.CreatedAt),
	}
	i.State, i.Detail = stateOf(m)
	if m.HostStatus != "" && m.HostStatus != api.HostStatusOk {
		i.HostLost = true
		i.Detail = fmt.Sprintf("its host is %s; its state was %s", m.HostStatus, m.State)
	}
	return i
}

func stateOf(m *api.Machine) (machine.State, string) {
	switch m.State {
	case "started":
		return machine.Running, ""
	case "stopping", "suspending", "destroying":
		return machine.Stopping, "Fly says " + m.State
	case "suspended":
		return machine.Stopped, "suspended"
	case "stopped":
		return afterExit(m)
	case "failed", "launch_failed":
		return machine.Failed, "Fly says " + m.State
	default: // created, creating, starting, restarting, updating, replacing, and what they will think of
		return machine.Starting, "Fly says " + m.State
	}
}

// afterExit tells a machine that ended well from one that didn't, by the event
// of its last end.
func afterExit(m *api.Machine) (machine.State, string) {
	event := m.GetLatestEventOfType("exit")
	if event == nil || event.Request == nil {
		return machine.Stopped, ""
	}
	exit := event.Request.ExitEvent
	if monitor := event.Request.MonitorEvent; monitor != nil && monitor.ExitEvent != nil {
		exit = monitor.ExitEvent
	}
	switch {
	case exit == nil, exit.RequestedStop && !exit.OOMKilled:
		return machine.Stopped, ""
	case exit.OOMKilled:
		return machine.Failed, "it ran out of memory"
	case exit.GuestSignal != 0:
		return machine.Failed, fmt.Sprintf("killed by signal %d", exit.GuestSignal)
	case exit.ExitCode != 0:
		return machine.Failed, fmt.Sprintf("exit status %d", exit.ExitCode)
	default:
		return machine.Stopped, ""
	}
}
