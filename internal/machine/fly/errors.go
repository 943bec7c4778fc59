package fly

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/tcoder-dev/tcoder/internal/machine"
)

// classify turns what the API answered to an action into what can be done
// about it. The texts are theirs, as they were observed.
func (p *Provider) classify(action Action, err error) error {
	if err == nil {
		return nil
	}
	if limited, ok := errors.AsType[*waitError](err); ok {
		return &machine.Error{Class: machine.RateLimited, Message: "Waiting for Fly's rate limit took too long.", Err: limited.err}
	}
	err = p.redact(cause(err))
	var a *answerError
	if !errors.As(err, &a) {
		message := "Fly couldn't be reached, or its answer was lost."
		if errors.Is(err, context.DeadlineExceeded) {
			message = "Fly didn't answer in time."
		}
		return &machine.Error{Class: machine.Unclear, Message: message, Err: err}
	}
	class, message := classOf(action, a)
	return &machine.Error{Class: class, Message: message, RetryAfter: a.retryAfter, Err: a}
}

func classOf(action Action, a *answerError) (machine.Class, string) {
	says := func(texts ...string) bool {
		for _, text := range texts {
			if strings.Contains(a.message, text) {
				return true
			}
		}
		return false
	}
	switch {
	case a.status == http.StatusUnauthorized:
		return machine.Unauthorized, "Fly doesn't accept the token: it is wrong, expired or revoked."
	case a.status == http.StatusForbidden && says("quota"):
		return machine.Quota, "The Fly organization's quota doesn't allow another machine: " + a.message + "."
	case a.status == http.StatusForbidden:
		return machine.Unauthorized, "The Fly token doesn't allow this: " + a.message + "."
	case a.status == http.StatusNotFound && action != ActionCreate && action != ActionList:
		return machine.NotFound, "Fly has no such machine."
	case a.status == http.StatusNotFound:
		return machine.Refused, "Fly has no such app, or the token is for another."
	case a.status == http.StatusTooManyRequests:
		return machine.RateLimited, "Fly was asked too often."
	case a.status == http.StatusConflict && says("unique machine name violation"):
		return machine.NameTaken, "Fly has another machine of this name."
	case a.code == "insufficient_capacity" || a.code == "volume_placement_capacity" ||
		says("could not find a candidate host", "could not reserve resource", "insufficient resources", "aborted: no capacity",
			"on the current host"):
		if action == ActionCreate {
			return machine.RegionFull, "Fly has no room for a machine in the pool's regions."
		}
		return machine.HostFull, "The Fly host of a stopped machine has no room to start it."
	case a.status == http.StatusConflict, a.status == http.StatusPreconditionFailed:
		return machine.NotReady, "The machine is in the middle of something: " + a.message + "."
	case a.status >= http.StatusInternalServerError, a.status == http.StatusRequestTimeout:
		return machine.Unclear, "Fly failed to answer."
	default:
		return machine.Refused, "Fly refused: " + a.message + "."
	}
}

// holder finds the machine that has a name, in the answer to creating another.
func holder(err error) string {
	var a *answerError
	if !errors.As(err, &a) {
		return ""
	}
	found := regexp.MustCompile(`machine ID (\w+) already exists`).FindStringSubmatch(a.message)
	if found == nil {
		return ""
	}
	return found[1]
}

// fullQuota finds the region whose quota is spent in the answer to creating a
// machine.
func fullQuota(err error) (string, *machine.Error) {
	var classed *machine.Error
	var a *answerError
	if !errors.As(err, &classed) || classed.Class != machine.Quota || !errors.As(err, &a) {
		return "", nil
	}
	found := regexp.MustCompile(`memory in (\w+) which`).FindStringSubmatch(a.message)
	if found == nil {
		return "", nil
	}
	return found[1], classed
}

// redact removes the token from what others wrote.
func (p *Provider) redact(err error) error {
	if p.cfg.Token == "" || !strings.Contains(err.Error(), p.cfg.Token) {
		return err
	}
	if a, ok := errors.AsType[*answerError](err); ok {
		clean := *a
		clean.message = strings.ReplaceAll(a.message, p.cfg.Token, "***")
		return &clean
	}
	return errors.New(strings.ReplaceAll(err.Error(), p.cfg.Token, "***"))
}

// waitError is a call that wasn't made: it waited for its turn in vain.
type waitError struct{ err error }

func (e *waitError) Error() string { return e.err.Error() }
func (e *waitError) Unwrap() error { return e.err }

// parseTime reads a time of the API; what can't be read is unknown.
func parseTime(text string) time.Time {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return at
}
