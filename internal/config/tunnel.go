package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"sixfour/encap"
)

// draft is a tunnel that is being read.
type draft struct {
	Tunnel
	state               tableState
	addressAt, routesAt []pos // of each element
	layers              []layerDraft
	over4, over6        ends
	gre                 encap.GRE
	peers               []*peerDraft
	dsLite              bool
	probe               netip.Addr
	mechanism           reading // for an automatic tunnel
}

// tunnelKeys are the keys of a [[tunnel]]. The valid values depend on the mode, and
// those of the MTU on addresses and options, so the order matters.
var tunnelKeys = slices.Concat([]key[*draft]{
	{"mode", readMode},
	{"stack", readStack},
	{"name", readName},
	{"local", readLocal(false)},
	{"remote", readRemote(false)},
	{"local6", over6(readLocal(true))},
	{"remote6", over6(readRemote(true))},
	{"ds_lite", readDSLite},
	{"address", readAddress},
	{"routes", readRoutes},
	{"ttl", numberOr(1, 255, "inherit", encap.InheritTTL, func(o *encap.Options) *int { return &o.TTL })},
	{"hop_limit", over6(numberOr(1, 255, "inherit", encap.InheritTTL, func(o *encap.Options) *int { return &o.HopLimit }))},
	{"dscp", numberOr(0, 63, "inherit", encap.InheritDSCP, func(o *encap.Options) *int { return &o.DSCP })},
	{"ecn", either("normal", "compat", func(d *draft) *bool { return &d.Options.ECNCompat })},
	{"pmtu", either("dynamic", "static", func(d *draft) *bool { return &d.Options.StaticMTU })},
	{"ignore_df", readIgnoreDF},
	{"encap_limit", over6(numberOr(0, 255, "none", encap.NoEncapLimit, func(o *encap.Options) *int { return &o.EncapLimit }))},
	{"flow_label", over6(readFlowLabel)},
	{"mss_clamp", readMSSClamp},
	{"keepalive", readKeepalive},
	{"dead_after", readDeadAfter},
	{"probe", readProbe},
	{"martians", either("rfc", "strict", func(d *draft) *bool { return &d.Strict })},
	{"fwmark", readFwMark},
	{"queues", readQueues},
	{"offload", either("auto", "off", func(d *draft) *bool { return &d.NoOffload })},
	{"io", readIO},
	{"netns", readNetns},
}, greKeys(
	func(d *draft) bool { return !d.known() || d.has(func(l layerDraft) bool { return l.kind.IsGRE() }) },
	(*draft).what,
	func(d *draft) *encap.GRE { return &d.gre },
), mechanismKeys(), []key[*draft]{
	{"mtu", readMTU},
	{"peer", readPeers},
})

// readTunnel reads one [[tunnel]], and checks its values against each other.
func readTunnel(r *report, t *value) *draft {
	d := &draft{Tunnel: Tunnel{
		Options: encap.DefaultOptions,
		IO:      IOSocket,
		file:    r.file,
		header:  t.at,
		values:  make(map[string]pos, len(t.table)),
		sums:    make(map[string]uint64, len(t.table)),

		Keepalive: defaultKeepalive,
		DeadAfter: defaultDeadAfter,
	}}
	for name, e := range t.table {
		d.values[name] = e.at
		if name != "peer" {
			d.sums[name] = e.sum()
		}
	}
	_, d.Hub = t.table["peer"]
	before := r.found
	d.state = readTable(r, "[[tunnel]]", t, tunnelKeys, d)
	d.finish()
	d.checkMissing(r)
	d.checkPairs(r)
	d.checkEnds(r)
	d.checkGRE(r)
	d.checkProbes(r)
	d.checkEncapLimit(r)
	d.finishMechanism(r)
	d.checkLoop(r)
	d.checkAddresses(r)
	d.checkReach(r)
	if r.found == before {
		d.checkSite(r)
	}
	return d
}

// finish builds the layers and, in the short form, the only peer.
func (d *draft) finish() {
	one := Peer{at: d.header}
	if remote := d.over4.remote; !d.known() && remote.key != "" { // to check routes
		one = Peer{Remotes: []Host{remote.Host}, at: remote.at}
	}
	for i := range d.layers {
		l := &d.layers[i]
		if l.kind.IsGRE() && !l.ownGRE {
			l.gre = d.gre
		}
		remote := Host{}
		if l.mechanism == nil {
			e := d.remoteOf(*l)
			remote, one.at = e.Host, e.at
		}
		d.Layers = append(d.Layers, Layer{Local: d.localOf(*l).Addr, GRE: l.gre})
		one.Remotes = append(one.Remotes, remote)
	}
	if !d.Hub {
		one.Probe = d.probe
		d.Peers = []Peer{one}
	}
	if d.dsLite {
		d.presetDSLite()
	}
}

// over6 is for keys of the IPv6 delivery header, in modes that have one. In other modes,
// the key itself is the error, and its value is not checked.
func over6(read func(*report, entry, *draft)) func(*report, entry, *draft) {
	return func(r *report, e entry, d *draft) {
		if d.known() && !d.over(6) {
			r.add(e.keyAt, "%s contradicts %s, which has no IPv6 delivery header: leave it out, or choose mode %s",
				e.name, d.what(), list(quoteAll(modeNames(encap.Mode.Needs6))))
			return
		}
		read(r, e, d)
	}
}

// checkEncapLimit reports a limit with which the tunnel's own layers cannot carry each
// other.
func (d *draft) checkEncapLimit(r *report) {
	if least := encap.LeastEncapLimit(d.bare()); d.Options.EncapLimit != encap.NoEncapLimit && d.Options.EncapLimit < least {
		r.add(d.values["encap_limit"], `encap_limit is %d, but %s carries IPv6 in IPv6, so that it must be at least %d, or "none"`,
			d.Options.EncapLimit, d.what(), least)
	}
}

// numberOr is for options that are a number, or one word that stands for a number.
func numberOr(least, most int64, word string, meaning int, option func(*encap.Options) *int) func(*report, entry, *draft) {
	return func(r *report, e entry, d *draft) {
		n, w, ok := numberOf(r, e, least, most, word)
		switch {
		case !ok:
		case w != "":
			*option(&d.Options) = meaning
		default:
			*option(&d.Options) = int(n)
		}
	}
}

// either is for options that are on or off, with a word for each.
func either(off, on string, option func(*draft) *bool) func(*report, entry, *draft) {
	return func(r *report, e entry, d *draft) {
		if w, ok := wordOf(r, e, off, on); ok {
			*option(d) = w == on
		}
	}
}

// modeNames returns the names of the modes for which holds returns true.
func modeNames(holds func(encap.Mode) bool) []string {
	var names []string
	for _, m := range encap.Modes {
		if holds(m) {
			names = append(names, m.Name)
		}
	}
	return names
}

func anyMode(encap.Mode) bool { return true }

// maxName is IFNAMSIZ less the NUL at the end.
const maxName = 15

func readName(r *report, e entry, d *draft) {
	name, ok := stringOf(r, e, "the interface's name")
	if !ok {
		return
	}
	want := fmt.Sprintf("the interface's name, of 1 to %d bytes", maxName)
	switch {
	case name == "":
		refuse(r, e, want)
	case name == ".", name == "..":
		refuse(r, e, want+`, and not "." or ".."`)
	case name == "all", name == "default": // names in net.ipv4.conf
		r.add(e.at, "name is %s, which the kernel keeps for settings of all interfaces: use another one", quote(name))
	case len(name) > maxName:
		r.add(e.at, "%s is %s, of %d bytes: it must be %s", e.name, quote(name), len(name), want)
	case strings.IndexByte(name, 0xA0) >= 0: // in UTF-8, part of the no-break space, and of "à" and others
		r.add(e.at, "%s is %s, which has the byte A0 in it, which the kernel takes for a space: use other characters", e.name, quote(name))
	case !validName(name):
		refuse(r, e, want+`, without white space, control characters, "/", ":" and "%"`)
	default:
		d.Name = name
	}
}

// validName reports whether the kernel uses a name unchanged: it refuses some
// characters, and "%" makes the name a pattern.
func validName(name string) bool {
	return !strings.ContainsAny(name, "/:%") &&
		!strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
}

func readFlowLabel(r *report, e entry, d *draft) {
	const most = 1<<20 - 1 // 20 bits
	n, w, ok := numberOf(r, e, 0, most, "hash", "inner")
	switch {
	case !ok:
	case w == "hash":
		d.Options.FlowLabel.Source = encap.FlowLabelHash
	case w == "inner":
		d.Options.FlowLabel.Source = encap.FlowLabelInner
	default:
		d.Options.FlowLabel = encap.FlowLabel{Source: encap.FlowLabelFixed, Fixed: uint32(n)}
	}
}

func readMSSClamp(r *report, e entry, d *draft) {
	if on, ok := boolOf(r, e); ok {
		d.NoMSSClamp = !on
	}
}

func readIgnoreDF(r *report, e entry, d *draft) {
	if d.known() && !d.Mode.Carries(4) {
		r.add(e.keyAt, "%s contradicts %s, which does not carry IPv4: leave it out, or choose mode %s",
			e.name, d.what(), list(quoteAll(modeNames(func(m encap.Mode) bool { return m.Carries(4) }))))
		return
	}
	if on, ok := boolOf(r, e); ok {
		d.Options.IgnoreDF = on
	}
}

func readFwMark(r *report, e entry, d *draft) {
	const most = 1<<32 - 1
	if n, _, ok := numberOf(r, e, 0, most); ok {
		d.FwMark = uint32(n)
	}
}

// maxQueues is far above what is useful, and below the kernel's limit.
const maxQueues = 64

func readQueues(r *report, e entry, d *draft) {
	if n, _, ok := numberOf(r, e, 0, maxQueues); ok {
		d.Queues = int(n)
	}
}

func readIO(r *report, e entry, d *draft) {
	if w, ok := wordOf(r, e, string(IOSocket), string(IOXDP), string(IOAuto)); ok {
		d.IO = IO(w)
	}
}

func readNetns(r *report, e entry, d *draft) {
	const want = "the name or the absolute path of a network namespace"
	name, ok := stringOf(r, e, want)
	switch {
	case !ok:
	case name == ".", name == "..", strings.ContainsRune(name, 0),
		strings.Contains(name, "/") && name[0] != '/':
		refuse(r, e, want)
	default:
		d.Netns = name
	}
}

// readMTU reads the tunnel MTU. 0 means that it is derived from the path MTU.
func readMTU(r *report, e entry, d *draft) {
	const most = 1<<16 - 1 // the limit of all modes
	n, _, ok := numberOf(r, e, 0, most)
	mtu := encap.TunnelMTU(n)
	switch {
	case !ok:
	case mtu == 0:
	case mtu < encap.MinTunnelMTU4:
		r.add(e.at, "mtu is %d: it must be at least %d, the least of IPv4, or 0 to take it from the path", mtu, encap.MinTunnelMTU4)
	case mtu < encap.MinTunnelMTU6 && d.has6():
		r.add(e.at, "mtu is %d: it must be at least %d, the least of IPv6, which address or routes have, or 0 to take it from the path", mtu, encap.MinTunnelMTU6)
	case d.known() && mtu > encap.MaxMTU(d.bare(), d.Options):
		r.add(e.at, "mtu is %d: it must be at most %d, which is what the outer packet's length leaves in %s, or 0 to take it from the path",
			mtu, encap.MaxMTU(d.bare(), d.Options), d.what())
	default:
		d.MTU = mtu
	}
}

// has6 reports whether the interface carries IPv6.
func (d *draft) has6() bool {
	for _, p := range d.Address {
		if p.Addr().Is6() {
			return true
		}
	}
	for _, p := range d.Routes {
		if p.Addr().Is6() {
			return true
		}
	}
	return false
}
