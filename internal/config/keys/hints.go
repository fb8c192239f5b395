package keys

import (
	"fmt"

	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
)

// hints are for unknown keys.
var hints = tree.Hints{Synonyms: otherNames, Elsewhere: elsewhere}

// Read is tree.Read with the hints for unknown keys of this program.
func Read[T any](r *problem.Report, where string, t *tree.Value, rows []tree.Key[T], into T) tree.State {
	return tree.Read(r, where, t, rows, into, hints)
}

// otherNames are the names of keys in other programs, in lower case without "_" and "-".
var otherNames = map[string]string{
	"allowedips": "allowed", "endpoint": "remote", "dst": "remote", "destination": "remote", "remoteaddress": "remote", "remoteip": "remote",
	"src": "local", "source": "local", "localaddress": "local", "localip": "local",
	"type": "mode", "kind": "mode", "tunnelmode": "mode",
	"dev": "name", "device": "name", "interface": "name", "ifname": "name", "tun": "name",
	"ip": "address", "ipaddr": "address", "ipaddress": "address", "addr": "address", "addresses": "address", "network": "address",
	"mark": "fwmark", "firewallmark": "fwmark", "namespace": "netns", "networknamespace": "netns",
	"persistentkeepalive": "keepalive", "tos": "dscp", "df": "pmtu", "pmtudisc": "pmtu", "hoplimit": "hop_limit", "encaplimit": "encap_limit",
	"default": "default_route", "defaultroute": "default_route", "nat": "masquerade", "snat": "masquerade", "br": "border_relay", "prl": "routers",
	"loglevel": "level", "port": "listen",
}

// ModeSynonyms are the names of modes in Linux, on routers and in textbooks.
var ModeSynonyms = map[string]string{
	"sit": "6in4", "ipv6ip": "6in4", "ip6ip": "6in4", "ipv6overipv4": "6in4", "ipv6inipv4": "6in4", "6over4tunnel": "6in4", "he": "6in4",
	"ipip": "4in4", "ipv4inipv4": "4in4", "ip4ip4": "4in4", "ipip6": "4in6", "ip4ip6": "4in6", "ip4in6": "4in6", "ipv4ipv6": "4in6", "dslite": "4in6",
	"ip6ip6": "6in6", "ipv6ipv6": "6in6", "ip6tnl": "6in6", "ip6gre": "gre6", "grev6": "gre6", "gretap": "gre", "ipgre": "gre",
	"464": "4in6in4", "4over6over4": "4in6in4", "double": "4in6in4",
}

// tableOf returns the table to which a key belongs, if it is in the wrong one.
func tableOf(name, where string) string {
	words := []string{name, otherNames[tree.Fold(name)]}
	if where == TablePath || where == TablePeerPath {
		words = words[:1] // a port is not the listen of [metrics] there
	}
	for _, wanted := range words {
		for _, k := range Reference() {
			if k.Name == wanted && k.Table != where {
				return k.Table
			}
		}
	}
	if (name == "peer" || name == "path") && where != TableTunnel {
		return TableTunnel
	}
	return ""
}

// elsewhere says in which table an unknown key belongs, or returns "".
func elsewhere(name, where string) string {
	table := tableOf(name, where)
	switch {
	case table == "":
		return ""
	case name == "peer" || name == "path":
		return fmt.Sprintf("%ss are [[tunnel.%[1]s]], below the [[tunnel]] that they belong to", name)
	case table == TablePath && where == TablePeer:
		return "it belongs to " + TablePeerPath
	case table == TableTunnel && where == TablePeer:
		return "it belongs to [[tunnel]], whose keys stand before its first [[tunnel.peer]]"
	}
	for _, k := range Reference() {
		if k.Table == table && k.Name == name {
			return "it belongs to " + table
		}
	}
	return "it is " + problem.Quote(otherNames[tree.Fold(name)]) + " in " + table
}
