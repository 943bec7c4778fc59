package client

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// name is an enum value as people write it: JOB_STATE_RUNNING is RUNNING.
func name(value fmt.Stringer, prefix string) string {
	return strings.TrimPrefix(value.String(), prefix)
}

// formatBytes writes a size in units of 1024.
func formatBytes(size float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	unit := 0
	for ; size >= 1024 && unit < len(units)-1; unit++ {
		size /= 1024
	}
	if unit == 0 {
		return fmt.Sprintf("%.0f B", size)
	}

	return fmt.Sprintf("%.1f %s", size, units[unit])
}

// formatClock writes a duration like 1:02:03 or 0:07.
func formatClock(d time.Duration) string {
	seconds := int64(d.Round(time.Second) / time.Second)
	if seconds >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", seconds/3600, seconds/60%60, seconds%60)
	}

	return fmt.Sprintf("%d:%02d", seconds/60, seconds%60)
}

// formatTook writes how long something took, as short as makes sense.
func formatTook(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}

	return d.Round(time.Second).String()
}

// formatDuration writes a message's duration, or a dash if it isn't set.
func formatDuration(d *durationpb.Duration) string {
	if d == nil {
		return "-"
	}

	return formatTook(d.AsDuration())
}

// formatTime writes a time as here, or a dash if it isn't set.
func formatTime(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}

	return t.AsTime().Local().Format(time.DateTime) //nolint:gosmopolitan // for the person at this computer
}

// formatAge writes how long ago a time was.
func formatAge(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	age := max(0, time.Since(t.AsTime()))
	switch {
	case age < time.Minute:
		return fmt.Sprintf("%ds", age/time.Second)
	case age < time.Hour:
		return fmt.Sprintf("%dm", age/time.Minute)
	case age < 48*time.Hour:
		return fmt.Sprintf("%dh", age/time.Hour)
	default:
		return fmt.Sprintf("%dd", age/(24*time.Hour))
	}
}

// count writes a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}

	return fmt.Sprintf("%d %ss", n, thing)
}

// orDash is a text, or a dash if it is empty.
func orDash(s string) string {
	if s == "" {
		return "-"
	}

	return s
}
