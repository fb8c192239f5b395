// Package keys describes every key of a configuration file, and suggests keys for unknown
// ones.
package keys

import (
	"slices"
	"strings"

	"sixfour/internal/config"
	"sixfour/internal/selection"
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
	TableGateway  = "[gateway]"
	TableTunnel   = "[[tunnel]]"
	TablePeer     = "[[tunnel.peer]]"
	TablePath     = "[[tunnel.path]]"
	TablePeerPath = "[[tunnel.peer.path]]"
	overIPv6      = "modes with a layer over IPv6"
	withSEAL      = "`seal`, stacks with it"
	withGRE       = "`gre`, `gre6`, stacks with them"
	prefixes4     = "IPv4 prefixes"
	prefixes6     = "IPv6 prefixes"
)

// Reference returns every key of a configuration file, in the order of the manual.
func Reference() []Key { return reference }

// PathReference returns the keys of a table of paths. Those that only some encapsulations
// have are left out if none has them. otherwise is the remote end of a path without one.
func PathReference(table, otherwise string) []Key {
	rows := []Key{
		{Name: "encap", Values: markedUp(Encapsulations(AnyEncapsulation)), Default: `"none"`, Meaning: "what the packets of the tunnel travel in; `none`: the layers of the mode only, protocols 4, 41 and 47"},
		{Name: "local", Values: "an address, `auto`", Meaning: "this end's outer address; left out: that of the tunnel"},
		{Name: "remote", Values: "an address or a DNS name", Meaning: "the other end's outer address; left out: " + otherwise},
	}
	if with := Encapsulations(HasPorts); len(with) > 0 {
		rows = append(rows,
			Key{Modes: markedUp(with), Name: "port", Values: "1 to 65535", Needed: "with an `encap` without a port of its own", Meaning: "the other end's port"},
			Key{Modes: markedUp(with), Name: "local_port", Values: "0 to 65535", Meaning: "this end's port; left out: the same as `port`; 0: any that is free, if the other end has `listen`"})
	}
	if with := Encapsulations(HasChecksum); len(with) > 0 {
		rows = append(rows, Key{Modes: markedUp(with), Name: "checksum", Values: "true, false", Default: "true", Meaning: "sent packets have a UDP checksum"})
	}
	if with := Encapsulations(HasSourcePort); len(with) > 0 {
		rows = append(rows, Key{Modes: markedUp(with), Name: "source_port", Values: markedUp([]string{config.LocalPort, config.FlowPort}), Meaning: sourcePortMeaning()})
	}
	rows = append(rows, connectionReference()...)
	if with := Weighted(); len(with) > 0 {
		rows = append(rows, Key{Name: "weight", Values: "1 to 1000", Default: "1", Meaning: "share of the flows that the path carries, relative to the other paths; with `select` " + markedUp(with)})
	}
	for i := range rows {
		rows[i].Table = table
	}
	return rows
}

// sourcePortMeaning returns the meaning of the key source_port.
func sourcePortMeaning() string {
	preset := func(port string) string {
		return markedUp(Encapsulations(func(e config.Encapsulation) bool { return e.SourcePort == port }))
	}
	return "source port of sent packets; `local`: `local_port`, which passes NATs and packet filters; `flow`: one of 49152 to 65535 for each inner flow, by which routers spread flows over several paths; left out: `local` in " +
		preset(config.LocalPort) + ", `flow` in " + preset(config.FlowPort)
}

// connectionReference returns the keys of paths on which a peer proves who it is.
func connectionReference() (rows []Key) {
	if with := Encapsulations(Listens); len(with) > 0 {
		rows = append(rows, Key{Modes: markedUp(with), Name: "listen", Values: "true, false", Default: "false", Meaning: "the other end comes to this one: its address and port are learnt, and followed when they change; needs `local`, and excludes `remote` and `port`. At one end only"})
	}
	if with := Encapsulations(HasSecret); len(with) > 0 {
		rows = append(rows, Key{Modes: markedUp(with), Name: "secret_file", Values: "an absolute path", Needed: "with `listen` and in `https`", Meaning: "file with a secret of at least 16 bytes, which both ends have; mode 0600"})
	}
	if with := Encapsulations(Has[config.HTTPS]); len(with) > 0 {
		for _, k := range []Key{
			{Name: "over", Values: "`auto`, `udp`, `tcp`", Default: `"auto"`, Meaning: "HTTP/3 over UDP, HTTP/1.1 over TCP, or the first where that passes and else the second"},
			{Name: "url", Values: "a URL, or its path", Default: `"` + config.HTTPSURL + `"`, Meaning: "where the listening end serves the tunnel; the host in it is the name in its certificate"},
			{Name: "proxy", Values: "a URL", Meaning: "HTTP proxy through which the other end is reached over TCP"},
			{Name: "certificate", Values: "an absolute path", Needed: "with `listen`", Meaning: "file with the certificate of this end, in PEM; read again when it changes"},
			{Name: "key", Values: "an absolute path", Needed: "with `listen`", Meaning: "file with the private key of the certificate, in PEM; mode 0600"},
			{Name: "ca", Values: "an absolute path", Meaning: "file with the certificates that may sign the other end's, in PEM; left out: those of the system"},
		} {
			k.Modes = markedUp(with)
			rows = append(rows, k)
		}
	}
	if with := Encapsulations(Has[config.WireGuard]); len(with) > 0 {
		for _, k := range []Key{
			{Name: "private_key_file", Values: "an absolute path", Needed: "always", Meaning: "file with the private key of this end, as `wg genkey` writes it; mode 0600"},
			{Name: "public_key", Values: "44 characters of base64", Needed: "always", Meaning: "public key of the other end, as `wg pubkey` prints it"},
			{Name: "preshared_key_file", Values: "an absolute path", Meaning: "file with a key that both ends have, as `wg genpsk` writes it; mode 0600"},
		} {
			k.Modes = markedUp(with)
			rows = append(rows, k)
		}
	}
	return rows
}

// selectReference returns the key for the policy by which a peer uses its paths, if there
// are policies.
func selectReference() []Key {
	names := selection.Names()
	if len(names) == 0 {
		return nil
	}
	meaning := "which [path](paths.md) packets take, of those that are up; "
	for _, p := range selection.Policies {
		meaning += "`" + p.Name + "`: " + p.Meaning + "; "
	}
	return []Key{{Table: TableTunnel, Name: "select", Values: markedUp(names),
		Meaning: meaning + "left out: `" + names[0] + "`. Only with more than one path"}}
}

// Weighted returns the names of the policies that use the weights of paths.
func Weighted() (names []string) {
	for _, p := range selection.Policies {
		if p.Weights {
			names = append(names, p.Name)
		}
	}
	return names
}

// markedUp returns names as Markdown.
func markedUp(names []string) string {
	var marked []string
	for _, n := range names {
		marked = append(marked, "`"+n+"`")
	}
	return strings.Join(marked, ", ")
}

var reference = slices.Concat([]Key{
	{Table: "[log]", Name: "level", Values: "`debug`, `info`, `warn`, `error`", Default: `"info"`, Meaning: "lines of this level and above are logged"},
	{Table: "[log]", Name: "format", Values: "`auto`, `console`, `json`, `journal`", Default: `"auto"`, Meaning: "`auto`: the format of the journal if standard error is the journal, otherwise lines for people"},
	{Table: "[control]", Name: "socket", Values: "an absolute path", Default: `"/run/sixfour/control.sock"`, Meaning: "path of the socket that `sixfourctl` uses"},
	{Table: TableGateway, Name: "masquerade", Values: "an interface's name, or an array of them", Default: "[]", Meaning: "packets from the tunnels leave [through this interface](gateway.md) with this host's address"},
	{Table: TableGateway, Name: "default_route", Values: "true, false", Default: "false", Meaning: "everything for which there is no other route goes [into a tunnel](gateway.md)"},
	{Table: TableGateway, Name: "tunnel", Values: "a tunnel's name", Needed: "with `default_route` and several tunnels", Meaning: "the tunnel that `default_route` uses"},
	{Table: TableGateway, Name: "bypass", Values: "prefixes", Default: "[]", Meaning: "destinations that keep their direct route, outside the tunnel"},
	{Table: TableGateway, Name: "probe", Values: "an address, or an array of them", Meaning: "hosts on the internet that [`sixfourctl doctor`](doctor.md) pings to test whether it can be reached; left out: 1.1.1.1 and 2606:4700:4700::1111; `[]`: none"},
	{Table: "[metrics]", Name: "listen", Values: "an address and a port", Default: `"127.0.0.1:9640"`, Meaning: "where [metrics](metrics.md) are served over HTTP; without `[metrics]` they are not served"},
	{Table: "[security]", Name: "sandbox", Values: "`auto`, `off`", Default: `"auto"`, Meaning: "`auto`: the daemon restricts itself to the files and system calls that it needs, as far as the kernel can; `off`: it only gives up capabilities"},
	{Table: "[security]", Name: "packet_filter", Values: "`auto`, `on`", Default: `"auto"`, Meaning: "whether the daemon [keeps access to nf_tables](security.md#the-packet-filter); `auto`: if there is a `[gateway]` at its start, or if a tunnel module of the kernel is loaded, which would answer peers' packets; `on`: always, for a later reload or module that needs it"},

	{Table: TableTunnel, Name: "name", Values: "at most 15 bytes", Needed: "always", Meaning: "name of the interface"},
	{Table: TableTunnel, Name: "mode", Values: markedUp(Modes(AnyMode)), Needed: "without `stack`", Meaning: "[which headers the tunnel adds](modes/README.md)"},
	{Table: TableTunnel, Name: "stack", Values: "an array of modes, innermost first, each a name or a table of `mode`, `local`, `remote`, `key`, `checksum`, `sequence`", Needed: "without `mode`", Meaning: "several layers, [one inside the other](modes/stack.md)"},
	{Table: TableTunnel, Name: "local", Values: "an address, `auto`", Needed: "except with `server`", Meaning: "this end's outer address; with `server` left out: `auto`; `auto`: the address that routing would choose, also after it changes; a link-local address is written with its interface, as fe80::1%eth0"},
	{Table: TableTunnel, Name: "remote", Values: "an address or a DNS name", Needed: "in configured modes without `server` and `[[tunnel.peer]]`", Meaning: "the other end's outer address; a name is looked up again from time to time; a link-local address is written with its interface, as fe80::2%eth0"},
	{Table: TableTunnel, Modes: overIPv6, Name: "local6", Values: "an IPv6 address", Needed: "in `4in6in4` and stacks like it", Meaning: "this end's address in the IPv6 layer"},
	{Table: TableTunnel, Modes: overIPv6, Name: "remote6", Values: "an IPv6 address", Needed: "in `4in6in4` and stacks like it", Meaning: "the other end's address in the IPv6 layer"},
	{Table: TableTunnel, Name: "address", Values: "addresses with prefix lengths", Default: "[]", Meaning: "addresses of the interface"},
	{Table: TableTunnel, Name: "routes", Values: "prefixes", Meaning: "prefixes that are routed into the interface; left out: those that the peers of a [hub](modes/hub.md#limits) have in `allowed`"},
	{Table: TableTunnel, Name: "mtu", Values: "0, or 68 (with IPv6: 1280) to 65535 less what the mode adds", Default: "0", Meaning: "MTU of the interface; 0: the MTU of the route to the peer, less what the mode adds"},
	{Table: TableTunnel, Name: "ttl", Values: "1 to 255, `inherit`", Default: "64", Meaning: "TTL of outer IPv4 headers"},
	{Table: TableTunnel, Modes: overIPv6, Name: "hop_limit", Values: "1 to 255, `inherit`", Default: "64", Meaning: "hop limit of IPv6 headers"},
	{Table: TableTunnel, Name: "dscp", Values: "0 to 63, `inherit`", Default: `"inherit"`, Meaning: "DSCP of outer headers"},
	{Table: TableTunnel, Name: "ecn", Values: "`normal`, `compat`", Default: `"normal"`, Meaning: "congestion marks by RFC 6040; `compat`: for a peer that ignores them"},
	{Table: TableTunnel, Name: "pmtu", Values: "`dynamic`, `static`", Default: `"dynamic"`, Meaning: "`dynamic`: outer packets have DF set, and the [path MTU](mtu.md) is learnt; `static`: outer IPv4 packets have DF set only if the inner packet has it, and routers fragment the others; over IPv6, where routers do not fragment, the same as `dynamic`"},
	{Table: TableTunnel, Modes: "modes that carry IPv4", Name: "ignore_df", Values: "true, false", Default: "false", Meaning: "inner IPv4 packets that do not fit the path are [sent in fragments](mtu.md#ignoring-df) even if they have DF set; their sender gets no error"},
	{Table: TableTunnel, Modes: overIPv6, Name: "encap_limit", Values: "0 to 255, `none`", Default: `"none"`, Meaning: "tunnel encapsulation limit (RFC 2473), 8 bytes a packet"},
	{Table: TableTunnel, Modes: overIPv6, Name: "flow_label", Values: "`hash`, `inner`, 0 to 1048575", Default: `"hash"`, Meaning: "flow label of IPv6 headers; `hash`: one for each flow (RFC 6438); `inner`: that of the inner packet"},
	{Table: TableTunnel, Name: "mss_clamp", Values: "true, false", Default: "true", Meaning: "the MSS of TCP connections through the tunnel is reduced to what fits its MTU"},
	{Table: TableTunnel, Name: "keepalive", Values: "1s to 24h, 0s", Default: `"25s"`, Meaning: "a peer is [probed](liveness.md) again within this time of its last answer; 0s: no probes"},
	{Table: TableTunnel, Name: "dead_after", Values: "1 to 1000", Default: "5", Meaning: "number of probes lost in a row after which a silent peer is down"},
	{Table: TableTunnel, Name: "probe", Values: "an inner address", Meaning: "an inner address that answers echo requests through the tunnel, to test [whether the peer answers](liveness.md#probes); left out: addresses of the other end that the configuration shows"},
	{Table: TableTunnel, Name: "martians", Values: "`rfc`, `strict`", Default: `"rfc"`, Meaning: "`strict`: documentation and benchmark IPv4 addresses inside IPv6 addresses are refused, too"},
	{Table: TableTunnel, Name: "fwmark", Values: "0 to 4294967295", Default: "0", Meaning: "SO_MARK of outer packets, for routing rules"},
	{Table: TableTunnel, Name: "netns", Values: "a name or an absolute path", Meaning: "network namespace of the interface; outer packets stay in the daemon's own namespace; left out: the daemon's own"},
	{Table: TableTunnel, Name: "queues", Values: "0 to 64", Default: "0", Meaning: "number of queues of the interface, and of receivers at each local address; 0: one for every two processors, at most 4, for all tunnels together. Only with 1 do fragments keep their order within their flow"},
	{Table: TableTunnel, Name: "reserve", Values: "1280 to 9000, such as 1500", Meaning: "packets up to this size [pass any path](mtu.md#packets-in-two-pieces), in two pieces where they must; the MTU of the interface is the same. Set it at both ends. Left out: senders are told what the path carries"},
	{Table: TableTunnel, Name: "offload", Values: "`auto`, `off`", Default: `"auto"`, Meaning: "segmentation offload on the interface; `auto`: if the kernel supports it"},
	{Table: TableTunnel, Name: "io", Values: "`socket`, `xdp`, `kernel`, `auto`", Default: `"socket"`, Meaning: "how outer packets are sent and received: through sockets, through AF_XDP, or by programs of the daemon in the kernel; `auto`: in the kernel, else through AF_XDP if that is possible, without a warning if not"},
}, selectReference(), []Key{
	{Table: TableTunnel, Name: "update_url", Values: "a URL with https", Meaning: "where the outer address is [reported](moving.md) when it changes, as to a service of dynamic DNS; only with `local = \"auto\"`. Left out: nowhere"},
	{Table: TableTunnel, Name: "update_user", Values: "a text", Needed: "with `update_url`", Meaning: "the user of the account there"},
	{Table: TableTunnel, Name: "update_key_file", Values: "an absolute path", Needed: "with `update_url`", Meaning: "file with the update key, or the password, of the account; mode 0600"},
	{Table: TableTunnel, Name: "update_host", Values: "a text", Needed: "with `update_url`", Meaning: "what has the address: the number of the tunnel, or a name"},
	{Table: TableTunnel, Modes: withGRE, Name: "key", Values: "0 to 4294967295, a dotted quad", Meaning: "GRE key; left out: none"},
	{Table: TableTunnel, Modes: withGRE, Name: "ikey", Values: "0 to 4294967295, a dotted quad", Meaning: "instead of `key`: the key of received packets; left out: they must have none"},
	{Table: TableTunnel, Modes: withGRE, Name: "okey", Values: "0 to 4294967295, a dotted quad", Meaning: "instead of `key`: the key of sent packets; left out: none"},
	{Table: TableTunnel, Modes: withGRE, Name: "checksum", Values: "true, false", Default: "false", Meaning: "sent packets have a GRE checksum, and received packets must have one"},
	{Table: TableTunnel, Modes: withGRE, Name: "sequence", Values: "true, false", Default: "false", Meaning: "sent packets have a GRE sequence number, and received packets must have one"},
	{Table: TableTunnel, Modes: withSEAL, Name: "udp_port", Values: "0 to 65535", Meaning: "the SEAL header follows a UDP header with this port, and no checksum, at both ends, as in a [path](modes/seal.md) with `encap = \"fou\"`; 0 or left out: it follows the IPv4 header"},
	{Table: TableTunnel, Modes: withSEAL, Name: "identification", Values: "0 to 4294967295, a dotted quad", Meaning: "SEAL identification of the first packet after a start, for tests; left out: a random one, which strangers cannot guess"},
	{Table: TableTunnel, Modes: "`4in6`", Name: "ds_lite", Values: "true, false", Default: "false", Meaning: "`address` is 192.0.0.2/29 and `routes` 0.0.0.0/0, unless they are given (RFC 6333)"},
	{Table: TableTunnel, Modes: "`6to4`, `6rd`, `teredo`, `6a44`, `6bed4`, `lisp`, `map_e`, `lw4o6`", Name: "role", Values: "`6to4`: `router`, `host`, `relay`, `return`, `pmt`; `6rd` and `map_e`: `ce`, `br`; `teredo`: `client`, `server`, `relay`; `6a44`: `client`, `relay`; `6bed4`: `peer`, `router`; `lisp`: `xtr`, `pxtr`; `lw4o6`: `b4`, `aftr`", Needed: "in all but `6to4` and `6rd`", Meaning: "the role of this end; left out: in `6to4` `router`; in `6rd` `ce` with a border relay, otherwise `br`"},
	{Table: TableTunnel, Modes: "`6to4`, `6a44`", Name: "relay", Values: "an IPv4 address or name; in `6to4` also `none`", Meaning: "in `6to4` where packets to native addresses go, left out: 192.88.99.1; in `6a44` at a client: the provider's relay, left out: 192.88.99.2"},
	{Table: TableTunnel, Modes: "`6to4`", Name: "relays", Values: prefixes4, Meaning: "outer addresses from which packets with native sources are accepted; left out: any"},
	{Table: TableTunnel, Modes: "`6to4`", Name: "clients", Values: prefixes4, Needed: "with role `relay`", Meaning: "outer addresses that the relay serves"},
	{Table: TableTunnel, Modes: "`6to4`", Name: "sources", Values: prefixes6, Needed: "with role `return`", Meaning: "inner source addresses of the packets that are sent"},
	{Table: TableTunnel, Modes: "`6to4`", Name: "provider_prefix", Values: "an IPv6 prefix", Needed: "with role `pmt`", Meaning: "replaces 2002::/16"},
	{Table: TableTunnel, Modes: "`6to4`, `6rd`", Name: "v4_common", Values: "an IPv4 prefix", Meaning: "the bits that all IPv4 addresses of the domain share, which are left out of IPv6 addresses"},
	{Table: TableTunnel, Modes: "`6to4`, `6a44`", Name: "customers", Values: prefixes4, Needed: "in `6to4` with role `pmt`", Meaning: "outer addresses that the relay serves; in `6a44`, left out: all public ones"},
	{Table: TableTunnel, Modes: "`6to4`", Name: "subnet", Values: "0 to 65535", Meaning: "the customers' only subnet, if the prefix has room for only one"},
	{Table: TableTunnel, Modes: "`6to4`", Name: "mapping", Values: "`rewrite`, `npt`", Meaning: "`rewrite`: checksums are corrected; `npt`: a word of the address is changed so that checksums stay right (RFC 6296); left out: `rewrite`"},
	{Table: TableTunnel, Modes: "`6rd`, `isatap`, `teredo`, `6a44`, `6bed4`, `map_e`", Name: "prefix", Values: "`6rd` and `map_e`: an IPv6 prefix; `isatap`: prefixes of /64; `teredo`: IPv6 prefixes; `6a44`: a /48; `6bed4`: a /64", Needed: "in `6rd` without `option212`, at an ISATAP router, at a Teredo or 6a44 relay, at a 6bed4 router without `netid`, and at a customer edge of `map_e`", Meaning: "in `6rd` the prefix of the domain; in `isatap` the prefixes that the router advertises; in `teredo` the hosts that the relay serves; in `6a44` the provider's prefix; in `6bed4` the network of the router's peers; in `map_e` what the provider has delegated to this site"},
	{Table: TableTunnel, Modes: "`6rd`", Name: "mask_len", Values: "0 to 31", Default: "0", Meaning: "number of leading IPv4 bits that all addresses of the domain share, and that are left out"},
	{Table: TableTunnel, Modes: "`6rd`, `map_e`, `lw4o6`", Name: "border_relay", Values: "addresses or names", Needed: "at a customer edge or B4 without an option of DHCP", Meaning: "where packets to native addresses go, in `lw4o6` the AFTR; at a border relay of `6rd`: the other relays"},
	{Table: TableTunnel, Modes: "`map_e`", Name: "rules", Values: "tables with `ipv6`, `ipv4`, `ea_bits`, `offset`, `psid_len`, `psid`, `forwarding`", Needed: "without `option94`", Meaning: "the provider's [mapping rules](modes/map_e.md#rules)"},
	{Table: TableTunnel, Modes: "`map_e`", Name: "draft03", Values: "true, false", Meaning: "customer edges have the addresses of draft-ietf-softwire-map-03, as with some providers in Japan; left out: those of the standard"},
	{Table: TableTunnel, Modes: "`map_e`", Name: "option94", Values: "hexadecimal digits", Meaning: "`rules` and `border_relay` as a DHCPv6 server sends them (RFC 7598)"},
	{Table: TableTunnel, Modes: "`lw4o6`", Name: "bindings", Values: "tables with `ipv4`, `ipv6`, `offset`, `psid_len`, `psid`", Needed: "without `option96`", Meaning: "at an AFTR the customers' [addresses and ports](modes/lw4o6.md#bindings); at a B4 its own"},
	{Table: TableTunnel, Modes: "`lw4o6`", Name: "option96", Values: "hexadecimal digits", Meaning: "at a B4: its binding and `border_relay` as a DHCPv6 server sends them (RFC 7598)"},
	{Table: TableTunnel, Modes: "`6rd`", Name: "option212", Values: "hexadecimal digits", Meaning: "`prefix`, `mask_len` and `border_relay` as a DHCPv4 server sends them (RFC 5969)"},
	{Table: TableTunnel, Modes: "`isatap`", Name: "routers", Values: "IPv4 addresses or names", Needed: "at a host", Meaning: "the routers of the site (potential router list)"},
	{Table: TableTunnel, Modes: "`isatap`, `6bed4`", Name: "router", Values: "`isatap`: true, false; `6bed4`: an IPv4 address or name", Needed: "at a 6bed4 peer", Meaning: "in `isatap` whether this end is a router; left out: it is not; in `6bed4` the router"},
	{Table: TableTunnel, Modes: "`6over4`", Name: "scope", Values: "192 to 195", Default: "192", Meaning: "second byte of the IPv4 groups (RFC 2365)"},
	{Table: TableTunnel, Modes: "`teredo`", Name: "server2", Values: "an IPv4 address or name", Meaning: "at a client: the second address of the server; left out: the one after the first"},
	{Table: TableTunnel, Modes: "`teredo`", Name: "bind", Values: "two IPv4 addresses", Needed: "with role `server`", Meaning: "the two addresses of the server; `local` may be left out"},
	{Table: TableTunnel, Modes: "`teredo`", Name: "discovery", Values: "`yes`, `no`", Meaning: "at a client: whether it finds clients on the same link by multicast; left out: `yes`"},
	{Table: TableTunnel, Modes: "`teredo`", Name: "beside_native", Values: "`yes`, `no`", Meaning: "at a client: whether it runs although this host has native IPv6; left out: `no`"},
	{Table: TableTunnel, Modes: "`teredo`", Name: "measure_refresh", Values: "`yes`, `no`", Meaning: "at a client: whether it measures how long the NAT keeps a mapping, and asks the server less often if it can, with a second UDP port, beside `port`; left out: `no`"},
	{Table: TableTunnel, Modes: "`teredo`, `6bed4`", Name: "port", Values: "1 to 65535", Meaning: "UDP port of a Teredo client or relay or of a 6bed4 node; left out: at a 6bed4 router 25790, otherwise another one each time the daemon starts, so that it cannot be guessed"},
	{Table: TableTunnel, Modes: "`6bed4`", Name: "netid", Values: "0 to 65535", Meaning: "at a router, in place of `prefix`: the network is fc64:NETID:LOCAL::/64, where LOCAL is the IPv4 address `local`"},
	{Table: TableTunnel, Modes: "`6bed4`", Name: "direct", Values: "`yes`, `no`", Meaning: "at a peer: whether packets go directly to other peers where their NATs let them; left out: `yes`"},
	{Table: TableTunnel, Modes: "`lisp`", Name: "eid", Values: "prefixes", Needed: "always", Meaning: "at an xTR the prefixes of the site; at a proxy xTR those of all sites that it serves"},
	{Table: TableTunnel, Modes: "`lisp`", Name: "rloc", Values: "tables with `address`, `priority`, `weight`", Meaning: "at an xTR: the [locators](modes/lisp.md) of the site; left out: `local`, with priority 1 and weight 100"},
	{Table: TableTunnel, Modes: "`lisp`", Name: "map_resolver", Values: "addresses or names", Needed: "always", Meaning: "who is asked for the locators of other sites"},
	{Table: TableTunnel, Modes: "`lisp`", Name: "map_server", Values: "addresses or names", Meaning: "at an xTR: where the site registers; left out: it does not"},
	{Table: TableTunnel, Modes: "`lisp`", Name: "key_file", Values: "a file", Needed: "with `map_server`", Meaning: "the key that the map servers have for the site; the file must belong to root or the daemon's user, with mode 0600"},
	{Table: TableTunnel, Modes: "`lisp`", Name: "algorithm", Values: "`sha1`, `sha256`, `sha256-hkdf`", Meaning: "how registrations are authenticated: algorithm 1, 2 or 3 (RFC 9301 section 12.5); left out: `sha256`"},
	{Table: TableTunnel, Modes: "`lisp`", Name: "nonce_file", Values: "an absolute path", Meaning: "at an xTR: file, which the daemon makes, with the nonces of its registrations, which must not go back; left out: `/var/lib/sixfour/lisp.nonce`"},
	{Table: TableTunnel, Modes: "`lisp`", Name: "instance", Values: "0 to 16777215", Meaning: "instance identifier: prefixes of other instances are other prefixes; left out: 0, which is not sent"},
	{Table: TableTunnel, Modes: "`lisp`", Name: "proxy_etr", Values: "addresses or names", Meaning: "at an xTR: proxy xTRs to which packets to hosts outside all sites go; left out: these packets are dropped"},
	{Table: TableTunnel, Modes: "`lisp`", Name: "proxy_reply", Values: "true, false", Meaning: "at an xTR: map servers answer requests for the site themselves; left out: they pass requests on to it"},
	{Table: TableTunnel, Modes: "`lisp`", Name: "check_source", Values: "true, false", Meaning: "packets whose outer source is not a locator of their inner source are dropped, if the mapping of that is known; left out: they are accepted"},
}, clientReference(), PathReference(TablePath, "that of the tunnel"), []Key{
	{Table: TablePeer, Name: "name", Values: "at most 63 bytes without white space", Needed: "always", Meaning: "name of the peer in status, metrics and log"},
	{Table: TablePeer, Name: "remote", Values: "an address or a DNS name", Needed: "always", Meaning: "the peer's outer address"},
	{Table: TablePeer, Name: "remote6", Values: "an IPv6 address", Needed: "in `4in6in4` and stacks like it", Meaning: "the peer's address in the IPv6 layer"},
	{Table: TablePeer, Name: "allowed", Values: "prefixes", Needed: "always", Meaning: "prefixes behind the peer: packets to them go to this peer, and its packets must come from them"},
	{Table: TablePeer, Name: "probe", Values: "an inner address", Meaning: "as in `[[tunnel]]`; an address in `allowed`"},
}, PathReference(TablePeerPath, "that of the peer"), brokerReference, lispReference)
