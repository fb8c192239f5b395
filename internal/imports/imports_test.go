// Package imports holds the tests that keep the rules of the tree: which package may import
// which, and how large packages, files and structs may be.
package imports

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// rules are the packages of this module that a package, or everything below it
// (/...), may import; a package without a rule may import any.
var rules = map[string][]string{
	"sixfour/encap/drop":            {},
	"sixfour/encap/header":          {"sixfour/encap/drop"},
	"sixfour/encap/jsontun":         {"sixfour/encap/header"},
	"sixfour/encap/nd":              {"sixfour/encap/drop", "sixfour/encap/header"},
	"sixfour/encap/heartbeat":       {},
	"sixfour/encap/tic":             {},
	"sixfour/encap/ayiya":           {},
	"sixfour/encap/rendezvous":      {"sixfour/encap/header"},
	"sixfour/encap/tsp":             {},
	"sixfour/encap/resolve":         {"sixfour/encap/drop", "sixfour/encap/header", "sixfour/encap/nd"},
	"sixfour/encap/source":          {"sixfour/encap/drop", "sixfour/encap/header", "sixfour/encap/resolve"},
	"sixfour/encap/fragment":        {"sixfour/encap/drop", "sixfour/encap/header"},
	"sixfour/encap/framing":         {"sixfour/encap/drop", "sixfour/encap/header", "sixfour/encap/seal", "sixfour/encap/sixa44", "sixfour/encap/sixbed4", "sixfour/encap/teredo"},
	"sixfour/encap/teredo":          {"sixfour/encap/header"},
	"sixfour/encap/agent":           {"sixfour/encap/drop", "sixfour/encap/header", "sixfour/encap/resolve"},
	"sixfour/encap/sixa44":          {"sixfour/encap/header"},
	"sixfour/encap/sixa44/node":     {"sixfour/encap/agent", "sixfour/encap/drop", "sixfour/encap/framing", "sixfour/encap/header", "sixfour/encap/resolve", "sixfour/encap/sixa44", "sixfour/encap/teredo"},
	"sixfour/encap/mape":            {},
	"sixfour/encap/seal":            {"sixfour/encap/drop", "sixfour/encap/header"},
	"sixfour/encap/mape/node":       {"sixfour/encap/drop", "sixfour/encap/header", "sixfour/encap/icmp", "sixfour/encap/mape", "sixfour/encap/resolve"},
	"sixfour/encap/lisp":            {"sixfour/encap/header"},
	"sixfour/encap/agent/agenttest": {"sixfour/encap/agent", "sixfour/encap/drop", "sixfour/encap/header", "sixfour/encap/resolve"},
	"sixfour/encap/sixbed4":         {"sixfour/encap/header", "sixfour/encap/nd"},
	"sixfour/encap/lisp/node":       {"sixfour/encap/drop", "sixfour/encap/framing", "sixfour/encap/header", "sixfour/encap/lisp", "sixfour/encap/resolve"},
	"sixfour/encap/sixbed4/node":    {"sixfour/encap/agent", "sixfour/encap/drop", "sixfour/encap/framing", "sixfour/encap/header", "sixfour/encap/nd", "sixfour/encap/resolve", "sixfour/encap/sixbed4", "sixfour/encap/teredo"},
	"sixfour/encap/teredo/node":     {"sixfour/encap/agent", "sixfour/encap/drop", "sixfour/encap/framing", "sixfour/encap/header", "sixfour/encap/nd", "sixfour/encap/resolve", "sixfour/encap/teredo"},
	"sixfour/encap":                 {"sixfour/encap/drop", "sixfour/encap/fragment", "sixfour/encap/framing", "sixfour/encap/header", "sixfour/encap/resolve", "sixfour/encap/seal", "sixfour/encap/source"},
	"sixfour/transport/wait":        {},
	"sixfour/tun":                   {"sixfour/encap/drop", "sixfour/encap/header", "sixfour/transport/wait"},
	"sixfour/transport/filter":      {"sixfour/encap/header"},
	"sixfour/transport":             {"sixfour/encap/drop", "sixfour/encap/header", "sixfour/transport/filter", "sixfour/transport/wait"},
	"sixfour/transport/access":      {"sixfour/encap/drop", "sixfour/encap/header", "sixfour/encap/resolve", "sixfour/transport", "sixfour/transport/queue"},
	"sixfour/transport/ayiya":       {"sixfour/encap/ayiya", "sixfour/encap/drop", "sixfour/encap/header", "sixfour/transport", "sixfour/transport/access"},
	"sixfour/transport/datagrams":   {"sixfour/encap/header", "sixfour/transport"},
	"sixfour/transport/tsp":         {"sixfour/encap/drop", "sixfour/encap/header", "sixfour/encap/icmp", "sixfour/encap/tsp", "sixfour/transport", "sixfour/transport/access", "sixfour/transport/netsock"},
	"sixfour/transport/kernel":      {"sixfour/encap", "sixfour/encap/framing", "sixfour/encap/header"},
	"sixfour/transport/xdp":         {"sixfour/encap/header", "sixfour/transport", "sixfour/transport/wait"},
	"sixfour/transport/wiretest":    {"sixfour/encap/header", "sixfour/internal/rig", "sixfour/internal/rig/rigtest", "sixfour/transport"},
	"sixfour/encap/icmp":            {"sixfour/encap/header"},
	"sixfour/internal/api":          {},
	"sixfour/internal/liveness":     {},
	"sixfour/internal/pathmtu":      {},
	"sixfour/internal/arena":        {},
	"sixfour/internal/ports":        {"sixfour/encap/header", "sixfour/transport"},
	"sixfour/internal/probe":        {"sixfour/encap", "sixfour/encap/header", "sixfour/encap/icmp"},
	"sixfour/internal/firewall":     {"sixfour/encap/header"},
	"sixfour/internal/bypass":       {"sixfour/encap/header", "sixfour/internal/firewall"},
	"sixfour/internal/address":      {"sixfour/encap/header", "sixfour/encap/mape", "sixfour/encap/sixbed4", "sixfour/encap/resolve"},

	"sixfour/internal/config":           {"sixfour/encap", "sixfour/encap/framing", "sixfour/encap/mape", "sixfour/encap/resolve", "sixfour/internal/config/problem"},
	"sixfour/internal/config/problem":   {},
	"sixfour/internal/config/tree":      {"sixfour/internal/config/problem", "sixfour/internal/text"},
	"sixfour/internal/config/value":     {"sixfour/encap/framing", "sixfour/internal/config", "sixfour/internal/config/problem", "sixfour/internal/config/tree"},
	"sixfour/internal/config/mechanism": {"sixfour/encap", "sixfour/encap/framing", "sixfour/encap/header", "sixfour/encap/lisp", "sixfour/encap/lisp/node", "sixfour/encap/mape", "sixfour/encap/mape/node", "sixfour/encap/resolve", "sixfour/encap/sixa44", "sixfour/encap/sixa44/node", "sixfour/encap/sixbed4", "sixfour/encap/sixbed4/node", "sixfour/encap/teredo", "sixfour/encap/teredo/node", "sixfour/internal/config", "sixfour/internal/config/problem", "sixfour/internal/config/tree", "sixfour/internal/config/value", "sixfour/internal/text"},
	"sixfour/internal/config/client":    {"sixfour/internal/config", "sixfour/internal/config/problem", "sixfour/internal/config/tree", "sixfour/internal/config/value"},
	"sixfour/internal/config/keys":      {"sixfour/encap", "sixfour/internal/config", "sixfour/internal/config/problem", "sixfour/internal/config/tree", "sixfour/internal/selection"},
	"sixfour/internal/config/section":   {"sixfour/encap", "sixfour/internal/config", "sixfour/internal/config/keys", "sixfour/internal/config/problem", "sixfour/internal/config/tree", "sixfour/internal/config/value"},
	"sixfour/internal/configfile":       {"sixfour/encap", "sixfour/encap/framing", "sixfour/encap/header", "sixfour/encap/resolve", "sixfour/encap/seal", "sixfour/internal/config", "sixfour/internal/config/client", "sixfour/internal/config/keys", "sixfour/internal/config/mechanism", "sixfour/internal/config/problem", "sixfour/internal/config/section", "sixfour/internal/config/tree", "sixfour/internal/config/value", "sixfour/internal/selection", "sixfour/internal/trusted"},

	"sixfour/transport/wireguard": {"sixfour/encap/header", "sixfour/transport"},

	"sixfour/internal/session/heartbeat": {"sixfour/encap/drop", "sixfour/encap/header", "sixfour/encap/heartbeat", "sixfour/transport/access"},
	"sixfour/internal/session/tic":       {"sixfour/encap/tic", "sixfour/transport/access"},

	"sixfour/internal/rtnl":                {},
	"sixfour/internal/netns":               {},
	"sixfour/internal/nft":                 {},
	"sixfour/internal/netcfg":              {"sixfour/internal/netns", "sixfour/internal/rtnl"},
	"sixfour/internal/iface":               {"sixfour/internal/netns", "sixfour/internal/rtnl", "sixfour/tun"},
	"sixfour/internal/pcapng":              {},
	"sixfour/internal/pcapfilter":          {"sixfour/encap/header"},
	"sixfour/internal/capture":             {"sixfour/encap/drop", "sixfour/internal/pcapfilter", "sixfour/internal/pcapng", "sixfour/internal/version"},
	"sixfour/internal/decode":              {"sixfour/encap/header", "sixfour/encap/sixbed4", "sixfour/encap/teredo", "sixfour/internal/pcapng"},
	"sixfour/internal/events":              {"sixfour/internal/api"},
	"sixfour/internal/readiness":           {},
	"sixfour/internal/recovery":            {},
	"sixfour/internal/icmpreply":           {"sixfour/encap/header", "sixfour/encap/icmp", "sixfour/internal/api", "sixfour/internal/netns", "sixfour/transport"},
	"sixfour/internal/xdpports":            {"sixfour/encap", "sixfour/internal/datapath", "sixfour/internal/netcfg", "sixfour/transport", "sixfour/transport/xdp"},
	"sixfour/internal/arrival":             {"sixfour/internal/datapath", "sixfour/internal/netcfg", "sixfour/internal/nft", "sixfour/internal/ports", "sixfour/internal/wiring", "sixfour/internal/xdpports", "sixfour/transport", "sixfour/transport/xdp"},
	"sixfour/internal/agents":              {"sixfour/encap", "sixfour/encap/drop", "sixfour/encap/header", "sixfour/encap/resolve", "sixfour/internal/capture", "sixfour/internal/datapath", "sixfour/internal/pcapng", "sixfour/internal/recovery", "sixfour/internal/tally", "sixfour/transport"},
	"sixfour/internal/report":              {"sixfour/encap/drop", "sixfour/encap/icmp", "sixfour/encap/resolve", "sixfour/internal/api", "sixfour/internal/datapath", "sixfour/internal/events", "sixfour/internal/keepalive", "sixfour/internal/liveness", "sixfour/internal/selection", "sixfour/internal/text"},
	"sixfour/internal/hostwatch":           {"sixfour/encap/source", "sixfour/internal/netcfg", "sixfour/internal/netns", "sixfour/internal/nft", "sixfour/internal/recovery"},
	"sixfour/internal/tunif":               {"sixfour/encap/drop", "sixfour/encap/resolve", "sixfour/internal/api", "sixfour/internal/datapath", "sixfour/internal/iface", "sixfour/internal/netns", "sixfour/internal/ports", "sixfour/internal/report"},
	"sixfour/internal/pathchoice":          {"sixfour/internal/api", "sixfour/internal/datapath", "sixfour/internal/liveness", "sixfour/internal/report", "sixfour/internal/selection"},
	"sixfour/internal/selfroute":           {"sixfour/internal/netcfg"},
	"sixfour/internal/names":               {"sixfour/internal/config"},
	"sixfour/internal/ddns":                {"sixfour/internal/api", "sixfour/internal/config", "sixfour/internal/datapath", "sixfour/internal/version"},
	"sixfour/internal/wiring":              {"sixfour/encap", "sixfour/encap/header", "sixfour/encap/icmp", "sixfour/encap/source", "sixfour/internal/config", "sixfour/internal/datapath", "sixfour/internal/liveness", "sixfour/internal/pathmtu", "sixfour/internal/ports", "sixfour/internal/probe", "sixfour/transport", "sixfour/transport/xdp"},
	"sixfour/internal/broker":              {"sixfour/encap/drop", "sixfour/encap/header", "sixfour/encap/heartbeat", "sixfour/encap/tic", "sixfour/internal/api", "sixfour/internal/config", "sixfour/internal/config/mechanism", "sixfour/internal/config/problem", "sixfour/internal/events", "sixfour/internal/hostwatch", "sixfour/internal/leases", "sixfour/internal/ndproxy", "sixfour/internal/nft", "sixfour/internal/probe", "sixfour/internal/rtnl", "sixfour/internal/session/heartbeat", "sixfour/internal/session/tic", "sixfour/internal/sessions", "sixfour/internal/store", "sixfour/internal/store/etcd", "sixfour/internal/text", "sixfour/transport", "sixfour/transport/access", "sixfour/transport/ayiya", "sixfour/transport/jsontun", "sixfour/transport/tsp"},
	"sixfour/internal/mapserver":           {"sixfour/encap/lisp", "sixfour/internal/api", "sixfour/internal/store", "sixfour/transport", "sixfour/transport/netsock"},
	"sixfour/internal/ndproxy":             {"sixfour/encap/header", "sixfour/encap/nd"},
	"sixfour/internal/site":                {"sixfour/encap/resolve"},
	"sixfour/internal/gateway":             {"sixfour/encap/mape", "sixfour/internal/api", "sixfour/internal/config", "sixfour/internal/netcfg", "sixfour/internal/nft"},
	"sixfour/internal/selection":           {"sixfour/internal/api"},
	"sixfour/internal/tally":               {"sixfour/encap/drop", "sixfour/encap/header", "sixfour/internal/api", "sixfour/internal/capture", "sixfour/internal/pcapng"},
	"sixfour/internal/datapath":            {"sixfour/encap", "sixfour/encap/framing", "sixfour/encap/drop", "sixfour/encap/fragment", "sixfour/encap/header", "sixfour/encap/icmp", "sixfour/encap/jsontun", "sixfour/encap/nd", "sixfour/encap/resolve", "sixfour/encap/seal", "sixfour/encap/source", "sixfour/internal/api", "sixfour/internal/arena", "sixfour/internal/capture", "sixfour/internal/icmpreply", "sixfour/internal/liveness", "sixfour/internal/pathmtu", "sixfour/internal/pcapng", "sixfour/internal/probe", "sixfour/internal/recovery", "sixfour/internal/tally", "sixfour/internal/twoways", "sixfour/transport", "sixfour/transport/datagrams", "sixfour/transport/wait", "sixfour/transport/xdp", "sixfour/tun"},
	"sixfour/internal/probing":             {"sixfour/encap", "sixfour/encap/framing", "sixfour/encap/drop", "sixfour/encap/fragment", "sixfour/encap/header", "sixfour/encap/icmp", "sixfour/encap/resolve", "sixfour/internal/api", "sixfour/internal/datapath", "sixfour/internal/pathmtu", "sixfour/internal/probe"},
	"sixfour/internal/discovery":           {"sixfour/encap", "sixfour/encap/header", "sixfour/encap/icmp", "sixfour/internal/datapath", "sixfour/internal/pathmtu", "sixfour/internal/probing", "sixfour/internal/recovery"},
	"sixfour/internal/keepalive":           {"sixfour/encap", "sixfour/encap/framing", "sixfour/internal/api", "sixfour/internal/datapath", "sixfour/internal/liveness", "sixfour/internal/probe", "sixfour/internal/probing", "sixfour/internal/recovery"},
	"sixfour/internal/observing":           {"sixfour/encap", "sixfour/encap/icmp", "sixfour/internal/datapath", "sixfour/internal/discovery", "sixfour/internal/keepalive", "sixfour/internal/liveness", "sixfour/internal/probing"},
	"sixfour/internal/kernelpath":          {"sixfour/encap", "sixfour/encap/source", "sixfour/internal/config", "sixfour/internal/datapath", "sixfour/internal/netcfg", "sixfour/transport/kernel"},
	"sixfour/internal/twoways":             {},
	"sixfour/internal/roaming":             {"sixfour/encap/drop", "sixfour/encap/header", "sixfour/encap/rendezvous", "sixfour/internal/recovery", "sixfour/transport"},
	"sixfour/internal/sessions":            {"sixfour/internal/config", "sixfour/internal/ports", "sixfour/internal/trusted", "sixfour/transport", "sixfour/transport/access", "sixfour/encap/ayiya", "sixfour/encap/tsp", "sixfour/transport/ayiya", "sixfour/transport/jsontun", "sixfour/transport/tsp", "sixfour/transport/connectip", "sixfour/transport/wireguard"},
	"sixfour/internal/meeting":             {"sixfour/encap/rendezvous", "sixfour/internal/config", "sixfour/internal/datapath", "sixfour/internal/ports", "sixfour/internal/roaming", "sixfour/internal/sessions", "sixfour/internal/wiring", "sixfour/transport"},
	"sixfour/internal/engine":              {"sixfour/internal/wiring", "sixfour/internal/selfroute", "sixfour/encap", "sixfour/encap/header", "sixfour/encap/icmp", "sixfour/encap/resolve", "sixfour/encap/source", "sixfour/internal/agents", "sixfour/internal/api", "sixfour/internal/arrival", "sixfour/internal/capture", "sixfour/internal/config", "sixfour/internal/datapath", "sixfour/internal/ddns", "sixfour/internal/discovery", "sixfour/internal/events", "sixfour/internal/gateway", "sixfour/internal/hostwatch", "sixfour/internal/icmpreply", "sixfour/internal/iface", "sixfour/internal/keepalive", "sixfour/internal/kernelpath", "sixfour/internal/observing", "sixfour/internal/liveness", "sixfour/internal/meeting", "sixfour/internal/sessions", "sixfour/internal/names", "sixfour/internal/netcfg", "sixfour/internal/netns", "sixfour/internal/nft", "sixfour/internal/pathchoice", "sixfour/internal/pathmtu", "sixfour/internal/ports", "sixfour/internal/probe", "sixfour/internal/probing", "sixfour/internal/readiness", "sixfour/internal/report", "sixfour/internal/site", "sixfour/internal/text", "sixfour/internal/tunif", "sixfour/internal/version", "sixfour/internal/xdpports", "sixfour/transport", "sixfour/transport/wait", "sixfour/transport/xdp", "sixfour/tun"},
	"sixfour/internal/control":             {"sixfour/internal/api", "sixfour/internal/fair", "sixfour/internal/text", "sixfour/internal/trusted", "sixfour/internal/version", "sixfour/internal/capture"},
	"sixfour/internal/ctl":                 {"sixfour/encap/mape", "sixfour/internal/importing", "sixfour/internal/ctl/accounts", "sixfour/internal/capture", "sixfour/internal/decode", "sixfour/internal/pcapng", "sixfour/internal/address", "sixfour/internal/demo", "sixfour/internal/doctor", "sixfour/internal/api", "sixfour/internal/usage", "sixfour/internal/text", "sixfour/internal/trusted", "sixfour/internal/version", "sixfour/internal/control/client", "sixfour/internal/doctor/finding", "sixfour/internal/doctor/subject"},
	"sixfour/internal/manual":              {"sixfour/internal/config/keys", "sixfour/internal/configfile", "sixfour/internal/ctl", "sixfour/internal/usage"},
	"sixfour/internal/ctl/accounts":        {"sixfour/internal/api", "sixfour/internal/control/client", "sixfour/internal/text", "sixfour/internal/trusted"},
	"sixfour/internal/importing":           {"sixfour/internal/importing/host"},
	"sixfour/internal/importing/host":      {"sixfour/internal/config/problem", "sixfour/internal/configfile"},
	"sixfour/internal/usage":               {},
	"sixfour/internal/store":               {"sixfour/internal/trusted"},
	"sixfour/internal/store/etcd":          {"sixfour/internal/store"},
	"sixfour/internal/store/etcd/etcdtest": {"sixfour/internal/rig", "sixfour/internal/rig/rigtest"},
	"sixfour/internal/leases":              {"sixfour/internal/api", "sixfour/internal/store", "sixfour/transport/access"},
	"sixfour/internal/logging":             {"sixfour/internal/text"},
	"sixfour/internal/text":                {},
	"sixfour/internal/trusted":             {},
	"sixfour/internal/metrics":             {"sixfour/internal/api", "sixfour/internal/fair", "sixfour/internal/text", "sixfour/internal/version"},
	"sixfour/internal/privilege":           {"sixfour/internal/config", "sixfour/internal/config/problem", "sixfour/internal/netns", "sixfour/internal/nft", "sixfour/internal/trusted"},
	"sixfour/internal/rig":                 {},
	"sixfour/internal/rig/rigtest":         {"sixfour/internal/rig"},
	"sixfour/internal/systemd":             {"sixfour/internal/text"},
	"sixfour/internal/vectors":             {},
	"sixfour/internal/fair":                {},
	"sixfour/internal/packaging":           {},
	"sixfour/internal/version":             {},
	"sixfour/internal/interop":             {"sixfour/internal/rig"},
	"sixfour/internal/imports":             {},
	"sixfour/internal/e2e":                 {"sixfour/internal/rig"},
	"sixfour/internal/differential":        {"sixfour/internal/rig"},
	"sixfour/internal/doctor":              {"sixfour/encap/resolve", "sixfour/encap/teredo", "sixfour/encap/teredo/node", "sixfour/internal/doctor/nat", "sixfour/internal/api", "sixfour/internal/config", "sixfour/internal/control/client", "sixfour/internal/doctor/finding", "sixfour/internal/doctor/packetfilter", "sixfour/internal/doctor/peercheck", "sixfour/internal/doctor/prober", "sixfour/internal/doctor/subject", "sixfour/internal/doctor/tunnelcheck", "sixfour/internal/firewall", "sixfour/internal/netcfg", "sixfour/internal/probe"},
	"sixfour/internal/demo":                {"sixfour/internal/text", "sixfour/internal/decode", "sixfour/internal/rig", "sixfour/internal/api", "sixfour/internal/trusted", "sixfour/internal/control/client"},
	"sixfour/internal/interop/*":           {"sixfour/internal/rig"},

	"sixfour/internal/control/client": {"sixfour/internal/api", "sixfour/internal/capture", "sixfour/internal/version"},

	"sixfour/internal/doctor/nat": {"sixfour/encap/header", "sixfour/encap/teredo"},

	"sixfour/internal/doctor/finding": {"sixfour/internal/netns"},

	"sixfour/internal/doctor/prober": {"sixfour/encap", "sixfour/encap/framing", "sixfour/encap/drop", "sixfour/encap/fragment", "sixfour/encap/header", "sixfour/encap/icmp", "sixfour/encap/resolve", "sixfour/encap/source", "sixfour/internal/config", "sixfour/internal/netns", "sixfour/internal/probe", "sixfour/transport"},

	"sixfour/internal/doctor/subject": {"sixfour/encap", "sixfour/encap/framing", "sixfour/encap/resolve", "sixfour/internal/api", "sixfour/internal/config", "sixfour/internal/config/problem", "sixfour/internal/configfile", "sixfour/internal/control/client", "sixfour/internal/doctor/finding", "sixfour/internal/doctor/prober", "sixfour/internal/firewall", "sixfour/internal/netcfg", "sixfour/internal/netns"},

	"sixfour/internal/doctor/packetfilter": {"sixfour/encap/header", "sixfour/encap/icmp", "sixfour/internal/doctor/finding", "sixfour/internal/firewall"},

	"sixfour/internal/doctor/tunnelcheck": {"sixfour/internal/api", "sixfour/internal/config", "sixfour/internal/doctor/finding", "sixfour/internal/doctor/packetfilter", "sixfour/internal/doctor/subject", "sixfour/internal/firewall", "sixfour/internal/netcfg", "sixfour/internal/netns"},

	"sixfour/internal/doctor/peercheck": {"sixfour/encap", "sixfour/encap/framing", "sixfour/encap/header", "sixfour/encap/icmp", "sixfour/encap/resolve", "sixfour/internal/api", "sixfour/internal/config", "sixfour/internal/control/client", "sixfour/internal/doctor/finding", "sixfour/internal/doctor/packetfilter", "sixfour/internal/doctor/prober", "sixfour/internal/doctor/subject", "sixfour/internal/firewall", "sixfour/internal/netcfg", "sixfour/internal/netns", "sixfour/internal/nft", "sixfour/internal/probe"},

	"sixfour/internal/grants": {"sixfour/encap", "sixfour/encap/tic", "sixfour/internal/api", "sixfour/internal/config", "sixfour/internal/session/heartbeat", "sixfour/internal/session/tic", "sixfour/internal/text"},

	"sixfour/transport/connectip": {"sixfour/encap/header", "sixfour/transport", "sixfour/transport/h3", "sixfour/transport/netsock", "sixfour/transport/queue"},
	"sixfour/transport/queue":     {"sixfour/encap/header", "sixfour/transport"},
	"sixfour/transport/h3":        {},
	"sixfour/transport/jsontun":   {"sixfour/encap/drop", "sixfour/encap/header", "sixfour/encap/jsontun", "sixfour/transport", "sixfour/transport/access", "sixfour/transport/netsock", "sixfour/transport/queue"},
	"sixfour/transport/netsock":   {"sixfour/transport"},
}

// libraries must be usable by others: whatever they import, and what that
// imports, knows no configuration, no logger and no metrics library.
var (
	libraries = []string{
		"sixfour/encap",
		"sixfour/encap/ayiya",
		"sixfour/encap/fragment",
		"sixfour/encap/framing",
		"sixfour/encap/header",
		"sixfour/encap/heartbeat",
		"sixfour/encap/icmp",
		"sixfour/encap/mape",
		"sixfour/encap/mape/node",
		"sixfour/encap/nd",
		"sixfour/encap/rendezvous",
		"sixfour/encap/resolve",
		"sixfour/encap/seal",
		"sixfour/encap/sixa44",
		"sixfour/encap/sixa44/node",
		"sixfour/encap/sixbed4",
		"sixfour/encap/lisp/node",
		"sixfour/encap/sixbed4/node",
		"sixfour/encap/source",
		"sixfour/encap/teredo",
		"sixfour/encap/teredo/node",
		"sixfour/encap/tic",
		"sixfour/encap/tsp",
		"sixfour/transport",
		"sixfour/transport/access",
		"sixfour/transport/ayiya",
		"sixfour/transport/connectip",
		"sixfour/transport/filter",
		"sixfour/transport/h3",
		"sixfour/transport/jsontun",
		"sixfour/transport/kernel",
		"sixfour/transport/netsock",
		"sixfour/transport/queue",
		"sixfour/transport/tsp",
		"sixfour/transport/wait",
		"sixfour/transport/wireguard",
		"sixfour/transport/xdp",
		"sixfour/tun",
	}
	forbidden = []string{"sixfour/internal/", "go.uber.org/zap", "github.com/pelletier/", "github.com/prometheus/", "github.com/spf13/"}
)

// inTheDaemon lists packages that the daemon must not link: gopacket is for tests and for
// decoding in sixfourctl (package pcapng says what it would cost here), and pprof would show
// the memory of the process to every client that may read metrics.
var inTheDaemon = []string{"github.com/google/gopacket", "github.com/gopacket/gopacket", "net/http/pprof"}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestImportRules(t *testing.T) {
	found := 0
	for _, line := range goList(t, "-deps", "-f", `{{if not .Standard}}{{.ImportPath}} {{join .Imports " "}}{{end}}`, "./...") {
		pkg, imports, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(pkg, "sixfour/") {
			continue
		}
		allowed, ok := rules[pkg]
		if !ok {
			if strings.HasPrefix(pkg, "sixfour/internal/interop/") {
				allowed, ok = rules["sixfour/internal/interop/*"], true
			} else if strings.HasPrefix(pkg, "sixfour/cmd/") || pkg == "sixfour/bench" || strings.HasPrefix(pkg, "sixfour/bench/") {
				continue
			}
		}
		if !ok {
			t.Errorf("%s has no rule: add one that says what it may import", pkg)
			continue
		}
		found++
		for _, i := range strings.Fields(imports) {
			if strings.HasPrefix(i, "sixfour/") && !slices.Contains(allowed, i) {
				t.Errorf("%s imports %s", pkg, i)
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d packages seen", found)
	}
}

func TestLibrariesStandAlone(t *testing.T) {
	for _, lib := range libraries {
		for _, dep := range goList(t, "-deps", lib) {
			for _, f := range forbidden {
				if strings.HasPrefix(dep, f) {
					t.Errorf("%s depends on %s", lib, dep)
				}
			}
		}
	}
}

func TestDaemonDependencies(t *testing.T) {
	for _, dep := range goList(t, "-deps", "./cmd/sixfourd") {
		if slices.ContainsFunc(inTheDaemon, func(path string) bool { return strings.HasPrefix(dep, path) }) {
			t.Errorf("cmd/sixfourd depends on %s", dep)
		}
	}
}
