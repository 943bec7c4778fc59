package fly_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tcoder-dev/tcoder/internal/flytest"
	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/machine/fly"
	"github.com/tcoder-dev/tcoder/internal/machine/machinetest"
)

const (
	patience = 20 * time.Second
	secret   = "fm2_verysecret"
	path     = "/v1/apps/acme/machines"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func noPace(context.Context, fly.Action, string) error { return nil }

// open connects a provider to a server of its own.
func open(t *testing.T, server func(*flytest.Config), edit func(*fly.Config)) (*fly.Provider, *flytest.Server) {
	t.Helper()
	cfg := flytest.Config{
		App: "acme", Token: secret, Regions: []string{"iad", "fra"},
		Limits: flytest.Limits{PerSecond: -1, GetPerSecond: -1},
		Delays: flytest.Delays{
			Create: 5 * time.Millisecond, Start: 5 * time.Millisecond, Stop: 10 * time.Millisecond, Destroy: 5 * time.Millisecond,
			Forget: 20 * time.Millisecond,
		},
	}
	if server != nil {
		server(&cfg)
	}
	s := flytest.New(cfg)
	t.Cleanup(s.Close)
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return connect(t, h.URL, edit), s
}

func connect(t *testing.T, url string, edit func(*fly.Config)) *fly.Provider {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true} // on a connection used before, Go repeats a read that was cut
	cfg := fly.Config{
		App: "acme", Token: secret, APIURL: url, Image: "registry.fly.io/acme@sha256:1", Command: []string{"tcoder", "worker"},
		Size: fly.Size{CPUKind: "performance", CPUs: 4, MemoryMB: 8192}, Env: map[string]string{"TCODER_SERVER": "http://plane"},
		Regions: []string{"iad", "fra"}, Pace: noPace, Transport: transport,
	}
	if edit != nil {
		edit(&cfg)
	}
	p, err := fly.New(cfg)
	require.NoError(t, err)
	return p
}

// ops are the server's names of the suite's actions.
func ops() map[machinetest.Action]flytest.Op {
	return map[machinetest.Action]flytest.Op{
		machinetest.Create: flytest.Create, machinetest.Start: flytest.Start, machinetest.Stop: flytest.Stop,
		machinetest.Destroy: flytest.Destroy, machinetest.Get: flytest.Get, machinetest.List: flytest.List,
	}
}

// faults are the answers by which Fly fails so.
func faults(class machine.Class) []flytest.Fault {
	answers := map[machine.Class][]flytest.Answer{
		machine.RateLimited:  {flytest.RateLimited()},
		machine.RegionFull:   {flytest.RegionFull(), flytest.NoCapacity()},
		machine.HostFull:     {flytest.HostFull()},
		machine.Quota:        {flytest.OverQuota("dfw")},
		machine.NotReady:     {flytest.NotReady("created"), flytest.Refusal(409, "aborted: machine update failed due to concurrent update")},
		machine.Unauthorized: {flytest.Unauthorized(), flytest.Refusal(403, "forbidden")},
		machine.Refused:      {flytest.Refusal(400, "invalid_argument: nope")},
		machine.Unclear:      {flytest.Refusal(500, "internal"), flytest.Refusal(502, "bad gateway"), flytest.Refusal(503, "unavailable"), {Status: 504}},
	}
	var list []flytest.Fault
	for _, a := range answers[class] {
		list = append(list, flytest.Fault{Answer: a})
	}
	if class == machine.Unclear {
		list = append(list, flytest.Fault{Cut: true})
	}
	return list
}

// TestConformance: machines of Fly are machines like any other, whichever of
// Fly's ways to fail stands for a class.
func TestConformance(t *testing.T) {
	t.Parallel()
	for variant := range 5 {
		t.Run(string(rune('a'+variant)), func(t *testing.T) {
			t.Parallel()
			machinetest.Run(t, func(t *testing.T) machinetest.Fixture {
				t.Helper()
				p, s := open(t, nil, nil)
				return machinetest.Fixture{
					Provider: p,
					End: func(t *testing.T, id string, fail bool) {
						t.Helper()
						s.Exit(id, map[bool]int{true: 1, false: 0}[fail])
					},
					Provoke: func(t *testing.T, action machinetest.Action, class machine.Class, effect bool) bool {
						t.Helper()
						list := faults(class)
						if len(list) == 0 {
							return false
						}
						fault := list[variant%len(list)]
						fault.Op, fault.Effect = ops()[action], effect
						s.Inject(fault)
						return true
					},
				}
			})
		})
	}
}

// TestWhatIsAskedFor: the name, the metadata and the policies of a machine.
func TestWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	p, s := open(t, nil, func(c *fly.Config) {
		c.Sizes = map[string]fly.Size{"big": {CPUKind: "performance", CPUs: 16, MemoryMB: 32768}}
		c.KillTimeout = 5 * time.Minute
	})
	_, err := p.Create(t.Context(), machine.CreateRequest{
		ID: "01JABC", Size: "big", Regions: []string{"fra", "iad"}, Env: map[string]string{"TCODER_MACHINE_ID": "01JABC"},
	})
	require.NoError(t, err)
	var sent map[string]any
	require.NoError(t, json.Unmarshal([]byte(s.Calls(flytest.Create)[0].Body), &sent))
	config, ok := sent["config"].(map[string]any)
	require.True(t, ok)
	metadata, ok := config["metadata"].(map[string]any)
	require.True(t, ok)
	require.Len(t, metadata["tcoder_revision"], 16)
	delete(metadata, "tcoder_revision")
	require.Equal(t, map[string]any{
		"name": "tcoder-01jabc", "region": "fra,iad", "skip_secrets": false,
		"config": map[string]any{
			"image": "registry.fly.io/acme@sha256:1", "init": map[string]any{"exec": []any{"tcoder", "worker"}},
			"env":         map[string]any{"TCODER_SERVER": "http://plane", "TCODER_MACHINE_ID": "01JABC"},
			"guest":       map[string]any{"cpu_kind": "performance", "cpus": 16.0, "memory_mb": 32768.0},
			"metadata":    map[string]any{"tcoder_pool": "tcoder", "tcoder_machine": "01JABC"},
			"restart":     map[string]any{"policy": "no"},
			"stop_config": map[string]any{"signal": "SIGTERM", "timeout": "5m0s"},
		},
	}, sent)
	list, err := p.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, "fra", list[0].Region)
	require.WithinDuration(t, time.Now(), list[0].Created, time.Minute)
}

// TestSentOnce: each call is sent once, whatever the answer; the library by
// itself repeats even a create.
func TestSentOnce(t *testing.T) {
	t.Parallel()
	p, s := open(t, nil, nil)
	id, err := p.Create(t.Context(), machine.CreateRequest{ID: "M0"})
	require.NoError(t, err)
	for op, call := range map[flytest.Op]func() error{
		flytest.Create:  func() error { _, err := p.Create(t.Context(), machine.CreateRequest{ID: "M1"}); return err },
		flytest.Start:   func() error { return p.Start(t.Context(), id) },
		flytest.Stop:    func() error { return p.Stop(t.Context(), id) },
		flytest.Destroy: func() error { return p.Destroy(t.Context(), id) },
		flytest.Get:     func() error { _, err := p.Get(t.Context(), id); return err },
		flytest.List:    func() error { _, err := p.List(t.Context()); return err },
	} {
		for _, fault := range faults(machine.Unclear) {
			before := len(s.Calls(op))
			fault.Op = op
			s.Inject(fault)
			require.Equal(t, machine.Unclear, machine.ClassOf(call()))
			require.Len(t, s.Calls(op), before+1, op)
		}
	}
}

// TestLostCreate: a machine whose creation was answered 502, cut off, or never
// answered is found by the list at once; if the list lags, by creating again.
func TestLostCreate(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]flytest.Fault{
		"502": {Answer: flytest.Refusal(502, "bad gateway")}, "cut": {Cut: true}, "silent": {Hang: true},
		"not JSON": {Answer: flytest.Answer{Status: 200, Body: "?"}}, "empty": {Answer: flytest.Answer{Status: 200, Body: map[string]any{}}},
	} {
		fault.Op, fault.Effect = flytest.Create, true
		for _, lag := range []time.Duration{0, time.Hour} {
			t.Run(name+" "+lag.String(), func(t *testing.T) {
				t.Parallel()
				p, s := open(t, nil, func(c *fly.Config) { c.RequestTimeout = time.Second })
				s.Inject(fault)
				s.SetListLag(lag)
				id, err := p.Create(t.Context(), machine.CreateRequest{ID: "M1"})
				if lag > 0 {
					require.Equal(t, machine.Unclear, machine.ClassOf(err))
					id, err = p.Create(t.Context(), machine.CreateRequest{ID: "M1"})
				}
				require.NoError(t, err)
				got, err := p.Get(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, "M1", got.ID)
				require.Equal(t, 1, s.Counts().Created)
			})
		}
	}
}

// TestForeignName: a machine of the same name that isn't of this pool is
// neither adopted nor touched.
func TestForeignName(t *testing.T) {
	t.Parallel()
	p, s := open(t, nil, nil)
	h := httptest.NewServer(s)
	defer h.Close()
	other := connect(t, h.URL, func(c *fly.Config) { c.Pool = "tcoder-m" }) // "tcoder-m" + "-1..." against "tcoder" + "-m-1..."
	foreign, err := other.Create(t.Context(), machine.CreateRequest{ID: "1"})
	require.NoError(t, err)
	s.Inject(flytest.Fault{Op: flytest.Create, Answer: flytest.NameTaken(foreign, "tcoder-x")})
	_, err = p.Create(t.Context(), machine.CreateRequest{ID: "X"})
	require.Equal(t, machine.NameTaken, machine.ClassOf(err))
	list, err := p.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, list)
	_, err = p.Get(t.Context(), foreign)
	require.Equal(t, machine.NotFound, machine.ClassOf(err))
}

// TestRegions: the next region is used if one is full or its quota is spent.
func TestRegions(t *testing.T) {
	t.Parallel()
	p, s := open(t, nil, nil)
	s.SetRoom("iad", 0)
	id, err := p.Create(t.Context(), machine.CreateRequest{ID: "M1"})
	require.NoError(t, err)
	got, err := p.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, "fra", got.Region)
	s.SetRoom("iad", -1)
	s.Inject(flytest.Fault{Op: flytest.Create, Answer: flytest.OverQuota("iad")})
	id, err = p.Create(t.Context(), machine.CreateRequest{ID: "M2"})
	require.NoError(t, err)
	got, err = p.Get(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, "fra", got.Region)
	s.SetQuota(0)
	_, err = p.Create(t.Context(), machine.CreateRequest{ID: "M3"})
	require.Equal(t, machine.Quota, machine.ClassOf(err))
	require.Contains(t, machine.MessageOf(err), "over the allowed quota")
}

// TestRegionMemory: a region without room, or whose quota is spent, is passed
// over for a while, and the caller is told each time why the machine isn't there.
func TestRegionMemory(t *testing.T) {
	t.Parallel()
	const memory = time.Second
	p, s := open(t, func(c *flytest.Config) { c.Regions = []string{"iad", "fra", "cdg"} }, func(c *fly.Config) { c.RegionMemory = memory })
	made := 0
	create := func(want string, why map[string]machine.Class) {
		t.Helper()
		made++
		passed := map[string]machine.Class{}
		_, err := p.Create(t.Context(), machine.CreateRequest{
			ID: "M" + strconv.Itoa(made), Regions: []string{"iad", "fra", "cdg"},
			PassedOver: func(region string, err error) { passed[region] = machine.ClassOf(err) },
		})
		require.NoError(t, err)
		require.Equal(t, why, passed)
		calls := s.Calls(flytest.Create)
		require.Contains(t, calls[len(calls)-1].Body, `"region":"`+want+`"`)
	}
	create("iad,fra,cdg", map[string]machine.Class{})
	s.SetRoom("iad", 0)
	create("iad,fra,cdg", map[string]machine.Class{"iad": machine.RegionFull})
	s.Inject(flytest.Fault{Op: flytest.Create, Answer: flytest.OverQuota("fra")})
	create("cdg,iad", map[string]machine.Class{"iad": machine.RegionFull, "fra": machine.Quota})
	create("cdg,iad", map[string]machine.Class{"iad": machine.RegionFull, "fra": machine.Quota})
	require.Len(t, s.Calls(flytest.Create), 5)
	s.SetRoom("iad", -1)
	require.Eventually(t, func() bool {
		made++
		_, err := p.Create(t.Context(), machine.CreateRequest{ID: "M" + strconv.Itoa(made), Regions: []string{"iad", "fra", "cdg"}})
		calls := s.Calls(flytest.Create)
		return err == nil && strings.Contains(calls[len(calls)-1].Body, `"region":"iad,fra,cdg"`)
	}, patience, memory/10, "it is remembered for ever")
}

// TestHosts: a stopped machine whose host is full says so; one whose host
// can't be seen is still listed, as such.
func TestHosts(t *testing.T) {
	t.Parallel()
	p, s := open(t, nil, nil)
	id, err := p.Create(t.Context(), machine.CreateRequest{ID: "M1"})
	require.NoError(t, err)
	state := func() machine.Instance {
		list, err := p.List(t.Context())
		require.NoError(t, err)
		require.Len(t, list, 1)
		return list[0]
	}
	require.Eventually(t, func() bool { return state().State == machine.Running }, patience, 2*time.Millisecond)
	s.SetHostStatus(id, "unreachable")
	require.True(t, state().HostLost)
	require.Equal(t, "M1", state().ID)
	s.SetHostStatus(id, "ok")
	require.NoError(t, p.Stop(t.Context(), id))
	require.Eventually(t, func() bool { return state().State == machine.Stopped }, patience, 2*time.Millisecond)
	s.FillHost(id, true)
	err = p.Start(t.Context(), id)
	require.Equal(t, machine.HostFull, machine.ClassOf(err))
	require.ErrorIs(t, err, machine.ErrCapacity)
}

// TestOutdated: machines made with other settings are told.
func TestOutdated(t *testing.T) {
	t.Parallel()
	p, s := open(t, nil, nil)
	h := httptest.NewServer(s)
	defer h.Close()
	_, err := p.Create(t.Context(), machine.CreateRequest{ID: "M1", Env: map[string]string{"only": "this one"}})
	require.NoError(t, err)
	for image, outdated := range map[string]bool{"registry.fly.io/acme@sha256:1": false, "registry.fly.io/acme@sha256:2": true} {
		list, err := connect(t, h.URL, func(c *fly.Config) { c.Image = image }).List(t.Context())
		require.NoError(t, err)
		require.Equal(t, outdated, list[0].Outdated)
	}
}

// TestDestroyWaits: it is done once the machine is gone, so that its place can
// be given to another; one that takes too long is Unclear.
func TestDestroyWaits(t *testing.T) {
	t.Parallel()
	slow := 50 * time.Millisecond
	p, s := open(t, func(c *flytest.Config) { c.Delays.Destroy = slow }, nil)
	id, err := p.Create(t.Context(), machine.CreateRequest{ID: "M1"})
	require.NoError(t, err)
	require.NoError(t, p.Destroy(t.Context(), id))
	require.Zero(t, s.Counts().Existing)

	p, _ = open(t, func(c *flytest.Config) { c.Delays.Destroy = time.Hour }, func(c *fly.Config) { c.DestroyTimeout = time.Second })
	id, err = p.Create(t.Context(), machine.CreateRequest{ID: "M1"})
	require.NoError(t, err)
	require.Equal(t, machine.Unclear, machine.ClassOf(p.Destroy(t.Context(), id)))
	list, err := p.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, machine.Stopping, list[0].State)
}

// TestNoTokenInErrors, even if it is in what Fly wrote.
func TestNoTokenInErrors(t *testing.T) {
	t.Parallel()
	p, s := open(t, nil, nil)
	for _, status := range []int{400, 401, 403, 409, 500} {
		s.Inject(flytest.Fault{Op: flytest.List, Answer: flytest.Refusal(status, "no: %s\nnor that", secret)})
		_, err := p.List(t.Context())
		require.Error(t, err)
		require.NotContains(t, err.Error()+machine.MessageOf(err), secret)
		require.NotContains(t, err.Error()+machine.MessageOf(err), "\n")
	}
}

// TestConfig: what can't work is said at once.
func TestConfig(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*fly.Config){
		"app":          func(c *fly.Config) { c.App = "a/b" },
		"token":        func(c *fly.Config) { c.Token = "" },
		"url":          func(c *fly.Config) { c.APIURL = "machines" },
		"user in url":  func(c *fly.Config) { c.APIURL = "http://me@machines" },
		"pool":         func(c *fly.Config) { c.Pool = "Big Pool" },
		"image":        func(c *fly.Config) { c.Image = "" },
		"kill timeout": func(c *fly.Config) { c.KillTimeout = 6 * time.Minute },
		"region":       func(c *fly.Config) { c.Regions = []string{"iad,fra"} },
		"size":         func(c *fly.Config) { c.Size.MemoryMB = 100 },
		"sizes":        func(c *fly.Config) { c.Sizes = map[string]fly.Size{"big": {}} },
	} {
		cfg := fly.Config{App: "acme", Token: secret, Image: "i", Size: fly.Size{CPUKind: "performance", CPUs: 1, MemoryMB: 2048}}
		_, err := fly.New(cfg)
		require.NoError(t, err)
		edit(&cfg)
		_, err = fly.New(cfg)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), secret)
	}
	for text, want := range map[string]fly.Size{
		"performance-4x": {"performance", 4, 8192}, "performance-16x:65536": {"performance", 16, 65536}, "shared-cpu-2x": {"shared", 2, 512},
	} {
		size, err := fly.ParseSize(text)
		require.NoError(t, err)
		require.Equal(t, want, size)
	}
	for _, text := range []string{"", "big", "performance-3x", "performance-4x:100", "performance-4x:", "shared-cpu-16x", "performance-1x:65536"} {
		_, err := fly.ParseSize(text)
		require.Error(t, err, text)
	}
}
