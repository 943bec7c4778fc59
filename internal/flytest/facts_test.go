package flytest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tcoder-dev/tcoder/internal/flytest"
)

const (
	patience = 20 * time.Second
	path     = "/v1/apps/acme/machines"
	image    = `"image":"registry.fly.io/acme:v1"`
)

// TestMain is also the program of a machine: it ends on SIGTERM, or never.
func TestMain(m *testing.M) {
	if os.Getenv("FLYTEST_ROLE") == "" {
		goleak.VerifyTestMain(m)
		return
	}
	play()
}

// api is a server and what a client knows of it.
type api struct {
	*flytest.Server

	url string
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	text   string
	body   map[string]any
}

func (r reply) message() string {
	text, _ := r.body["error"].(string)
	return text
}

// text is a field that is one.
func text(t *testing.T, from map[string]any, field string) string {
	t.Helper()
	value, ok := from[field].(string)
	require.True(t, ok, "%s is not text: %v", field, from)
	return value
}

// object is a field that is one.
func object(t *testing.T, from map[string]any, field string) map[string]any {
	t.Helper()
	value, ok := from[field].(map[string]any)
	require.True(t, ok, "%s is not an object: %v", field, from)
	return value
}

// open starts a server without limits and delays, but what edit says.
func open(t *testing.T, edit func(*flytest.Config)) api {
	t.Helper()
	cfg := flytest.Config{App: "acme", Token: "fm2_secret", Limits: flytest.Limits{PerSecond: -1, GetPerSecond: -1}}
	if edit != nil {
		edit(&cfg)
	}
	s := flytest.New(cfg)
	t.Cleanup(s.Close)
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return api{Server: s, url: h.URL}
}

func (a api) send(t *testing.T, method, path, body string, header ...string) (reply, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, a.url+path, bytes.NewReader([]byte(body)))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer fm2_secret")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	r := reply{status: resp.StatusCode, header: resp.Header, text: string(text)}
	_ = json.Unmarshal(text, &r.body) // a list isn't an object
	return r, nil
}

func (a api) call(t *testing.T, method, path, body string, header ...string) reply {
	t.Helper()
	r, err := a.send(t, method, path, body, header...)
	require.NoError(t, err)
	return r
}

// launch creates a machine and returns its id.
func (a api) launch(t *testing.T, fields, config string) string {
	t.Helper()
	r := a.call(t, "POST", path, "{"+fields+`"config":{`+image+config+"}}")
	require.Equal(t, http.StatusOK, r.status, r.text)
	return text(t, r.body, "id")
}

func (a api) state(t *testing.T, id string) string {
	t.Helper()
	r := a.call(t, "GET", path+"/"+id, "")
	if r.status == http.StatusNotFound {
		return "404"
	}
	return text(t, r.body, "state")
}

func (a api) await(t *testing.T, id, state string) {
	t.Helper()
	require.Eventually(t, func() bool { return a.state(t, id) == state }, patience, 2*time.Millisecond,
		"%s never became %s", id, state)
}

const noRestart = `,"restart":{"policy":"no"}`

// TestAuthAcceptsBothSchemes: Bearer and FlyV1; 401 with their body else.
func TestAuthAcceptsBothSchemes(t *testing.T) {
	t.Parallel()
	a := open(t, nil)
	for header, status := range map[string]int{
		"Bearer fm2_secret": 200, "FlyV1 fm2_secret": 200, "Bearer other": 401, "Basic fm2_secret": 401, "fm2_secret": 401,
	} {
		r := a.call(t, "GET", path, "", "Authorization", header)
		require.Equal(t, status, r.status, header)
		if status == 401 {
			require.Equal(t, "Authenticate: token validation error", r.message())
		}
	}
}

// TestEveryResponseHasARequestID, errors included.
func TestEveryResponseHasARequestID(t *testing.T) {
	t.Parallel()
	a := open(t, nil)
	for _, p := range []string{path, path + "/nobody", "/v1/apps/other/machines", "/elsewhere"} {
		require.NotEmpty(t, a.call(t, "GET", p, "").header.Get("Fly-Request-Id"), p)
	}
}

// TestCreateAnswersCreated: 200 and state created, then starting and started;
// a nonce only if a lease was asked for.
func TestCreateAnswersCreated(t *testing.T) {
	t.Parallel()
	a := open(t, func(c *flytest.Config) {
		c.Delays = flytest.Delays{Create: 20 * time.Millisecond, Start: 20 * time.Millisecond}
	})
	r := a.call(t, "POST", path, `{"config":{`+image+`},"skip_secrets":false,"unknown":{"field":1}}`)
	require.Equal(t, http.StatusOK, r.status)
	require.Equal(t, "created", r.body["state"])
	require.NotContains(t, r.body, "nonce")
	require.NotEqual(t, r.body["id"], r.body["instance_id"])
	id := text(t, r.body, "id")
	a.await(t, id, "starting")
	a.await(t, id, "started")
	require.Contains(t, a.call(t, "POST", path, `{"config":{`+image+`},"lease_ttl":30}`).body, "nonce")
}

// TestSkipLaunchEndsStopped: the machine is prepared and waits for its start.
func TestSkipLaunchEndsStopped(t *testing.T) {
	t.Parallel()
	a := open(t, func(c *flytest.Config) { c.Delays.Create = 10 * time.Millisecond })
	id := a.launch(t, `"skip_launch":true,`, "")
	a.await(t, id, "stopped")
}

// TestListIsABareArray, filtered by metadata, state and region.
func TestListIsABareArray(t *testing.T) {
	t.Parallel()
	a := open(t, func(c *flytest.Config) { c.Regions = []string{"iad", "fra"} })
	one := a.launch(t, `"region":"fra",`, `,"metadata":{"pool":"x"}`)
	two := a.launch(t, `"skip_launch":true,`, `,"metadata":{"pool":"y"}`)
	for query, want := range map[string][]string{
		"":                               {one, two},
		"?metadata.pool=x":               {one},
		"?metadata.pool=y&state=started": {},
		"?state=started,stopped":         {one, two},
		"?region=iad":                    {two},
		"?summary=true":                  {one, two},
	} {
		var list []map[string]any
		require.NoError(t, json.Unmarshal([]byte(a.call(t, "GET", path+query, "").text), &list))
		ids := []string{}
		for _, m := range list {
			ids = append(ids, text(t, m, "id"))
			require.Equal(t, query == "?summary=true", m["config"] == nil)
		}
		require.Equal(t, want, ids, query)
	}
}

// TestNameConflictNamesTheHolder: 409 with its id; the name of a destroyed
// machine can be used again.
func TestNameConflictNamesTheHolder(t *testing.T) {
	t.Parallel()
	a := open(t, func(c *flytest.Config) { c.Delays.Forget = time.Hour })
	id := a.launch(t, `"name":"worker-1",`, "")
	r := a.call(t, "POST", path, `{"name":"worker-1","config":{`+image+`}}`)
	require.Equal(t, http.StatusConflict, r.status)
	require.Equal(t, fmt.Sprintf(`already_exists: unique machine name violation, machine ID %s already exists with name "worker-1"`, id), r.message())
	require.Equal(t, 200, a.call(t, "DELETE", path+"/"+id+"?kill=true", "").status)
	require.NotEqual(t, id, a.launch(t, `"name":"worker-1",`, ""))
}

// TestRegionMayBeAList: the first with room is taken and told; with none it is
// 422 with its status.
func TestRegionMayBeAList(t *testing.T) {
	t.Parallel()
	a := open(t, func(c *flytest.Config) { c.Regions = []string{"iad", "fra"} })
	a.SetRoom("iad", 0)
	a.SetRoom("fra", 1)
	r := a.call(t, "POST", path, `{"region":"iad,fra","config":{`+image+`}}`)
	require.Equal(t, "fra", r.body["region"])
	for _, region := range []string{"fra", "iad,fra", "any", ""} {
		r = a.call(t, "POST", path, `{"region":"`+region+`","config":{`+image+`}}`)
		require.Equal(t, 422, r.status)
		require.Equal(t, "insufficient_capacity", r.body["status"])
		require.Contains(t, r.message(), "could not find a candidate host")
	}
}

// TestQuotaIs403 with a message that names the region.
func TestQuotaIs403(t *testing.T) {
	t.Parallel()
	a := open(t, nil)
	a.SetQuota(0)
	r := a.call(t, "POST", path, `{"config":{`+image+`}}`)
	require.Equal(t, 403, r.status)
	require.Contains(t, r.message(), "in iad which is over the allowed quota")
}

// TestGuestSizes: RAM in steps of 256 MB, 256 to 2048 for each shared and 2048
// to 8192 for each performance CPU.
func TestGuestSizes(t *testing.T) {
	t.Parallel()
	a := open(t, nil)
	for guest, status := range map[string]int{
		`"cpu_kind":"shared","cpus":1,"memory_mb":256`:         200,
		`"cpu_kind":"shared","cpus":1,"memory_mb":300`:         400,
		`"cpu_kind":"shared","cpus":1,"memory_mb":4096`:        400,
		`"cpu_kind":"performance","cpus":4,"memory_mb":8192`:   200,
		`"cpu_kind":"performance","cpus":4,"memory_mb":4096`:   400,
		`"cpu_kind":"performance","cpus":3,"memory_mb":8192`:   400,
		`"cpu_kind":"performance","cpus":16,"memory_mb":32768`: 200,
	} {
		r := a.call(t, "POST", path, `{"config":{`+image+`,"guest":{`+guest+`}}}`)
		require.Equal(t, status, r.status, guest)
	}
}

// TestStartIsRefusedInBetween: 412 from created, stopping and replacing, with
// their messages; from stopped it says what was before.
func TestStartIsRefusedInBetween(t *testing.T) {
	t.Parallel()
	a := open(t, func(c *flytest.Config) {
		c.Delays = flytest.Delays{Create: 100 * time.Millisecond, Stop: 100 * time.Millisecond}
	})
	id := a.launch(t, "", noRestart)
	r := a.call(t, "POST", path+"/"+id+"/start", "")
	require.Equal(t, 412, r.status)
	require.Equal(t, "failed_precondition: unable to start machine from current state: 'created'", r.message())
	a.await(t, id, "started")
	require.Equal(t, 200, a.call(t, "POST", path+"/"+id, `{"config":{`+image+`}}`).status)
	require.Equal(t, "failed_precondition: machine getting replaced, refusing to start", a.call(t, "POST", path+"/"+id+"/start", "").message())
	a.await(t, id, "started")
	require.Equal(t, true, a.call(t, "POST", path+"/"+id+"/stop", "").body["ok"])
	r = a.call(t, "POST", path+"/"+id+"/start", "")
	require.Equal(t, 412, r.status)
	require.Equal(t, "failed_precondition: machine still active, refusing to start", r.message())
	a.await(t, id, "stopped")
	require.Equal(t, map[string]any{"previous_state": "stopped", "migrated": false, "new_host": ""},
		a.call(t, "POST", path+"/"+id+"/start", "").body)
}

// TestUpdateOfAStoppedMachineLeavesItStopped, under a new instance id.
func TestUpdateOfAStoppedMachineLeavesItStopped(t *testing.T) {
	t.Parallel()
	a := open(t, nil)
	id := a.launch(t, `"skip_launch":true,`, "")
	before := a.call(t, "GET", path+"/"+id, "").body["instance_id"]
	r := a.call(t, "POST", path+"/"+id, `{"config":{"image":"registry.fly.io/acme:v2"}}`)
	require.Equal(t, "stopped", r.body["state"])
	require.NotEqual(t, before, r.body["instance_id"])
}

// TestHostFullIs409: a stopped machine may not start for want of room on its
// host.
func TestHostFullIs409(t *testing.T) {
	t.Parallel()
	a := open(t, nil)
	id := a.launch(t, `"skip_launch":true,`, "")
	a.FillHost(id, true)
	r := a.call(t, "POST", path+"/"+id+"/start", "")
	require.Equal(t, 409, r.status)
	require.Contains(t, r.message(), "available to fulfill request on the current host")
	require.Equal(t, "stopped", a.state(t, id))
}

// TestStopBodies: durations are text, an array is 400 with their message,
// stopping again is fine.
func TestStopBodies(t *testing.T) {
	t.Parallel()
	a := open(t, nil)
	id := a.launch(t, "", noRestart)
	require.Equal(t, "json: cannot unmarshal array into Go value of type main.stopRequest", a.call(t, "POST", path+"/"+id+"/stop", "[]").message())
	require.Equal(t, 400, a.call(t, "POST", path+"/"+id+"/stop", `{"timeout":5}`).status)
	for range 2 {
		require.Equal(t, 200, a.call(t, "POST", path+"/"+id+"/stop", `{"id":"x","signal":"SIGTERM","timeout":"5m0s"}`).status)
		a.await(t, id, "stopped")
	}
}

// TestDestroyOfARunningMachineNeedsForce: force or kill; it ends later, is told
// of as destroyed, then 404.
func TestDestroyOfARunningMachineNeedsForce(t *testing.T) {
	t.Parallel()
	for _, force := range []string{"force", "kill"} {
		a := open(t, func(c *flytest.Config) {
			c.Delays = flytest.Delays{Destroy: 30 * time.Millisecond, Forget: 200 * time.Millisecond}
		})
		id := a.launch(t, "", "")
		r := a.call(t, "DELETE", path+"/"+id, "")
		require.Equal(t, "failed_precondition: unable to destroy machine, not currently stopped", r.message())
		require.Equal(t, true, a.call(t, "DELETE", path+"/"+id+"?"+force+"=true", "").body["ok"])
		require.Equal(t, "destroying", a.state(t, id))
		a.await(t, id, "destroyed")
		require.Equal(t, "[]\n", a.call(t, "GET", path, "").text)
		require.Contains(t, a.call(t, "GET", path+"?include_deleted=true", "").text, id)
		a.await(t, id, "404")
		require.Equal(t, 404, a.call(t, "DELETE", path+"/"+id+"?kill=true", "").status)
	}
}

// TestWaitRules: 400 out of range and for stopped without an instance, 408
// after the timeout, 404 once it can't come any more, 200 with the state.
func TestWaitRules(t *testing.T) {
	t.Parallel()
	a := open(t, func(c *flytest.Config) { c.Delays = flytest.Delays{Start: 50 * time.Millisecond, Forget: time.Hour} })
	id := a.launch(t, "", noRestart)
	wait := path + "/" + id + "/wait"
	r := a.call(t, "GET", wait+"?state=started&timeout=10", "")
	require.Equal(t, 200, r.status)
	require.Equal(t, "started", r.body["state"])
	for _, seconds := range []string{"0", "61", "x"} {
		r = a.call(t, "GET", wait+"?timeout="+seconds, "")
		require.Equal(t, 400, r.status)
		require.Contains(t, r.message(), "value must be inside range [1s, 1m0s]")
	}
	require.Equal(t, 400, a.call(t, "GET", wait+"?state=stopped", "").status)
	require.Equal(t, 200, a.call(t, "GET", wait+"?state=settled", "").status)
	require.Equal(t, 200, a.call(t, "GET", wait+"?state=stopped&state=started&version=x", "").status)
	r = a.call(t, "GET", wait+"?state=stopped&timeout=1&instance_id=x", "")
	require.Equal(t, 408, r.status)
	require.Equal(t, "deadline_exceeded: machine failed to reach desired state, stopped, currently started", r.message())
	require.Equal(t, 200, a.call(t, "DELETE", path+"/"+id+"?kill=true", "").status)
	require.Equal(t, 200, a.call(t, "GET", wait+"?state=destroyed", "").status)
	require.Equal(t, 404, a.call(t, "GET", wait+"?state=started", "").status)
}

// TestLeaseGuards what changes the machine, not its metadata.
func TestLeaseGuards(t *testing.T) {
	t.Parallel()
	a := open(t, nil)
	id := a.launch(t, "", noRestart)
	lease := path + "/" + id + "/lease"
	require.Equal(t, 404, a.call(t, "GET", lease, "").status)
	r := a.call(t, "POST", lease+"?ttl=30", "")
	require.Equal(t, 201, r.status)
	require.Equal(t, "success", r.body["status"])
	nonce := text(t, object(t, r.body, "data"), "nonce")
	require.Equal(t, 409, a.call(t, "POST", lease, `{"ttl":30}`).status)
	require.Equal(t, 201, a.call(t, "POST", lease, `{"ttl":30}`, "fly-machine-lease-nonce", nonce).status)
	for _, guarded := range []string{"/start", "/stop", "/suspend", "/restart", "/cordon"} {
		r = a.call(t, "POST", path+"/"+id+guarded, "")
		require.Equal(t, 409, r.status, guarded)
		require.Regexp(t, `^machine ID `+id+` lease currently held by [0-9a-f-]{36}@tokens\.fly\.io, expires at \d{4}-`, r.message())
	}
	require.Equal(t, 409, a.call(t, "DELETE", path+"/"+id+"?force=true", "").status)
	require.Equal(t, 204, a.call(t, "POST", path+"/"+id+"/metadata/k", `{"value":"v"}`).status)
	require.Equal(t, 200, a.call(t, "POST", path+"/"+id+"/stop", "", "fly-machine-lease-nonce", nonce).status)
	require.Equal(t, 200, a.call(t, "DELETE", lease, "", "fly-machine-lease-nonce", nonce).status)
	require.Equal(t, 404, a.call(t, "GET", lease, "").status)
}

// TestMetadataMakesNoVersion: set, merge, remove; a wrong version is 412.
func TestMetadataMakesNoVersion(t *testing.T) {
	t.Parallel()
	a := open(t, nil)
	id := a.launch(t, "", `,"metadata":{"a":"1","b":"2"}`)
	before := a.call(t, "GET", path+"/"+id, "").body["instance_id"]
	metadata := path + "/" + id + "/metadata"
	require.Equal(t, 204, a.call(t, "DELETE", metadata+"/a", "").status)
	require.Equal(t, 204, a.call(t, "POST", metadata+"/c", `{"value":"3"}`).status)
	require.Equal(t, 412, a.call(t, "PATCH", metadata, `{"metadata":{"b":"9"},"machine_version":"old"}`).status)
	require.Equal(t, 200, a.call(t, "PATCH", metadata, `{"metadata":{"b":""}}`).status)
	require.Equal(t, map[string]any{"c": "3"}, a.call(t, "GET", metadata, "").body)
	require.Equal(t, before, a.call(t, "GET", path+"/"+id, "").body["instance_id"])
}

// TestRestartPolicy: unset is on-failure, so a failed machine runs again; "no"
// leaves it stopped with its exit among the events, newest first.
func TestRestartPolicy(t *testing.T) {
	t.Parallel()
	a := open(t, nil)
	again, once := a.launch(t, "", ""), a.launch(t, "", noRestart)
	for _, id := range []string{again, once} {
		a.Exit(id, 3)
	}
	require.Equal(t, "started", a.state(t, again))
	require.Equal(t, "stopped", a.state(t, once))
	var events []map[string]any
	require.NoError(t, json.Unmarshal([]byte(a.call(t, "GET", path+"/"+once+"/events?limit=1", "").text), &events))
	require.Len(t, events, 1)
	require.Equal(t, "exit", events[0]["type"])
	exit := object(t, object(t, events[0], "request"), "exit_event")
	require.EqualValues(t, 3, exit["exit_code"])
	require.Equal(t, false, exit["requested_stop"])
}

// TestAutoDestroyTakesFailuresToo: with restart "no" a failed machine is
// destroyed as well, and is never seen stopped.
func TestAutoDestroyTakesFailuresToo(t *testing.T) {
	t.Parallel()
	a := open(t, func(c *flytest.Config) { c.Delays.Forget = time.Hour })
	id := a.launch(t, "", noRestart+`,"auto_destroy":true`)
	a.Exit(id, 1)
	require.Equal(t, "destroyed", a.state(t, id))
	require.Equal(t, 404, a.call(t, "GET", path+"/"+id+"/wait?state=stopped&instance_id=x", "").status)
}

// TestRateLimits: one call a second with a burst of three, for each action and
// machine or app; five and ten for reading a machine.
func TestRateLimits(t *testing.T) {
	t.Parallel()
	a := open(t, func(c *flytest.Config) { c.Limits = flytest.Limits{} })
	one, two := a.launch(t, `"skip_launch":true,`, ""), a.launch(t, `"skip_launch":true,`, "")
	allowed := func(method, path string, times int) (n int) {
		for range times {
			if a.call(t, method, path, "").status != http.StatusTooManyRequests {
				n++
			}
		}
		return n
	}
	within := func(want, got int) { // a slow machine may refill a token
		require.GreaterOrEqual(t, got, want)
		require.LessOrEqual(t, got, want+2)
	}
	within(3, allowed("POST", path+"/"+one+"/start", 8))
	within(3, allowed("POST", path+"/"+two+"/start", 8))
	within(3, allowed("GET", path, 8))
	require.GreaterOrEqual(t, allowed("GET", path+"/"+one, 12), 10)
}

// TestHostThatCannotBeSeen: the config is null, and what is known of it is
// elsewhere.
func TestHostThatCannotBeSeen(t *testing.T) {
	t.Parallel()
	a := open(t, nil)
	id := a.launch(t, "", `,"metadata":{"pool":"x"}`)
	a.SetHostStatus(id, "unreachable")
	body := a.call(t, "GET", path+"/"+id, "").body
	require.Equal(t, "unreachable", body["host_status"])
	require.Nil(t, body["config"])
	require.NotNil(t, body["incomplete_config"])
}

// TestFaults: a call is answered wrongly with or without its effect, is cut, or
// hangs.
func TestFaults(t *testing.T) {
	t.Parallel()
	a := open(t, nil)
	a.Inject(flytest.Fault{Op: flytest.Create, Answer: flytest.Refusal(502, "bad gateway"), Effect: true})
	a.Inject(flytest.Fault{Op: flytest.Create, Answer: flytest.RegionFull()})
	a.Inject(flytest.Fault{Op: flytest.Create, Cut: true, Effect: true})
	require.Equal(t, 502, a.call(t, "POST", path, `{"config":{`+image+`}}`).status)
	require.Equal(t, 422, a.call(t, "POST", path, `{"config":{`+image+`}}`).status)
	_, err := a.send(t, "POST", path, `{"config":{`+image+`}}`)
	require.Error(t, err)
	require.Equal(t, 2, a.Counts().Existing)
	require.Zero(t, a.Pending())

	a.Inject(flytest.Fault{Op: flytest.List, Hang: true})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+path, http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer fm2_secret")
	_, err = (&http.Transport{DisableKeepAlives: true}).RoundTrip(req) //nolint:bodyclose // there is no answer
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// TestListLags: the list shows the past, a machine by its id the present.
func TestListLags(t *testing.T) {
	t.Parallel()
	a := open(t, nil)
	a.SetListLag(time.Hour)
	id := a.launch(t, "", "")
	require.Equal(t, "[]\n", a.call(t, "GET", path, "").text)
	require.Equal(t, "started", a.state(t, id))
	a.SetListLag(0)
	require.Contains(t, a.call(t, "GET", path, "").text, id)
}

// TestStuckMachine: it stays in starting, and can be destroyed.
func TestStuckMachine(t *testing.T) {
	t.Parallel()
	a := open(t, nil)
	a.StickNext(1)
	stuck, well := a.launch(t, "", ""), a.launch(t, "", "")
	require.Equal(t, "starting", a.state(t, stuck))
	require.Equal(t, "started", a.state(t, well))
	require.Equal(t, 200, a.call(t, "DELETE", path+"/"+stuck+"?kill=true", "").status)
	counts := a.Counts()
	require.Equal(t, flytest.Counts{Existing: 1, MostExisting: 2, Running: 1, MostRunning: 2, Created: 2}, counts)
}

// TestImportsNothingOfOurs: whoever doubts the fake can read it alone.
func TestImportsNothingOfOurs(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file.Name(), ".go") && !strings.HasSuffix(file.Name(), "_test.go") {
			text, err := os.ReadFile(file.Name())
			require.NoError(t, err)
			require.NotContains(t, string(text), `"github.com/tcoder-dev/`, file.Name())
		}
	}
}
