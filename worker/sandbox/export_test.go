package sandbox

import "github.com/tcoder-dev/tcoder/worker/sandbox/wrapper"

// Only is the sandbox of a machine that has some layers alone.
func Only(names ...string) *Sandbox {
	s := &Sandbox{user: wrapper.User{Same: true}}
	for _, name := range names {
		s.layers = append(s.layers, Layer{Name: name, Active: true})
	}

	return s
}
