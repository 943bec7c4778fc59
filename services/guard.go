package services

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/cors"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/interceptor"
)

// guard keeps foreign web pages out: a browser on a developer's machine
// reaches a local server for any page it shows.
//
// A page of another origin says so in the Origin header, which must be on the
// list. A page that had its own name point to this server's address (DNS
// rebinding) is of the same origin, and betrays itself by that name in the
// Host header. An IP address in it is always fine: no name was asked for.
type guard struct {
	hosts      []string
	origins    []string
	anyHost    bool
	anyOrigin  bool
	writeError func(http.ResponseWriter, *http.Request, *pipeline.Error)
}

const preflightMaxAge = 2 * time.Hour

func newGuard(
	address string, hosts, origins []string, writeError func(http.ResponseWriter, *http.Request, *pipeline.Error),
) (*guard, error) {
	g := &guard{
		hosts:      []string{"localhost"},
		anyHost:    slices.Contains(hosts, "*"),
		anyOrigin:  slices.Contains(origins, "*"),
		writeError: writeError,
	}
	if listening := hostOf(address); listening != "" {
		g.hosts = append(g.hosts, listening)
	}
	if !loopback(address) {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("host name: %w", err)
		}
		g.hosts = append(g.hosts, strings.ToLower(name))
	}
	for _, host := range hosts {
		g.hosts = append(g.hosts, hostOf(host))
	}
	for _, origin := range origins {
		if origin == "*" {
			continue
		}
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, fmt.Errorf("origin %q: want scheme://host[:port] and nothing more", origin)
		}
		g.origins = append(g.origins, strings.ToLower(origin))
	}

	return g, nil
}

// protect lets through to next what comes by an allowed name, and from no
// page or an allowed one.
func (g *guard) protect(next http.Handler) http.Handler {
	methods := strings.Join(cors.AllowedMethods(), ", ")
	headers := strings.Join(append(cors.AllowedHeaders(), "Authorization", interceptor.HeaderRequestID), ", ")
	exposed := strings.Join(append(cors.ExposedHeaders(), interceptor.HeaderRequestID, interceptor.HeaderRetryAfter), ", ")
	maxAge := strconv.Itoa(int(preflightMaxAge.Seconds()))

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.allowsHost(r.Host) {
			g.refuse(w, r, "this server is not called by the name in the Host header")

			return
		}
		w.Header().Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		if origin == "" {
			next.ServeHTTP(w, r)

			return
		}
		if !g.allowsOrigin(origin, r.Host) {
			g.refuse(w, r, "pages of this origin may not call this server")

			return
		}
		w.Header().Set("Access-Control-Allow-Origin", origin)
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			w.Header().Set("Access-Control-Allow-Methods", methods)
			w.Header().Set("Access-Control-Allow-Headers", headers)
			w.Header().Set("Access-Control-Max-Age", maxAge)
			if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
				w.Header().Set("Access-Control-Allow-Private-Network", "true")
			}
			w.WriteHeader(http.StatusNoContent)

			return
		}
		w.Header().Set("Access-Control-Expose-Headers", exposed)
		next.ServeHTTP(w, r)
	})
}

func (g *guard) refuse(w http.ResponseWriter, r *http.Request, why string) {
	g.writeError(w, r, pipeline.NewError(pipeline.ReasonOriginNotAllowed, why))
}

func (g *guard) allowsHost(header string) bool {
	host := hostOf(header)
	if g.anyHost || slices.Contains(g.hosts, host) {
		return true
	}
	_, err := netip.ParseAddr(host)

	return err == nil
}

func (g *guard) allowsOrigin(origin, host string) bool {
	origin = strings.ToLower(origin)
	if g.anyOrigin || slices.Contains(g.origins, origin) {
		return true
	}
	// The server's own pages. A proxy in front may speak TLS for it.
	own := strings.ToLower(host)

	return origin == "http://"+own || origin == "https://"+own
}

// hostOf returns the name or the IP address of a host with or without a port,
// in lower case.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.Trim(address, "[]")
	}

	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// loopback reports whether an address to listen on is reached from this
// machine alone.
func loopback(address string) bool {
	host := hostOf(address)
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)

	return err == nil && ip.IsLoopback()
}
