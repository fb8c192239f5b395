package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// record is one turn, as a line of the raw results.
type record struct {
	Time    time.Time `json:"time"`
	Round   int       `json:"round"`
	Peer    string    `json:"peer"`
	Busy    float64   `json:"busy"` // share of the machine's time that other programs used before the turn
	Figures figures   `json:"figures,omitempty"`
	Error   string    `json:"error,omitempty"`
}

func (r record) writeTo(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// result is the result of all turns of one peer.
type result struct {
	peer
	version string
	turns   []figures
	failed  []string // "round 2: reason"
}

// aggregate returns the median of each figure, or the worst.
func (r *result) aggregate() figures {
	all := map[string][]float64{}
	for _, t := range r.turns {
		for key, v := range t {
			all[key] = append(all[key], v)
		}
	}
	f := figures{}
	for key, values := range all {
		f[key] = median(values)
	}
	for _, m := range metrics {
		if values := all[m.key]; m.worst && len(values) > 0 {
			f[m.key] = slices.Max(values)
		}
	}
	return f
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	middle := len(v) / 2
	if len(v)%2 == 1 {
		return v[middle]
	}
	return (v[middle-1] + v[middle]) / 2
}

// ratios returns figures divided by those of the base. A figure that is missing or 0 in
// one of them is left out.
func ratios(f, base figures) figures {
	r := figures{}
	for _, m := range metrics {
		v, ok := f[m.key]
		if b := base[m.key]; ok && b != 0 && !m.worst {
			r[m.key] = v / b
		}
	}
	return r
}

// number formats a figure as its column requires; "–" means that it is missing.
func (f figures) number(m metric) string {
	v, ok := f[m.key]
	if !ok {
		return "–"
	}
	if m.worst && v == 0 {
		return "none"
	}
	return group(fmt.Sprintf("%.*f", m.digits, v))
}

// group inserts separators between the thousands of large numbers.
func group(s string) string {
	whole := len(s)
	if dot := slices.Index([]byte(s), '.'); dot >= 0 {
		whole = dot
	}
	for i := whole - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
