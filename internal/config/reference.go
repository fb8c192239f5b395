package config

import (
	"strings"

	"sixfour/encap"
)

// Key is the manual's description of one key. Tests check that the list has all keys
// that are read, and that each default is the one that the program uses.
type Key struct {
	Table   string // such as [log]; [[tunnel]] for keys of single modes
	Modes   string // the modes that have it; "": all
	Name    string
	Values  string // allowed values
	Default string // as TOML; "": none, because the key is required or has no meaning when left out
	Needed  string // when it is required; "": never
	Meaning string
}

const (
	tableGateway = "[gateway]"
	tableTunnel  = "[[tunnel]]"
	tablePeer    = "[[tunnel.peer]]"
	overIPv6     = "those with a layer over IPv6"
	withGRE      = "`gre`, `gre6`, stacks with them"
	prefixes4    = "IPv4 prefixes"
	prefixes6    = "IPv6 prefixes"
)

// Reference returns every key of a configuration file, in the order of the manual.
func Reference() []Key { return reference }

// modeValues returns the names of all modes.
func modeValues() string {
	names := make([]string, len(encap.Modes))
	for i, m := range encap.Modes {
		names[i] = "`" + m.Name + "`"
	}
	return strings.Join(names, ", ")
}

var reference = []Key{
	{Table: "[log]", Name: "level", Values: "`debug`, `info`, `warn`, `error`", Default: `"info"`, Meaning: "the least important lines that are logged"},
	{Table: "[log]", Name: "format", Values: "`auto`, `console`, `json`, `journal`", Default: `"auto"`, Meaning: "`auto`: the journal's own where standard error is the journal, else lines for people"},
	{Table: "[control]", Name: "socket", Values: "an absolute path", Default: `"/run/sixfour/control.sock"`, Meaning: "what `sixfourctl` speaks to"},
	{Table: tableGateway, Name: "masquerade", Values: "an interface's name, or an array of them", Default: "[]", Meaning: "what comes from the tunnels leaves [through it](gateway.md) with this host's address"},
	{Table: tableGateway, Name: "default_route", Values: "true, false", Default: "false", Meaning: "everything for which there is no other route goes [into a tunnel](gateway.md)"},
	{Table: tableGateway, Name: "tunnel", Values: "a tunnel's name", Needed: "with `default_route` and several tunnels", Meaning: "into this one"},
	{Table: tableGateway, Name: "bypass", Values: "prefixes", Default: "[]", Meaning: "to these packets go the old way"},
	{Table: tableGateway, Name: "probe", Values: "an address, or an array of them", Meaning: "hosts on the internet that [`sixfourctl doctor`](doctor.md) pings to see whether it is reached: without it 1.1.1.1 and 2606:4700:4700::1111; `[]` is none"},
	{Table: "[metrics]", Name: "listen", Values: "an address and a port", Default: `"127.0.0.1:9640"`, Meaning: "where [metrics](metrics.md) are served over HTTP; without `[metrics]` nowhere"},
	{Table: "[security]", Name: "sandbox", Values: "`auto`, `off`", Default: `"auto"`, Meaning: "`auto`: the daemon restricts itself to the files and system calls that it needs, as far as the kernel can; `off`: it only gives up capabilities"},
	{Table: "[security]", Name: "packet_filter", Values: "`auto`, `on`", Default: `"auto"`, Meaning: "whether the daemon [can still reach nf_tables](security.md): `auto`: if `[gateway]` is there at its start, or a tunnel module of the kernel is loaded, which would answer peers' packets; `on`: also if only a later reload or module needs it"},

	{Table: tableTunnel, Name: "name", Values: "at most 15 bytes", Needed: "always", Meaning: "the interface's name"},
	{Table: tableTunnel, Name: "mode", Values: modeValues(), Needed: "without `stack`", Meaning: "[what is on the wire](modes/README.md)"},
	{Table: tableTunnel, Name: "stack", Values: "an array of modes, innermost first, each a name or a table of `mode`, `local`, `remote`, `key`, `checksum`, `sequence`", Needed: "without `mode`", Meaning: "layers [in each other](modes/stack.md)"},
	{Table: tableTunnel, Name: "local", Values: "an address, `auto`", Needed: "always", Meaning: "this end's outer address; `auto`: what routing would choose, followed as it changes; a link-local one has its interface, as fe80::1%eth0"},
	{Table: tableTunnel, Name: "remote", Values: "an address or a DNS name", Needed: "in configured modes without `[[tunnel.peer]]`", Meaning: "the other end's outer address; a name is looked up and followed; a link-local one has its interface, as fe80::2%eth0"},
	{Table: tableTunnel, Modes: overIPv6, Name: "local6", Values: "an IPv6 address", Needed: "in `4in6in4` and stacks like it", Meaning: "this end of the IPv6 layer"},
	{Table: tableTunnel, Modes: overIPv6, Name: "remote6", Values: "an IPv6 address", Needed: "in `4in6in4` and stacks like it", Meaning: "the other end of the IPv6 layer"},
	{Table: tableTunnel, Name: "address", Values: "addresses with prefix lengths", Default: "[]", Meaning: "put on the interface"},
	{Table: tableTunnel, Name: "routes", Values: "prefixes", Default: "[]", Meaning: "routed into the interface"},
	{Table: tableTunnel, Name: "mtu", Values: "68 (with IPv6: 1280) to what the mode leaves of 65535, 0", Default: "0", Meaning: "of the interface; 0: that of the route to the peer, less what the mode adds"},
	{Table: tableTunnel, Name: "ttl", Values: "1 to 255, `inherit`", Default: "64", Meaning: "TTL of outer IPv4 headers"},
	{Table: tableTunnel, Modes: overIPv6, Name: "hop_limit", Values: "1 to 255, `inherit`", Default: "64", Meaning: "hop limit of IPv6 headers"},
	{Table: tableTunnel, Name: "dscp", Values: "0 to 63, `inherit`", Default: `"inherit"`, Meaning: "DSCP of outer headers"},
	{Table: tableTunnel, Name: "ecn", Values: "`normal`, `compat`", Default: `"normal"`, Meaning: "congestion marks by RFC 6040; `compat`: for a peer that ignores them"},
	{Table: tableTunnel, Name: "pmtu", Values: "`dynamic`, `static`", Default: `"dynamic"`, Meaning: "`dynamic`: DF is set, and the [path's MTU](mtu.md) learnt; `static`: DF is clear outside what may be cut, and routers cut it; over IPv6, which no router cuts, as `dynamic`"},
	{Table: tableTunnel, Modes: "those that carry IPv4", Name: "ignore_df", Values: "true, false", Default: "false", Meaning: "inner IPv4 packets that do not fit the path are [cut](mtu.md#ignoring-df) though they have DF, instead of being answered"},
	{Table: tableTunnel, Modes: overIPv6, Name: "encap_limit", Values: "0 to 255, `none`", Default: `"none"`, Meaning: "tunnel encapsulation limit (RFC 2473), 8 bytes a packet"},
	{Table: tableTunnel, Modes: overIPv6, Name: "flow_label", Values: "`hash`, `inner`, 0 to 1048575", Default: `"hash"`, Meaning: "of IPv6 headers; `hash`: one for each flow (RFC 6438)"},
	{Table: tableTunnel, Name: "mss_clamp", Values: "true, false", Default: "true", Meaning: "the MSS of TCP connections that go through fits the MTU"},
	{Table: tableTunnel, Name: "keepalive", Values: "1s to 24h, 0s", Default: `"25s"`, Meaning: "a peer that was silent so long is [probed](liveness.md); 0s: none is"},
	{Table: tableTunnel, Name: "dead_after", Values: "1 to 1000", Default: "5", Meaning: "probes lost in a row after which a peer is down"},
	{Table: tableTunnel, Name: "probe", Values: "an inner address", Meaning: "which answers echo requests through the tunnel and shows that [the peer lives](liveness.md); left out: what the configuration shows of the other end"},
	{Table: tableTunnel, Name: "martians", Values: "`rfc`, `strict`", Default: `"rfc"`, Meaning: "`strict`: documentation and benchmark addresses are refused inside IPv6 ones, too"},
	{Table: tableTunnel, Name: "fwmark", Values: "0 to 4294967295", Default: "0", Meaning: "SO_MARK of outer packets, for routing rules"},
	{Table: tableTunnel, Name: "netns", Values: "a name or an absolute path", Meaning: "the network namespace of the interface; the outer side stays; left out: the daemon's own"},
	{Table: tableTunnel, Name: "queues", Values: "0 to 64", Default: "0", Meaning: "of the interface, and receivers at each local address; 0: one for every two processors, at most 4, for all tunnels together. Fragments keep their place in their flow with 1 only"},
	{Table: tableTunnel, Name: "offload", Values: "`auto`, `off`", Default: `"auto"`, Meaning: "segmentation offload on the interface"},
	{Table: tableTunnel, Name: "io", Values: "`socket`, `xdp`, `auto`", Default: `"socket"`, Meaning: "how outer packets leave and arrive; `auto`: through AF_XDP where it can be, without a warning where not"},

	{Table: tableTunnel, Modes: withGRE, Name: "key", Values: "0 to 4294967295, a dotted quad", Meaning: "GRE key; left out, there is none"},
	{Table: tableTunnel, Modes: withGRE, Name: "ikey", Values: "0 to 4294967295, a dotted quad", Meaning: "instead of `key`: the key that what comes must have; left out, it must have none"},
	{Table: tableTunnel, Modes: withGRE, Name: "okey", Values: "0 to 4294967295, a dotted quad", Meaning: "instead of `key`: the key of what is sent; left out, it has none"},
	{Table: tableTunnel, Modes: withGRE, Name: "checksum", Values: "true, false", Default: "false", Meaning: "GRE checksum in what is sent, and asked of what comes"},
	{Table: tableTunnel, Modes: withGRE, Name: "sequence", Values: "true, false", Default: "false", Meaning: "GRE sequence numbers, likewise"},
	{Table: tableTunnel, Modes: "`4in6`", Name: "ds_lite", Values: "true, false", Default: "false", Meaning: "`address` is 192.0.0.2/29 and `routes` 0.0.0.0/0, unless they are given (RFC 6333)"},
	{Table: tableTunnel, Modes: "`6to4`, `6rd`", Name: "role", Values: "`6to4`: `router`, `host`, `relay`, `return`, `pmt`; `6rd`: `ce`, `br`", Meaning: "what this end is; left out: `router`, and `ce` with a border relay, else `br`"},
	{Table: tableTunnel, Modes: "`6to4`", Name: "relay", Values: "an IPv4 address or name, `none`", Default: `"192.88.99.1"`, Meaning: "where packets to native addresses go"},
	{Table: tableTunnel, Modes: "`6to4`", Name: "relays", Values: prefixes4, Meaning: "from which native sources are taken; left out: any"},
	{Table: tableTunnel, Modes: "`6to4`", Name: "clients", Values: prefixes4, Needed: "with role `relay`", Meaning: "that are served"},
	{Table: tableTunnel, Modes: "`6to4`", Name: "sources", Values: prefixes6, Needed: "with role `return`", Meaning: "inner sources that are carried"},
	{Table: tableTunnel, Modes: "`6to4`", Name: "provider_prefix", Values: "an IPv6 prefix", Needed: "with role `pmt`", Meaning: "takes the place of 2002::/16"},
	{Table: tableTunnel, Modes: "`6to4`, `6rd`", Name: "v4_common", Values: "an IPv4 prefix", Meaning: "whose bits are left out of IPv6 addresses"},
	{Table: tableTunnel, Modes: "`6to4`", Name: "customers", Values: prefixes4, Needed: "with role `pmt`", Meaning: "that are served"},
	{Table: tableTunnel, Modes: "`6to4`", Name: "subnet", Values: "0 to 65535", Meaning: "the customers' only subnet, where there is room for one only"},
	{Table: tableTunnel, Modes: "`6to4`", Name: "mapping", Values: "`rewrite`, `npt`", Meaning: "left out, `rewrite`: checksums are mended; `npt`: a word of the address makes good for the change (RFC 6296)"},
	{Table: tableTunnel, Modes: "`6rd`, `isatap`", Name: "prefix", Values: "`6rd`: an IPv6 prefix; `isatap`: prefixes of /64", Needed: "in `6rd` without `option212`, and of an ISATAP router", Meaning: "the domain's prefix; what the router advertises"},
	{Table: tableTunnel, Modes: "`6rd`", Name: "mask_len", Values: "0 to 31", Default: "0", Meaning: "leading IPv4 bits that are left out"},
	{Table: tableTunnel, Modes: "`6rd`", Name: "border_relay", Values: "IPv4 addresses or names", Meaning: "where packets to native addresses go; of a relay: its colleagues"},
	{Table: tableTunnel, Modes: "`6rd`", Name: "option212", Values: "hexadecimal digits", Meaning: "`prefix`, `mask_len` and `border_relay` as a DHCPv4 server sends them (RFC 5969)"},
	{Table: tableTunnel, Modes: "`isatap`", Name: "routers", Values: "IPv4 addresses or names", Needed: "of a host", Meaning: "the potential router list"},
	{Table: tableTunnel, Modes: "`isatap`", Name: "router", Values: "true, false", Default: "false", Meaning: "this is a router"},
	{Table: tableTunnel, Modes: "`6over4`", Name: "scope", Values: "192 to 195", Default: "192", Meaning: "second byte of the IPv4 groups (RFC 2365)"},

	{Table: tablePeer, Name: "name", Values: "at most 63 bytes without white space", Needed: "always", Meaning: "in status, metrics and log"},
	{Table: tablePeer, Name: "remote", Values: "an address or a DNS name", Needed: "always", Meaning: "the peer's outer address"},
	{Table: tablePeer, Name: "remote6", Values: "an IPv6 address", Needed: "in `4in6in4` and stacks like it", Meaning: "the peer's end of the IPv6 layer"},
	{Table: tablePeer, Name: "allowed", Values: "prefixes", Needed: "always", Meaning: "behind the peer: to whom packets go, and from which its packets may be"},
	{Table: tablePeer, Name: "probe", Values: "an inner address", Meaning: "as in `[[tunnel]]`; one of `allowed`"},
}
