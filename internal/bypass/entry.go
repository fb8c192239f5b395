package bypass

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// entry is a rule: struct ipt_entry or ip6t_entry.
type entry struct {
	b      []byte // with what follows it: matches, and the target
	offset int    // in the table
	layout *layout
}

// layout is where the fields of an entry are. Both families have them in the same order.
type layout struct{ address, device, protocol, inverted, target, counters, size int }

var layouts = [2]layout{
	{address: 4, device: 16, protocol: 80, inverted: 83, target: 88, counters: 96, size: 112},
	{address: 16, device: 64, protocol: 128, inverted: 132, target: 140, counters: 152, size: 168},
}

// each returns the entries of a table.
func (l *legacy) each(b []byte) iter.Seq[entry] {
	y := &layouts[0]
	if l.v6 {
		y = &layouts[1]
	}
	return func(yield func(entry) bool) {
		for at := 0; at+y.size <= len(b); {
			next := int(binary.NativeEndian.Uint16(b[at+y.target+2:]))
			if next < y.size || at+next > len(b) || !yield(entry{b[at : at+next], at, y}) {
				return
			}
			at += next
		}
	}
}

func (e entry) counters() []byte { return e.b[e.layout.counters:e.layout.size] }

// target returns the name of the target and, if that is "", its verdict: a jump to an offset, or
// a negative number.
func (e entry) target() (name string, verdict int32) {
	at := int(binary.NativeEndian.Uint16(e.b[e.layout.target:]))
	if at+36 > len(e.b) {
		return "an unknown target", 0
	}
	name, _, _ = strings.Cut(string(e.b[at+2:at+31]), "\x00")
	return name, int32(binary.NativeEndian.Uint32(e.b[at+32:]))
}

// Verdicts of the standard target: the negative of those of netfilter, minus 1.
const (
	verdictDrop   = -1
	verdictAccept = -2
	verdictReturn = -5
)

// Bits of the inverted fields (IPT_INV_*, IP6T_INV_*).
const (
	invertIn       = 0x01
	invertOut      = 0x02
	invertFragment = 0x20
	invertSource   = 0x08
	invertDest     = 0x10
	invertProtocol = 0x40
)

// matches reports whether the addresses, devices and protocol of an entry match packets, and
// whether these are all that it compares.
func (e entry) matches(from, to netip.Addr, in, out string, protocol uint8) (may, certain bool) {
	y := e.layout
	inverted := e.b[y.inverted]
	field := func(i int) []byte { return e.b[i*y.address : (i+1)*y.address] }
	name := func(i int) []byte { return e.b[4*y.address+16*i:] }
	want := uint8(binary.NativeEndian.Uint16(e.b[y.protocol:]))
	for bit, equal := range map[byte]bool{
		invertSource:   within(from, field(0), field(2)),
		invertDest:     within(to, field(1), field(3)),
		invertIn:       within(in, name(0), name(2)),
		invertOut:      within(out, name(1), name(3)),
		invertProtocol: want == 0 || want == protocol,
	} {
		if equal == (inverted&bit != 0) {
			return false, false
		}
	}
	flags := e.b[y.inverted-1]
	if y == &layouts[0] && flags&1 != 0 && inverted&invertFragment == 0 { // IPT_F_FRAG: later fragments only
		return false, false
	}
	return true, int(binary.NativeEndian.Uint16(e.b[y.target:])) == y.size
}

// within reports whether an address or the name of a device has the bits of want where mask has
// ones.
func within[T netip.Addr | string](value T, want, mask []byte) bool {
	var b [unix.IFNAMSIZ]byte
	switch v := any(value).(type) {
	case netip.Addr:
		copy(b[:], v.AsSlice())
	case string:
		copy(b[:], v)
	}
	for i := range min(len(want), len(b)) {
		if b[i]&mask[i] != want[i]&mask[i] {
			return false
		}
	}
	return true
}

// why returns which rule may do anything to packets of a flow, or "".
func (l *legacy) why(f Flow, device string) string {
	for i := range l.tables {
		t := &l.tables[i]
		if what := l.affects(t, f, device); what != "" {
			return fmt.Sprintf("%s: table %s, %s %v", l.command(), t.name, what, f)
		}
	}
	return ""
}

// names of the chains at the hooks of netfilter.
var hookNames = [5]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

const forwarding = 2

// affects returns what a table may do to packets of a flow, or "".
func (l *legacy) affects(t *legacyTable, f Flow, device string) string {
	chain, accepted, number := "", false, 0 // "": a chain that others jump to
	hook := -1
	for e := range l.each(t.entries) {
		number++
		for h := range hookNames {
			if t.info.ValidHooks&(1<<h) != 0 && int(t.info.HookEntry[h]) == e.offset {
				hook, chain, accepted, number = h, hookNames[h], false, 1
			}
		}
		policy := hook >= 0 && int(t.info.Underflow[hook]) == e.offset
		target, verdict := e.target()
		if target == "ERROR" { // the beginning of another chain, or the end of the table
			hook, chain, accepted, number = -1, "another chain", false, 0
			continue
		}
		if accepted || hook == forwarding {
			continue
		}
		outMay, outCertain := e.matches(f.Local, f.Remote, "", device, f.Protocol)
		inMay, inCertain := e.matches(f.Remote, f.Local, device, "", f.Protocol)
		may, certain := outMay || inMay, false
		switch {
		case hook >= 0 && hook < forwarding:
			may, certain = inMay, inCertain
		case hook > forwarding:
			may, certain = outMay, outCertain
		}
		switch {
		case !may:
		case target == "" && verdict == verdictAccept:
			accepted = certain && hook >= 0
		case target == "" && (verdict == verdictReturn || verdict >= 0):
		case policy:
			return fmt.Sprintf("the policy of chain %s may drop", chain)
		case target == "" && verdict == verdictDrop:
			return fmt.Sprintf("rule %d of chain %s may drop", number, chain)
		case target == "":
			return fmt.Sprintf("rule %d of chain %s may hand to another program", number, chain)
		default:
			return fmt.Sprintf("rule %d of chain %s (%s) may affect", number, chain, target)
		}
	}
	return ""
}
