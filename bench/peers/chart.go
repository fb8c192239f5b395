package main

import (
	"cmp"
	"fmt"
	"html"
	"slices"
	"strings"
	"time"
)

// The chart has a fixed size and its own background, so that it can be read on a light
// and on a dark page.
const (
	chartWidth  = 760
	chartMargin = 24
	barLeft     = 170
	barRight    = 640 // leaves room for the number on the right
	barHeight   = 18
	barStep     = 25
)

var (
	colours = map[kind]string{kernel: "#8a94a3", ours: "#1f6feb", open: "#6fb1a0", encrypts: "#e0983a"}
	legend  = []struct {
		kind kind
		text string
	}{{ours, "sixfourd"}, {encrypts, "encrypts"}, {open, "user space, does not encrypt"}, {kernel, "kernel, does not encrypt"}}
	panels = []struct{ key, title, hint string }{
		{"tcp1", "TCP, one stream, Gbit/s", "more is better"},
		{"pps", "64-byte UDP packets delivered, per second", "more is better"},
		{"p50", "Round trip of a 64-byte request, median, µs", "less is better"},
	}
)

// svg returns the report as a chart of horizontal bars.
func (r *report) svg() string {
	var b strings.Builder
	y := 40
	text := func(x, y int, attrs, format string, args ...any) {
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\"%s>%s</text>\n", x, y, attrs, html.EscapeString(fmt.Sprintf(format, args...)))
	}
	text(chartMargin, y, ` class="title"`, "sixfourd beside other tunnels")
	y += 16
	x := chartMargin
	for _, l := range legend {
		fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"11\" height=\"11\" rx=\"2\" fill=\"%s\"/>\n", x, y, colours[l.kind])
		text(x+16, y+10, ` class="small"`, "%s", l.text)
		x += 36 + 6*len(l.text)
	}
	y += 42
	for _, p := range panels {
		m := metrics[slices.IndexFunc(metrics, func(m metric) bool { return m.key == p.key })]
		note := ""
		if wire := r.find("veth"); wire != nil {
			note = fmt.Sprintf("; the veth pair without a tunnel: %s", wire.aggregate().number(m))
		}
		text(chartMargin, y, ` class="panel"`, "%s", p.title)
		text(chartMargin, y+16, ` class="small"`, "%s%s", p.hint, note)
		y = r.bars(&b, text, m, y+26) + 34
	}
	y -= 10
	for _, line := range []string{
		encryption + ".",
		r.machine.String() + ", " + r.machine.golang + ".",
		fmt.Sprintf("Two network namespaces joined by veth, inner MTU %d, medians of %d round(s), %s.", tunnelMTU, r.rounds, r.date.Format(time.DateOnly)),
	} {
		text(chartMargin, y, ` class="small"`, "%s", line)
		y += 16
	}
	height := y + chartMargin - 16
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" role="img" aria-label="sixfourd beside other tunnels">
<style>
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1b2430; }
.title { font-size: 18px; font-weight: 600; }
.panel { font-size: 14px; font-weight: 600; }
.small { font-size: 11.5px; fill: #55606e; }
.own { font-weight: 600; }
</style>
<rect x="0.5" y="0.5" width="%[3]d" height="%[4]d" rx="8" fill="#fbfcfd" stroke="#d5dae1"/>
%[5]s</svg>
`, chartWidth, height, chartWidth-1, height-1, b.String())
}

// bars draws the peers of a panel, the best first, and returns the position of its end.
func (r *report) bars(b *strings.Builder, text func(x, y int, attrs, format string, args ...any), m metric, y int) int {
	type bar struct {
		*result
		value  float64
		number string
	}
	var list []bar
	largest := 0.0
	for _, res := range r.measured() {
		f := res.aggregate()
		if v, ok := f[m.key]; ok && res.kind != plain { // the bar of the wire would make the others too short
			list = append(list, bar{res, v, f.number(m)})
			largest = max(largest, v)
		}
	}
	slices.SortStableFunc(list, func(x, y bar) int {
		if m.less {
			return cmp.Compare(x.value, y.value)
		}
		return cmp.Compare(y.value, x.value)
	})
	for _, bar := range list {
		class := ""
		if bar.kind == ours {
			class = ` class="own"`
		}
		width := max(1, (barRight-barLeft)*bar.value/largest)
		text(barLeft-10, y+14, class+` text-anchor="end"`, "%s", bar.name)
		fmt.Fprintf(b, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\" fill=\"%s\"/>\n", barLeft, y, width, barHeight, colours[bar.kind])
		text(barLeft+int(width)+8, y+14, class, "%s", bar.number)
		y += barStep
	}
	return y
}
