package metrics

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// prefix is the prefix of all our metric names.
const prefix = "sixfour_"

// Labels. The peer is empty for the only peer of a tunnel, which has no name, and for
// packets that belong to no peer. The tunnel is empty for packets that belong to no
// tunnel.
const (
	labelTunnel    = "tunnel"
	labelPeer      = "peer"
	labelDirection = "direction" // in: from the outer network; out: to the outer network
	labelReason    = "reason"
	labelType      = "type"
	labelState     = "state"
	labelResult    = "result"
	labelWhat      = "what"
	labelPath      = "path"     // of several paths to a peer, in the order of the configuration, from 1
	labelProtocol  = "protocol" // of the broker's clients
	labelAccount   = "account"  // of the broker
	labelEncap     = "encap"    // what the packets of a path travel in, as in the configuration
)

// family holds the properties of all metrics with one name.
type family struct {
	name   string
	help   string
	kind   prometheus.ValueType
	labels []string
	desc   *prometheus.Desc
}

// families are all families that the collector can send, in the order of the manual.
var families []*family

func counter(name, help string, labels ...string) *family {
	return newFamily(prometheus.CounterValue, name, help, labels)
}

func gauge(name, help string, labels ...string) *family {
	return newFamily(prometheus.GaugeValue, name, help, labels)
}

func newFamily(kind prometheus.ValueType, name, help string, labels []string) *family {
	f := &family{prefix + name, help, kind, labels, prometheus.NewDesc(prefix+name, help, labels, nil)}
	families = append(families, f)
	return f
}

// pairs returns labels with values in the order of the family's labels, sorted by name
// as in the exposition format. Families with the same labels may share them.
func (f *family) pairs(values []string) []*dto.LabelPair {
	pairs := make([]*dto.LabelPair, len(f.labels))
	for i := range f.labels {
		pairs[i] = &dto.LabelPair{Name: &f.labels[i], Value: &values[i]}
	}
	slices.SortFunc(pairs, func(a, b *dto.LabelPair) int { return strings.Compare(*a.Name, *b.Name) })
	return pairs
}

// stateNumbers returns the help text that explains the numbers of states.
func stateNumbers() string {
	var words []string
	for i, s := range states {
		words = append(words, string(rune('0'+i))+" "+string(s))
	}
	return strings.Join(words, ", ")
}

var (
	packets    = counter("packets_total", "Inner packets carried; in: received from peers and written to the interface.", labelTunnel, labelPeer, labelDirection)
	bytesTotal = counter("bytes_total", "Bytes of the inner packets carried.", labelTunnel, labelPeer, labelDirection)
	drops      = counter("drops_total", "Packets not carried, each counted under one reason; the label tunnel is empty for packets of no tunnel.", labelTunnel, labelPeer, labelDirection, labelReason)
	icmps      = counter("icmp_total", "ICMP errors; in: about our outer packets; out: to inner senders.", labelTunnel, labelPeer, labelDirection, labelType)
	ignored    = counter("icmp_ignored_total", "ICMP errors that were ignored: about packets that were not sent, or not plausible.", labelTunnel, labelPeer)
	limited    = counter("icmp_limited_total", "ICMP errors not sent to inner senders because of the rate limit.", labelTunnel)

	up         = gauge("peer_up", "Whether the peer answers or, without keepalive, whether packets can be sent to it; 1 also while it is suspect.", labelTunnel, labelPeer)
	state      = gauge("peer_state", "State of the peer: "+stateNumbers()+".", labelTunnel, labelPeer)
	since      = gauge("peer_state_since_timestamp_seconds", "When the peer entered its state.", labelTunnel, labelPeer)
	lastHeard  = gauge("peer_heard_timestamp_seconds", "When the last packet came from the peer, as far as known.", labelTunnel, labelPeer)
	rtt        = gauge("peer_rtt_seconds", "Smoothed round-trip time of keepalive probes; absent while not known.", labelTunnel, labelPeer)
	loss       = gauge("peer_loss_ratio", "Share of the last 20 keepalive probes that was not answered, 0 to 1.", labelTunnel, labelPeer)
	sent       = counter("peer_probes_sent_total", "Keepalive probes sent.", labelTunnel, labelPeer)
	lost       = counter("peer_probes_lost_total", "Keepalive probes not answered in time.", labelTunnel, labelPeer)
	answered   = counter("peer_echo_answered_total", "Echo requests and keepalives of the peer that were answered.", labelTunnel, labelPeer)
	pathMTU    = gauge("path_mtu_bytes", "Path MTU to the peer, of outer packets; absent while not known.", labelTunnel, labelPeer)
	mtuSent    = counter("path_mtu_probes_sent_total", "Probes sent to find the path MTU.", labelTunnel, labelPeer)
	mtuAnswers = counter("path_mtu_probes_answered_total", "Probes of the path MTU that were answered.", labelTunnel, labelPeer)
	oddECN     = counter("ecn_odd_total", "Packets with an invalid combination of inner and outer ECN fields (RFC 6040 section 4.2).", labelTunnel, labelPeer)
	wraps      = counter("ipid_wraps_total", "Times that IPv4 identifications repeated too soon (RFC 6864 section 4.3).", labelTunnel, labelPeer)

	pathUp      = gauge("peer_path_up", "Whether the peer answers on one of several paths; as sixfour_peer_up.", labelTunnel, labelPeer, labelPath, labelEncap)
	pathState   = gauge("peer_path_state", "State of one of several paths, with the numbers of sixfour_peer_state.", labelTunnel, labelPeer, labelPath, labelEncap)
	pathShare   = gauge("peer_path_share_ratio", "Share of the flows to the peer that use the path, 0 to 1.", labelTunnel, labelPeer, labelPath, labelEncap)
	pathRTT     = gauge("peer_path_rtt_seconds", "Smoothed round-trip time of the path's keepalive probes; absent while not known.", labelTunnel, labelPeer, labelPath, labelEncap)
	pathLoss    = gauge("peer_path_loss_ratio", "Share of the path's last 20 keepalive probes that was not answered, 0 to 1.", labelTunnel, labelPeer, labelPath, labelEncap)
	pathSent    = counter("peer_path_probes_sent_total", "Keepalive probes sent on the path.", labelTunnel, labelPeer, labelPath, labelEncap)
	pathLost    = counter("peer_path_probes_lost_total", "Keepalive probes on the path not answered in time.", labelTunnel, labelPeer, labelPath, labelEncap)
	onePathMTU  = gauge("peer_path_mtu_bytes", "Path MTU of one of several paths, of outer packets; absent while not known.", labelTunnel, labelPeer, labelPath, labelEncap)
	pathPackets = counter("peer_path_packets_total", "Inner packets that one of several paths carried.", labelTunnel, labelPeer, labelPath, labelEncap, labelDirection)
	pathBytes   = counter("peer_path_bytes_total", "Bytes of the inner packets that one of several paths carried.", labelTunnel, labelPeer, labelPath, labelEncap, labelDirection)

	info      = gauge("tunnel_info", "Describes the tunnel by labels; always 1.", labelTunnel, "mode", "netns")
	ready     = gauge("tunnel_ready", "Whether the tunnel can carry packets to at least one of its peers.", labelTunnel)
	peers     = gauge("tunnel_peers", "Peers of the tunnel in each state.", labelTunnel, labelState)
	tunnelMTU = gauge("tunnel_mtu_bytes", "MTU of the tunnel's interface; absent while it cannot carry packets.", labelTunnel)
	repairs   = counter("repairs_total", "Automatic repairs by kind: interface, address, route, socket, name, namespace, or panic.", labelTunnel, labelWhat)

	sessionUp       = gauge("session_up", "Whether there is a session with the server of the tunnel; absent in modes without one.", labelTunnel)
	sessionAttempts = counter("session_attempts_total", "Attempts to get or to keep the session with the server; result: success or failure.", labelTunnel, labelResult)

	brokerClients  = gauge("broker_clients", "Clients of the broker that are connected; absent without [broker].", labelProtocol)
	brokerRefused  = counter("broker_refused_total", "Clients that the broker has refused, by reason.", labelProtocol, labelReason)
	brokerAccounts = gauge("broker_accounts", "Accounts of the broker.")
	brokerLeases   = gauge("broker_leases", "Prefixes of the broker that are given away.")
	brokerFree     = gauge("broker_free_prefixes", "Prefixes of the usual length that the broker can still give away.")
	brokerReady    = gauge("broker_ready", "Whether the broker can read its accounts and leases; otherwise it refuses all clients.")
	brokerPackets  = counter("broker_client_packets_total", "Inner packets of a client that is connected; from the client: in.", labelAccount, labelDirection)
	brokerBytes    = counter("broker_client_bytes_total", "Bytes of the inner packets of a client that is connected.", labelAccount, labelDirection)

	lispSites    = gauge("lisp_sites", "Sites of the LISP map server; state: registered or unregistered. Absent without [lisp].", labelState)
	lispPrefixes = gauge("lisp_prefixes", "Prefixes that are registered with the LISP map server.")
	lispReady    = gauge("lisp_ready", "Whether the LISP map server can store the nonces of registrations; otherwise it refuses all.")
	lispServed   = counter("lisp_messages_total", "Messages that the LISP map server has served: registrations, requests that it has forwarded, replies with a mapping, and that there is none.", labelWhat)
	lispRefused  = counter("lisp_refused_total", "Messages that the LISP map server has refused, by reason.", labelReason)

	defaultRoute = gauge("gateway_default_route_active", "Whether all packets without another route go into the tunnel; absent without default_route.", labelTunnel)
	masquerading = gauge("gateway_masquerade_active", "Whether packets from the tunnels leave through the interface with this host's address; absent without masquerade.", "interface")

	shareActive = gauge("gateway_share_active", "Whether packets into the tunnel are translated to an IPv4 address that other hosts have, too (modes map_e and lw4o6); absent otherwise.", labelTunnel)
	sharePorts  = gauge("gateway_share_ports", "How many ports of that address belong to this host.", labelTunnel)

	reloads    = counter("reloads_total", "Reloads of the configuration; result: success or failure.", labelResult)
	reloadedAt = gauge("reload_timestamp_seconds", "When the configuration was last reloaded; 0: never.")
	reloadedOK = gauge("reload_success", "Whether the last reload succeeded; 1 if there was none.")
	build      = gauge("build_info", "Describes the program by labels; always 1.", "version", "commit", "goversion")
	started    = gauge("start_timestamp_seconds", "When the daemon started.")
	logLost    = counter("log_lines_lost_total", "Log lines that could not be written: full disk, or a reader that ended or was too slow.")
	logLimited = counter("log_lines_limited_total", "Log lines not logged because there were too many similar ones.")
)
