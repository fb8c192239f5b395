package ctl

import (
	"fmt"
	"time"
)

// scaled formats a number with a metric prefix and three digits: 1.23 k, 45.6 M.
func scaled(n float64, unit string) string {
	prefixes := []string{"", "k", "M", "G", "T", "P", "E"}
	i := 0
	for n >= 999.5 && i < len(prefixes)-1 {
		n, i = n/1000, i+1
	}
	digits := 0
	switch {
	case i == 0:
	case n < 9.995:
		digits = 2
	case n < 99.95:
		digits = 1
	}
	s := fmt.Sprintf("%.*f %s%s", digits, n, prefixes[i], unit)
	if i == 0 && unit == "" {
		return s[:len(s)-1]
	}
	return s
}

// formatDuration formats a duration in its two largest units: 3d4h, 2h13m, 1m05s, 12s.
func formatDuration(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	h, m, s := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case h >= 24:
		return fmt.Sprintf("%dd%dh", h/24, h%24)
	case h > 0:
		return fmt.Sprintf("%dh%02dm", h, m)
	case m > 0:
		return fmt.Sprintf("%dm%02ds", m, s)
	}
	return fmt.Sprintf("%ds", s)
}

// milliseconds formats a time given in seconds as ping does.
func milliseconds(seconds float64) string {
	ms := seconds * 1000
	switch {
	case ms < 1:
		return fmt.Sprintf("%.3f ms", ms)
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// percent formats a fraction of 1 as a percentage. It shows 0 and 100 only if exact.
func percent(part float64) string {
	switch {
	case part > 0 && part < 0.01:
		return "<1%"
	case part > 0.99 && part < 1:
		return ">99%"
	}
	return fmt.Sprintf("%.0f%%", part*100)
}
