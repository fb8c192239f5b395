package configfile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sixfour/encap"
	"sixfour/encap/framing"
	"sixfour/internal/config"
	"sixfour/internal/config/client"
	"sixfour/internal/config/keys"
	"sixfour/internal/config/mechanism"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// draft is a tunnel that is being read.
type draft struct {
	config.Tunnel
	state               tree.State
	addressAt, routesAt []problem.Pos // of each element
	layers              []layerDraft
	over4, over6        ends
	gre                 framing.GRE
	seal                framing.SEAL
	paths               []*pathDraft // of the tunnel
	peers               []*peerDraft
	dsLite              bool
	probe               netip.Addr
	mechanism           mechanism.Reading // for an automatic tunnel
	client              client.Reading    // for a mode with a session
}

// tunnelKeys are the keys of a [[tunnel]]. The valid values depend on the mode, and
// those of the MTU on addresses and options, so the order matters.
var tunnelKeys = slices.Concat([]tree.Key[*draft]{
	{Name: "mode", Read: readMode},
	{Name: "stack", Read: readStack},
	{Name: "name", Read: readName},
}, clientKeys(true), []tree.Key[*draft]{
	{Name: "path", Read: readTunnelPaths},
	{Name: "udp_port", Read: readSEALPort}, // after path, and before peer
	{Name: "identification", Read: readIdentification},
	{Name: "local", Read: readLocal(false)},
	{Name: "remote", Read: readRemote(false)},
	{Name: "local6", Read: over6(readLocal(true))},
	{Name: "remote6", Read: over6(readRemote(true))},
	{Name: "ds_lite", Read: readDSLite},
	{Name: "address", Read: readAddress},
	{Name: "routes", Read: readRoutes},
	{Name: "ttl", Read: numberOr(1, 255, "inherit", encap.InheritTTL, func(o *encap.Options) *int { return &o.TTL })},
	{Name: "hop_limit", Read: over6(numberOr(1, 255, "inherit", encap.InheritTTL, func(o *encap.Options) *int { return &o.HopLimit }))},
	{Name: "dscp", Read: numberOr(0, 63, "inherit", encap.InheritDSCP, func(o *encap.Options) *int { return &o.DSCP })},
	{Name: "ecn", Read: either("normal", "compat", func(d *draft) *bool { return &d.Options.ECNCompat })},
	{Name: "pmtu", Read: either("dynamic", "static", func(d *draft) *bool { return &d.Options.StaticMTU })},
	{Name: "ignore_df", Read: readIgnoreDF},
	{Name: "encap_limit", Read: over6(numberOr(0, 255, "none", encap.NoEncapLimit, func(o *encap.Options) *int { return &o.EncapLimit }))},
	{Name: "flow_label", Read: over6(readFlowLabel)},
	{Name: "mss_clamp", Read: readMSSClamp},
	{Name: "keepalive", Read: readKeepalive},
	{Name: "dead_after", Read: readDeadAfter},
	{Name: "probe", Read: readProbe},
	{Name: "martians", Read: either("rfc", "strict", func(d *draft) *bool { return &d.Strict })},
	{Name: "fwmark", Read: readFwMark},
	{Name: "queues", Read: readQueues},
	{Name: "offload", Read: either("auto", "off", func(d *draft) *bool { return &d.NoOffload })},
	{Name: "io", Read: readIO},
	{Name: "netns", Read: readNetns},
}, greKeys(
	func(d *draft) bool { return !d.known() || d.has(func(l layerDraft) bool { return isGRE(l.kind) }) },
	(*draft).what,
	func(d *draft) *framing.GRE { return &d.gre },
), mechanismKeys(), clientKeys(false), []tree.Key[*draft]{
	{Name: "peer", Read: readPeers},
	{Name: "mtu", Read: readMTU},
	{Name: "reserve", Read: readReserve},
}, selectKeys(), updateKeys)

// readTunnel reads one [[tunnel]], and checks its values against each other.
func readTunnel(r *problem.Report, t *tree.Value) *draft {
	d := &draft{Tunnel: config.Tunnel{
		Options:  encap.DefaultOptions,
		IO:       config.IOSocket,
		Liveness: config.Liveness{Keepalive: defaultKeepalive, DeadAfter: defaultDeadAfter},
		Source: config.Source{
			File:   r.File,
			Header: t.At,
			Keys:   make(map[string]problem.Pos, len(t.Table)),
			Sums:   make(map[string]uint64, len(t.Table)),
		},
	}}
	mechanism.Preset(t.Table)
	for name, e := range t.Table {
		d.Source.Keys[name] = e.At
		if name != "peer" {
			d.Source.Sums[name] = e.Sum()
		}
	}
	_, d.Hub = t.Table["peer"]
	before := r.Found
	d.state = keys.Read(r, "[[tunnel]]", t, tunnelKeys, d)
	d.finishClient(r)
	d.finish(r)
	d.checkMissing(r)
	d.checkPairs(r)
	d.checkGRE(r)
	d.checkProbes(r)
	d.checkSelect(r)
	d.checkUpdate(r)
	d.checkEncapLimit(r)
	d.finishMechanism(r)
	d.checkLoop(r)
	d.checkAddresses(r)
	d.checkReach(r)
	if r.Found == before {
		d.checkSite(r)
	}
	return d
}

// finish builds the layers and, in the short form, the only peer.
func (d *draft) finish(r *problem.Report) {
	var inner []netip.Addr // remote ends of the layers inside the outermost one
	var local end          // of a path without its own, as remote
	remote := end{at: d.Source.Header}
	if !d.known() && d.over4.remote.key != "" { // to check routes
		remote = d.over4.remote
	}
	for i := range d.layers {
		l := &d.layers[i]
		local = d.localOf(*l)
		if l.mechanism == nil {
			remote = d.remoteOf(*l)
		} else {
			remote = end{at: remote.at}
		}
		layer := config.Layer{Framing: d.framing(l)}
		if i < len(d.layers)-1 {
			layer.Local = local.Addr
			inner = append(inner, remote.Addr)
			d.checkEnd(r, *l, local, remote, false)
		}
		d.Layers = append(d.Layers, layer)
	}
	if !d.Hub {
		d.Peers = []config.Peer{{Paths: d.pathsTo(r, d.paths, local, remote), InnerRemotes: inner, Probe: d.probe}}
	}
	if d.dsLite {
		d.presetDSLite()
	}
}

// over6 is for keys of the IPv6 delivery header, in modes that have one. In other modes,
// the key itself is the error, and its value is not checked.
func over6(read func(*problem.Report, tree.Entry, *draft)) func(*problem.Report, tree.Entry, *draft) {
	return func(r *problem.Report, e tree.Entry, d *draft) {
		if d.known() && !d.over(6) {
			r.Add(e.KeyAt, "%s contradicts %s, which has no IPv6 delivery header: leave it out, or choose mode %s",
				e.Name, d.what(), problem.Alternatives(problem.QuoteAll(keys.Modes(keys.Over6))))
			return
		}
		read(r, e, d)
	}
}

// checkEncapLimit reports a limit with which the tunnel's own layers cannot carry each
// other.
func (d *draft) checkEncapLimit(r *problem.Report) {
	if least := encap.LeastEncapLimit(d.bare()); d.Options.EncapLimit != encap.NoEncapLimit && d.Options.EncapLimit < least {
		r.Add(d.Source.Keys["encap_limit"], `encap_limit is %d, but %s carries IPv6 in IPv6, so that it must be at least %d, or "none"`,
			d.Options.EncapLimit, d.what(), least)
	}
}

// numberOr is for options that are a number, or one word that stands for a number.
func numberOr(least, most int64, word string, meaning int, option func(*encap.Options) *int) func(*problem.Report, tree.Entry, *draft) {
	return func(r *problem.Report, e tree.Entry, d *draft) {
		n, w, ok := value.Number(r, e, least, most, word)
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
func either(off, on string, option func(*draft) *bool) func(*problem.Report, tree.Entry, *draft) {
	return func(r *problem.Report, e tree.Entry, d *draft) {
		if w, ok := value.Word(r, e, off, on); ok {
			*option(d) = w == on
		}
	}
}

func readName(r *problem.Report, e tree.Entry, d *draft) {
	name, ok := value.String(r, e, "the interface's name")
	if !ok {
		return
	}
	want := fmt.Sprintf("the interface's name, of 1 to %d bytes", value.MaxName)
	switch {
	case name == "":
		value.Refuse(r, e, want)
	case name == ".", name == "..":
		value.Refuse(r, e, want+`, and not "." or ".."`)
	case name == "all", name == "default": // names in net.ipv4.conf
		r.Add(e.At, "name is %s, which the kernel reserves for settings of all interfaces: use another one", problem.Quote(name))
	case len(name) > value.MaxName:
		r.Add(e.At, "%s is %s, of %d bytes: it must be %s", e.Name, problem.Quote(name), len(name), want)
	case strings.IndexByte(name, 0xA0) >= 0: // in UTF-8, part of the no-break space, and of "à" and others
		r.Add(e.At, "%s is %s, which has the byte A0 in it, which the kernel takes for a space: use other characters", e.Name, problem.Quote(name))
	case !value.ValidName(name):
		value.Refuse(r, e, want+`, without white space, control characters, "/", ":" and "%"`)
	default:
		d.Name = name
	}
}

func readFlowLabel(r *problem.Report, e tree.Entry, d *draft) {
	const most = 1<<20 - 1 // 20 bits
	n, w, ok := value.Number(r, e, 0, most, "hash", "inner")
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

func readMSSClamp(r *problem.Report, e tree.Entry, d *draft) {
	if on, ok := value.Bool(r, e); ok {
		d.NoMSSClamp = !on
	}
}

func readIgnoreDF(r *problem.Report, e tree.Entry, d *draft) {
	if d.known() && !d.Mode.Carries(4) {
		r.Add(e.KeyAt, "%s contradicts %s, which does not carry IPv4: leave it out, or choose mode %s",
			e.Name, d.what(), problem.Alternatives(problem.QuoteAll(keys.Modes(keys.Carries(4)))))
		return
	}
	if on, ok := value.Bool(r, e); ok {
		d.Options.IgnoreDF = on
	}
}

func readFwMark(r *problem.Report, e tree.Entry, d *draft) {
	const most = 1<<32 - 1
	if n, _, ok := value.Number(r, e, 0, most); ok {
		d.FwMark = uint32(n)
	}
}

// maxQueues is far above what is useful, and below the kernel's limit.
const maxQueues = 64

func readQueues(r *problem.Report, e tree.Entry, d *draft) {
	if n, _, ok := value.Number(r, e, 0, maxQueues); ok {
		d.Queues = int(n)
	}
}

func readIO(r *problem.Report, e tree.Entry, d *draft) {
	if w, ok := value.Word(r, e, string(config.IOSocket), string(config.IOXDP), string(config.IOKernel), string(config.IOAuto)); ok {
		d.IO = config.IO(w)
	}
}

func readNetns(r *problem.Report, e tree.Entry, d *draft) {
	const want = "the name or the absolute path of a network namespace"
	name, ok := value.String(r, e, want)
	switch {
	case !ok:
	case name == ".", name == "..", strings.ContainsRune(name, 0),
		strings.Contains(name, "/") && name[0] != '/':
		value.Refuse(r, e, want)
	default:
		d.Netns = name
	}
}

// readMTU reads the tunnel MTU. 0 means that it is derived from the path MTU.
func readMTU(r *problem.Report, e tree.Entry, d *draft) {
	const most = 1<<16 - 1 // the limit of all modes
	n, _, ok := value.Number(r, e, 0, most)
	mtu := encap.TunnelMTU(n)
	switch {
	case !ok:
	case mtu == 0:
	case mtu < encap.MinTunnelMTU4:
		r.Add(e.At, "mtu is %d: it must be at least %d, the minimum of IPv4, or 0 to take it from the path", mtu, encap.MinTunnelMTU4)
	case mtu < encap.MinTunnelMTU6 && d.Has6():
		r.Add(e.At, "mtu is %d: it must be at least %d, the minimum of IPv6, which address or routes have, or 0 to take it from the path", mtu, encap.MinTunnelMTU6)
	case d.known() && mtu > d.maxMTU():
		r.Add(e.At, "mtu is %d: it must be at most %d, which is what the outer packet's length leaves in %s, or 0 to take it from the path",
			mtu, d.maxMTU(), d.what())
	default:
		d.MTU = mtu
	}
}
