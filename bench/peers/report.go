package main

import (
	"fmt"
	"strings"
	"time"
)

// report is the result of a comparison.
type report struct {
	machine machine
	date    time.Time
	rounds  int
	seconds float64
	noisy   int // number of turns during which other programs ran
	results []*result
}

// encryption is the note that must be shown with all figures.
const encryption = "wireguard-go and nebula encrypt; the others here do not"

// markdown returns the report in Markdown.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# sixfourd beside other tunnels\n\n")
	fmt.Fprintf(&b, "Written by `make bench-peers` on %s. **%s.** Ratios travel to other machines better than figures; neither is a promise.\n\n",
		r.date.Format(time.DateOnly), encryption)
	fmt.Fprintf(&b, "- Machine: %s, %d cores\n- Kernel: %s\n- Go: %s\n- Peers: %s\n", r.machine.cpu, r.machine.cores, r.machine.kernel, r.machine.golang, r.versions())
	fmt.Fprintf(&b, "- Set-up: two network namespaces on this machine, joined by a veth pair (MTU %d); inner MTU %d; medians of %d round(s), in which the peers took turns; each load ran %g s, round trips at most %v\n",
		wireMTU, tunnelMTU, r.rounds, r.seconds, roundTripTime)
	b.WriteString("- CPU: processor seconds of both daemons for each GB of the one TCP stream; what the kernel does in interrupts is not counted\n")
	b.WriteString("- Round trip: a 64-byte request and its response over UDP, one at a time, the two ends on different processors. Memory: resident, the larger daemon, after all loads\n")
	for _, line := range r.trouble() {
		fmt.Fprintf(&b, "- **%s**\n", line)
	}
	b.WriteString("\n## Medians\n\n")
	titles := make([]string, len(metrics))
	for i, m := range metrics {
		titles[i] = m.title + ", " + m.unit
	}
	r.table(&b, titles, metrics, (*result).aggregate)
	b.WriteString("\n## Ratios to wireguard-go\n\n")
	reference := r.find(base)
	if reference == nil {
		fmt.Fprintf(&b, "None: %s was not measured.\n", base)
		return b.String()
	}
	b.WriteString("In columns marked ↓ less is better.\n\n")
	var columns []metric
	titles = nil
	for _, m := range metrics {
		if m.worst {
			continue
		}
		m.digits = 2
		title := m.title
		if m.less {
			title += " ↓"
		}
		columns, titles = append(columns, m), append(titles, title)
	}
	r.table(&b, titles, columns, func(res *result) figures { return ratios(res.aggregate(), reference.aggregate()) })
	return b.String()
}

// table writes the figures of all peers that have figures.
func (r *report) table(b *strings.Builder, titles []string, columns []metric, of func(*result) figures) {
	fmt.Fprintf(b, "| | %s |\n| --- |%s\n", strings.Join(titles, " | "), strings.Repeat(" ---: |", len(titles)))
	for _, res := range r.measured() {
		f := of(res)
		fmt.Fprintf(b, "| %s |", res.label())
		for _, m := range columns {
			fmt.Fprintf(b, " %s |", f.number(m))
		}
		b.WriteString("\n")
	}
}

// label returns a peer's name with its kind.
func (r *result) label() string {
	switch r.kind {
	case plain:
		return r.name + " (no tunnel)"
	case kernel:
		return r.name + " (kernel)"
	case ours:
		return "**" + r.name + "**"
	case encrypts:
		return r.name + " (encrypts)"
	}
	return r.name
}

func (r *report) versions() string {
	var list []string
	for _, res := range r.results {
		if res.version != "" {
			list = append(list, res.name+" "+res.version)
		}
	}
	return strings.Join(list, ", ")
}

// measured returns the results that have figures.
func (r *report) measured() []*result {
	var list []*result
	for _, res := range r.results {
		if len(res.turns) > 0 {
			list = append(list, res)
		}
	}
	return list
}

func (r *report) find(name string) *result {
	for _, res := range r.measured() {
		if res.name == name {
			return res
		}
	}
	return nil
}

// trouble returns what was left out, and what makes the figures less reliable.
func (r *report) trouble() []string {
	var lines []string
	for _, res := range r.results {
		reasons := strings.ReplaceAll(strings.Join(res.failed, "; "), "\n", "; ")
		switch {
		case len(res.turns) == 0:
			lines = append(lines, fmt.Sprintf("Left out: %s: %s", res.name, reasons))
		case len(res.failed) > 0:
			lines = append(lines, fmt.Sprintf("Missing of %s: %s", res.name, reasons))
		}
	}
	if r.noisy > 0 {
		lines = append(lines, fmt.Sprintf("In %d turns other programs took more than %.0f %% of the machine's time", r.noisy, 100*quietShare/2))
	}
	return lines
}
