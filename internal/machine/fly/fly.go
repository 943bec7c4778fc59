// Package fly makes machines of Fly.io. It alone knows Fly's client library,
// which it uses as it is.
//
// A machine's name follows from its id, and Fly lets no two machines have one
// name: so a creation whose answer was lost can be repeated, and finds the
// machine that is there. Every call is sent once; who called knows whether to
// repeat it. Machines carry the pool's name, their id and the revision of the
// settings that they were made from as metadata, by which List knows them;
// those of other pools or of no pool are never touched.
//
// Stopped machines keep their place on one host, which may have no room for
// them when they are to start (HostFull).
package fly

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	api "github.com/superfly/fly-go"
	"github.com/superfly/fly-go/flaps"
	"github.com/superfly/fly-go/tokens"

	"github.com/tcoder-dev/tcoder/internal/machine"
)

// The metadata of a machine of ours.
const (
	poolKey     = "tcoder_pool"
	machineKey  = "tcoder_machine"
	revisionKey = "tcoder_revision"
)

// mostSureID is the longest id that goes into a name as it is.
const mostSureID = 40

// Provider is a [machine.Provider].
type Provider struct {
	cfg      Config
	client   *flaps.Client
	revision string
	regions  *regions
}

var _ machine.Provider = (*Provider)(nil)

// New contacts nobody.
func New(cfg Config) (*Provider, error) {
	base, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("fly: %w", err)
	}
	if cfg.Pace == nil {
		cfg.Pace = LocalPace()
	}
	next := cfg.Transport
	if next == nil {
		own, ok := http.DefaultTransport.(*http.Transport)
		if !ok {
			return nil, errors.New("fly: Go's default transport was replaced; set Config.Transport")
		}
		next = own.Clone()
	}
	revision, err := cfg.revision()
	if err != nil {
		return nil, fmt.Errorf("fly: %w", err)
	}
	client, err := flaps.NewWithOptions(context.Background(), flaps.NewClientOpts{
		UserAgent: cfg.UserAgent, Tokens: tokens.Parse(cfg.Token), Transport: &transport{next: next, base: base},
	})
	if err != nil {
		return nil, fmt.Errorf("fly: %w", err)
	}
	return &Provider{
		cfg: cfg, client: client, revision: revision,
		regions: &regions{memory: cfg.RegionMemory, full: map[string]fullRegion{}},
	}, nil
}

// Name implements [machine.Provider].
func (p *Provider) Name() string { return "fly" }

// Changes implements [machine.Provider]: Fly doesn't tell.
func (p *Provider) Changes() <-chan struct{} { return nil }

// call makes one call when its turn has come.
func (p *Provider) call(ctx context.Context, action Action, id string, do func(context.Context) error) error {
	if err := p.cfg.Pace(ctx, action, id); err != nil {
		return p.classify(action, &waitError{err})
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.RequestTimeout)
	defer cancel()
	return p.classify(action, do(ctx))
}

// CheckRegion implements [machine.Provider].
func (p *Provider) CheckRegion(region string) error {
	if !validRegion(region) {
		return fmt.Errorf("%q can't be a region of Fly: write fra, or eu for any of a continent", shorten(region))
	}
	return nil
}

// CheckSize implements [machine.Provider].
func (p *Provider) CheckSize(size string) error {
	_, err := p.sizeOf(size)
	return err
}

// Create implements [machine.Provider].
func (p *Provider) Create(ctx context.Context, req machine.CreateRequest) (string, error) {
	id, err := p.create(ctx, req)
	if err != nil {
		return "", fmt.Errorf("create machine %s: %w", req.ID, err)
	}
	return id, nil
}

func (p *Provider) create(ctx context.Context, req machine.CreateRequest) (string, error) {
	input, err := p.launch(req)
	if err != nil {
		return "", err
	}
	wanted := req.Regions
	if len(wanted) == 0 {
		wanted = p.cfg.Regions
	}
	asked := p.regions.order(wanted)
	for {
		input.Region = strings.Join(asked, ",")
		made, err := p.post(ctx, req, input)
		if err == nil {
			for region, why := range p.regions.made(made.Region, wanted, asked) {
				if req.PassedOver != nil {
					req.PassedOver(region, why)
				}
			}
			return made.ID, nil
		}
		spent, quota := fullQuota(err)
		switch {
		case machine.ClassOf(err) == machine.NameTaken:
			return p.adopt(ctx, req.ID, holder(err), err)
		case machine.ClassOf(err) == machine.Unclear:
			return p.resolve(ctx, req.ID, err)
		case len(asked) > 1 && slices.Contains(asked, spent):
			// A quota may be of one region: the others are asked.
			p.regions.spent(spent, quota)
			asked = slices.DeleteFunc(asked, func(region string) bool { return region == spent })
		default:
			return "", err
		}
	}
}

func (p *Provider) post(ctx context.Context, req machine.CreateRequest, input api.LaunchMachineInput) (*api.Machine, error) {
	var made *api.Machine
	var withdrawn error
	err := p.call(ctx, ActionCreate, "", func(ctx context.Context) (err error) {
		if withdrawn = req.Confirmed(); withdrawn != nil {
			return withdrawn
		}
		if made, err = p.client.Launch(ctx, p.cfg.App, input); err == nil && made.ID == "" {
			err = errors.New("the answer names no machine")
		}
		return err
	})
	return made, cmp.Or(withdrawn, err)
}

// launch is what is asked of Fly, but for the region.
func (p *Provider) launch(req machine.CreateRequest) (api.LaunchMachineInput, error) {
	refuse := func(text string) (api.LaunchMachineInput, error) {
		return api.LaunchMachineInput{}, &machine.Error{Class: machine.Refused, Message: text}
	}
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`).MatchString(req.ID) {
		return refuse("The machine's id is not 1 to 64 of letters, digits, '-' and '_'.")
	}
	for _, region := range req.Regions {
		if !validRegion(region) {
			return refuse("There can't be a region of this name: " + shorten(region) + ".")
		}
	}
	size := p.cfg.Size
	if req.Size != "" {
		var err error
		if size, err = p.sizeOf(req.Size); err != nil {
			return refuse("There is no size of this name: " + shorten(req.Size) + ".")
		}
	}
	env := map[string]string{}
	maps.Copy(env, p.cfg.Env)
	maps.Copy(env, req.Env)
	return api.LaunchMachineInput{
		Name: p.name(req.ID),
		Config: &api.MachineConfig{
			Image: p.cfg.Image,
			Env:   env,
			Init:  api.MachineInit{Exec: p.cfg.Command},
			Guest: &api.MachineGuest{CPUKind: size.CPUKind, CPUs: size.CPUs, MemoryMB: size.MemoryMB},
			Metadata: map[string]string{
				poolKey: p.cfg.Pool, machineKey: req.ID, revisionKey: p.revision,
			},
			// The pool decides what becomes of a machine that ended.
			Restart:    &api.MachineRestart{Policy: api.MachineRestartPolicyNo},
			StopConfig: &api.StopConfig{Timeout: &api.Duration{Duration: p.cfg.KillTimeout}, Signal: new("SIGTERM")},
		},
	}, nil
}

// sizeOf is a size by our name for it, or by Fly's.
func (p *Provider) sizeOf(name string) (Size, error) {
	if size, ok := p.cfg.Sizes[name]; ok {
		return size, nil
	}
	return ParseSize(name)
}

// name is the name of the machine with an id. Names are lower case; an id that
// isn't all upper case, as ours are, gets a hash, lest two ids have one name.
func (p *Provider) name(id string) string {
	name := strings.ToLower(strings.ReplaceAll(id, "_", "-"))
	if len(id) > mostSureID || !regexp.MustCompile(`^[A-Z0-9]+$`).MatchString(id) {
		sum := sha256.Sum256([]byte(id))
		name = name[:min(len(name), mostSureID-9)] + "-" + hex.EncodeToString(sum[:4])
	}
	return p.cfg.Pool + "-" + name
}

// adopt takes the machine that has the name already, if it is ours.
func (p *Provider) adopt(ctx context.Context, id, holderID string, taken error) (string, error) {
	if holderID == "" {
		return p.resolve(ctx, id, taken)
	}
	there, err := p.get(ctx, holderID)
	switch {
	case machine.ClassOf(err) == machine.NotFound:
		return "", &machine.Error{Class: machine.NotReady, Message: "A machine of the same name is just going away."}
	case err != nil:
		return "", err
	case !p.ours(there) || p.instance(there).ID != id:
		return "", taken
	}
	return there.ID, nil
}

// resolve looks in the list for a machine whose creation was unclear. One that
// isn't there may still come.
func (p *Provider) resolve(ctx context.Context, id string, unclear error) (string, error) {
	instances, err := p.List(ctx)
	if err != nil {
		return "", unclear // which says more
	}
	for _, i := range instances {
		if i.ID == id {
			return i.ProviderID, nil
		}
	}
	return "", unclear
}

// Start implements [machine.Provider].
func (p *Provider) Start(ctx context.Context, providerID string) error {
	return p.act(ctx, ActionStart, providerID, func(ctx context.Context) error {
		_, err := p.client.Start(ctx, p.cfg.App, providerID, "")
		return err
	})
}

// Stop implements [machine.Provider].
func (p *Provider) Stop(ctx context.Context, providerID string) error {
	return p.act(ctx, ActionStop, providerID, func(ctx context.Context) error {
		in := api.StopMachineInput{ID: providerID, Signal: "SIGTERM", Timeout: api.Duration{Duration: p.cfg.KillTimeout}}
		return p.client.Stop(ctx, p.cfg.App, in, "")
	})
}

// act makes a call on one machine.
func (p *Provider) act(ctx context.Context, action Action, id string, do func(context.Context) error) error {
	err := validID(id)
	if err == nil {
		err = p.call(ctx, action, id, do)
	}
	if err != nil {
		return fmt.Errorf("%s machine %s: %w", action, id, err)
	}
	return nil
}

// validID keeps what isn't an id of Fly's out of an address.
func validID(id string) error {
	if !regexp.MustCompile(`^[A-Za-z0-9]{1,64}$`).MatchString(id) {
		return &machine.Error{Class: machine.NotFound, Message: "Fly has no such machine."}
	}
	return nil
}

// Destroy implements [machine.Provider].
func (p *Provider) Destroy(ctx context.Context, providerID string) error {
	err := p.act(ctx, ActionDestroy, providerID, func(ctx context.Context) error {
		return p.client.Destroy(ctx, p.cfg.App, api.RemoveMachineInput{ID: providerID, Kill: true}, "")
	})
	if err == nil {
		err = p.awaitGone(ctx, providerID)
	}
	if machine.ClassOf(err) == machine.NotFound {
		return nil
	}
	return err
}

// awaitGone waits for the end of a machine that is being destroyed.
func (p *Provider) awaitGone(ctx context.Context, id string) error {
	if err := p.cfg.Pace(ctx, ActionWait, id); err != nil {
		return p.classify(ActionWait, &waitError{err})
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DestroyTimeout+p.cfg.RequestTimeout)
	defer cancel()
	err := p.classify(ActionWait, p.client.Wait(ctx, p.cfg.App, id,
		flaps.WithWaitStates(api.MachineStateDestroyed), flaps.WithWaitTimeout(p.cfg.DestroyTimeout)))
	if err != nil {
		return fmt.Errorf("wait for the end of machine %s: %w", id, err)
	}
	return nil
}

// Get implements [machine.Provider].
func (p *Provider) Get(ctx context.Context, providerID string) (machine.Instance, error) {
	m, err := p.get(ctx, providerID)
	if err == nil && !p.ours(m) {
		err = &machine.Error{Class: machine.NotFound, Message: "The machine isn't of this pool."}
	}
	if err != nil {
		return machine.Instance{}, fmt.Errorf("get machine %s: %w", providerID, err)
	}
	return p.instance(m), nil
}

func (p *Provider) get(ctx context.Context, id string) (*api.Machine, error) {
	if err := validID(id); err != nil {
		return nil, err
	}
	var m *api.Machine
	err := p.call(ctx, ActionGet, id, func(ctx context.Context) (err error) {
		m, err = p.client.Get(ctx, p.cfg.App, id)
		return err
	})
	if err == nil && gone(m.State) {
		err = &machine.Error{Class: machine.NotFound, Message: "Fly has destroyed the machine."}
	}
	return m, err
}

// List implements [machine.Provider]. It asks for all machines of the app: a
// filter by metadata might miss one whose host can't be seen.
func (p *Provider) List(ctx context.Context) ([]machine.Instance, error) {
	var all []*api.Machine
	err := p.call(ctx, ActionList, "", func(ctx context.Context) (err error) {
		all, err = p.client.List(ctx, p.cfg.App, "")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	instances := []machine.Instance{}
	for _, m := range all {
		if p.ours(m) && !gone(m.State) {
			instances = append(instances, p.instance(m))
		}
	}
	return instances, nil
}
