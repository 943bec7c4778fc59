package fly

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/superfly/fly-go"
)

const (
	defaultAPIURL         = "https://api.machines.dev"
	defaultPool           = "tcoder"
	defaultKillTimeout    = 2 * time.Minute
	maxKillTimeout        = 5 * time.Minute // Fly's, and it doesn't promise that
	defaultRequestTimeout = 30 * time.Second
	defaultDestroyTimeout = 30 * time.Second
	defaultRegionMemory   = 5 * time.Minute
)

// Config says what a machine is made of.
type Config struct {
	// App is the Fly app that the machines belong to.
	App string
	// Token may create and destroy machines of the app: `fly tokens create
	// deploy`.
	Token string
	// APIURL is where the Machines API is (empty: https://api.machines.dev;
	// inside Fly's network http://_api.internal:4280).
	APIURL string
	// Pool tells the machines of this pool from all others of the app: 1 to 20
	// lower-case letters, digits and '-' (empty: tcoder).
	Pool string
	// Regions are where machines are made unless a request says, the preferred
	// first; empty leaves it to Fly.
	Regions []string
	// Image is the worker's image, best by its digest.
	Image string
	// Command is the program and its arguments; empty is the image's own.
	Command []string
	// Env is the environment of every machine.
	Env map[string]string
	// Size is what a machine has unless a request names one of Sizes, or of Fly's.
	Size  Size
	Sizes map[string]Size
	// KillTimeout is the time between SIGTERM and SIGKILL (0: 2 min; at most
	// 5 min).
	KillTimeout time.Duration
	// RequestTimeout bounds one call (0: 30 s), DestroyTimeout the time that
	// Destroy waits for a machine to be gone (0: 30 s, 1 to 60 s).
	RequestTimeout time.Duration
	DestroyTimeout time.Duration
	// RegionMemory is for how long a region without room is asked last, and one
	// whose quota is spent not at all (0: 5 min).
	RegionMemory time.Duration
	// Pace keeps calls within Fly's rate limits; nil is LocalPace.
	Pace Pace
	// Transport sends requests; nil is one of our own with Go's defaults.
	Transport http.RoundTripper
	UserAgent string
}

// Size is what a machine has. Fly's shared CPUs run at a sixteenth of their
// speed most of the time: transcoding wants performance ones.
type Size struct {
	CPUKind  string // performance or shared
	CPUs     int
	MemoryMB int
}

// ParseSize reads Fly's names of sizes, with or without another size of the
// memory in MB: performance-4x, performance-4x:16384.
func ParseSize(text string) (Size, error) {
	found := regexp.MustCompile(`^(performance|shared-cpu)-(\d{1,2})x(?::(\d{1,6}))?$`).FindStringSubmatch(text)
	if found == nil {
		return Size{}, fmt.Errorf("%q is not a size: write performance-4x, or performance-4x:16384 to name its memory in MB", text)
	}
	size := Size{CPUKind: strings.TrimSuffix(found[1], "-cpu")}
	size.CPUs, _ = strconv.Atoi(found[2])     // digits
	size.MemoryMB, _ = strconv.Atoi(found[3]) // digits or none
	if found[3] == "" {
		size.MemoryMB = size.CPUs * size.leastMemoryMB()
	}
	return size, size.check()
}

func (s Size) leastMemoryMB() int {
	if s.CPUKind == "performance" {
		return api.MIN_MEMORY_MB_PER_CPU
	}
	return api.MIN_MEMORY_MB_PER_SHARED_CPU
}

func (s Size) check() error {
	least, most := s.leastMemoryMB(), api.MAX_MEMORY_MB_PER_SHARED_CPU
	if s.CPUKind == "performance" {
		most = api.MAX_MEMORY_MB_PER_CPU
	}
	switch {
	case s.CPUKind != "performance" && s.CPUKind != "shared":
		return fmt.Errorf("CPU kind %q is neither performance nor shared", s.CPUKind)
	case !slices.Contains([]int{1, 2, 4, 6, 8, 10, 12, 14, 16}, s.CPUs) || s.CPUKind == "shared" && s.CPUs > 8:
		return fmt.Errorf("there is no %s machine with %d CPUs", s.CPUKind, s.CPUs)
	case s.MemoryMB%256 != 0 || s.MemoryMB < least*s.CPUs || s.MemoryMB > most*s.CPUs:
		return fmt.Errorf("%d MB is not a multiple of 256 from %d to %d, as %d %s CPUs need it", s.MemoryMB, least*s.CPUs, most*s.CPUs, s.CPUs, s.CPUKind)
	}
	return nil
}

// complete fills in the defaults and says what is wrong.
func (c *Config) complete() (base *url.URL, err error) {
	setDefault(&c.APIURL, defaultAPIURL)
	setDefault(&c.Pool, defaultPool)
	setDefault(&c.KillTimeout, defaultKillTimeout)
	setDefault(&c.RequestTimeout, defaultRequestTimeout)
	setDefault(&c.DestroyTimeout, defaultDestroyTimeout)
	setDefault(&c.RegionMemory, defaultRegionMemory)
	base, err = url.Parse(c.APIURL)
	switch {
	case !regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`).MatchString(c.App):
		return nil, fmt.Errorf("app %q is not the name of a Fly app", c.App)
	case c.Token == "":
		return nil, errors.New("there is no token")
	case err != nil || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Scheme != "http" && base.Scheme != "https":
		return nil, errors.New("the API's URL is not one: write https://api.machines.dev")
	case !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,19}$`).MatchString(c.Pool):
		return nil, fmt.Errorf("pool %q is not 1 to 20 of lower-case letters, digits and '-'", c.Pool)
	case c.Image == "":
		return nil, errors.New("there is no image")
	case c.KillTimeout < time.Second || c.KillTimeout > maxKillTimeout:
		return nil, fmt.Errorf("kill timeout %s is not in 1s to %s", c.KillTimeout, maxKillTimeout)
	case c.DestroyTimeout < time.Second || c.DestroyTimeout > time.Minute:
		return nil, fmt.Errorf("destroy timeout %s is not in 1s to 1m0s", c.DestroyTimeout)
	}
	for _, region := range c.Regions {
		if !validRegion(region) {
			return nil, fmt.Errorf("%q is not a region", region)
		}
	}
	errs := []error{c.Size.check()}
	for name, size := range c.Sizes {
		if err := size.check(); err != nil {
			errs = append(errs, fmt.Errorf("size %s: %w", name, err))
		}
	}
	base.Path = strings.TrimSuffix(base.Path, "/")
	return base, errors.Join(errs...)
}

func setDefault[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

func validRegion(region string) bool { return regexp.MustCompile(`^[a-z]{2,4}$`).MatchString(region) }

// revision changes with whatever a machine is made of, besides what a request
// adds.
func (c *Config) revision() (string, error) {
	text, err := json.Marshal([]any{c.Image, c.Command, c.Env, c.Size, c.Sizes, c.KillTimeout})
	if err != nil {
		return "", fmt.Errorf("hash settings: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8]), nil
}
