package cli

import "strings"

// Version is what a binary was built from.
type Version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
}

// String is the version in one line, in the form that logs and workers show.
func (v Version) String() string {
	parts := []string{v.Version}
	if v.Revision != "" {
		revision := v.Revision[:min(12, len(v.Revision))]
		if v.Modified {
			revision += "-modified"
		}
		parts = append(parts, revision)
	}

	return strings.Join(append(parts, v.Go), " ")
}
