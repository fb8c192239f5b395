package metrics

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"sixfour/encap/drop"
	"sixfour/internal/version"
)

// exposed returns the families that a daemon shows, as Prometheus parses them.
func exposed(t *testing.T, d Daemon) map[string]*dto.MetricFamily {
	t.Helper()
	code, body := get(t, serve(t, d)+"/metrics")
	if code != 200 {
		t.Fatal(code, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(body + "\n"))
	if err != nil {
		t.Fatalf("%v in\n%s", err, body)
	}
	return all
}

// series returns the values of our families, by the name and the labels that are not
// empty.
func series(t *testing.T, d Daemon) map[string]float64 {
	t.Helper()
	values := make(map[string]float64)
	for name, f := range exposed(t, d) {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		for _, m := range f.GetMetric() {
			key := strings.TrimPrefix(name, prefix)
			for _, l := range m.GetLabel() {
				if l.GetValue() != "" {
					key += " " + l.GetName() + "=" + l.GetValue()
				}
			}
			values[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

func TestExposition(t *testing.T) {
	b := version.Get()
	want := map[string]float64{
		"build_info commit=" + b.Commit + " goversion=" + b.Go + " version=" + b.Release: 1,
		"start_timestamp_seconds": 1700000000.5,
		"log_lines_lost_total":    19, "log_lines_limited_total": 20,
		"drops_total direction=in reason=foreign_source": 18,
		"reloads_total result=success":                   21, "reloads_total result=failure": 22, "reload_timestamp_seconds": 1700000000.5, "reload_success": 0,

		"gateway_default_route_active tunnel=six0": 1, "gateway_masquerade_active interface=eth0": 1, "gateway_masquerade_active interface=ppp0": 0,
		"gateway_share_active tunnel=six0": 1, "gateway_share_ports tunnel=six0": 36,

		"broker_ready": 1, "broker_accounts": 31, "broker_leases": 32, "broker_free_prefixes": 33, "broker_clients protocol=ayiya": 34,
		"broker_refused_total protocol=tic reason=wrong_secret":        35,
		"broker_client_packets_total account=" + odd + " direction=in": 29, "broker_client_packets_total account=" + odd + " direction=out": 27,
		"broker_client_bytes_total account=" + odd + " direction=in": 30, "broker_client_bytes_total account=" + odd + " direction=out": 28,

		"lisp_sites state=registered": 37, "lisp_sites state=unregistered": 2, "lisp_prefixes": 38, "lisp_ready": 1,
		"lisp_messages_total what=replied": 40, "lisp_refused_total reason=wrong_key": 41,

		"tunnel_info mode=4in6in4 tunnel=six0": 1, "tunnel_ready tunnel=six0": 1, "tunnel_mtu_bytes tunnel=six0": 1440,
		"repairs_total tunnel=six0 what=route": 17,
		"session_up tunnel=six0":               1, "session_attempts_total result=success tunnel=six0": 25, "session_attempts_total result=failure tunnel=six0": 26,
		"packets_total direction=in tunnel=six0":   1,
		"packets_total direction=out tunnel=six0":  3,
		"bytes_total direction=in tunnel=six0":     100,
		"bytes_total direction=out tunnel=six0":    300,
		"icmp_limited_total tunnel=six0":           9,
		"tunnel_peers state=up tunnel=six0":        1,
		"tunnel_peers state=waiting tunnel=" + odd: 1,

		"drops_total direction=in reason=martian tunnel=six0":        2,
		"drops_total direction=out reason=too_big tunnel=six0":       4,
		"icmp_total direction=out tunnel=six0 type=too_big":          6,
		"icmp_total direction=in tunnel=six0 type=unreachable":       1,
		"icmp_total direction=in tunnel=six0 type=too_big":           2,
		"icmp_total direction=in tunnel=six0 type=time_exceeded":     3,
		"icmp_total direction=in tunnel=six0 type=parameter_problem": 4,
		"icmp_total direction=in tunnel=six0 type=other":             5,

		"packets_total direction=in tunnel=hub":                             0,
		"packets_total direction=out tunnel=hub":                            0,
		"bytes_total direction=in tunnel=hub":                               0,
		"bytes_total direction=out tunnel=hub":                              0,
		"packets_total direction=in peer=b tunnel=hub":                      10,
		"packets_total direction=out peer=" + odd + " tunnel=hub":           40,
		"drops_total direction=out reason=no_peer tunnel=hub":               8,
		"drops_total direction=in reason=interface_down tunnel=hub":         2,
		"drops_total direction=in peer=b reason=martian tunnel=hub":         1,
		"drops_total direction=in peer=" + odd + " reason=spoof tunnel=hub": 1,
		"tunnel_info mode=6in4 netns=n tunnel=hub":                          1,
		"tunnel_peers state=up tunnel=hub":                                  1,
		"tunnel_peers state=suspect tunnel=hub":                             1,
		"tunnel_peers state=down tunnel=hub":                                0,

		"peer_path_up encap=none path=1 peer=" + odd + " tunnel=hub": 0, "peer_path_up encap=fou path=2 peer=" + odd + " tunnel=hub": 1,
		"peer_path_state encap=none path=1 peer=" + odd + " tunnel=hub": 1, "peer_path_state encap=fou path=2 peer=" + odd + " tunnel=hub": 4,
		"peer_path_share_ratio encap=none path=1 peer=" + odd + " tunnel=hub": 0, "peer_path_share_ratio encap=fou path=2 peer=" + odd + " tunnel=hub": 1,
		"peer_path_rtt_seconds encap=fou path=2 peer=" + odd + " tunnel=hub":                 0.025,
		"peer_path_loss_ratio encap=fou path=2 peer=" + odd + " tunnel=hub":                  0.5,
		"peer_path_probes_sent_total encap=fou path=2 peer=" + odd + " tunnel=hub":           23,
		"peer_path_probes_lost_total encap=fou path=2 peer=" + odd + " tunnel=hub":           24,
		"peer_path_mtu_bytes encap=fou path=2 peer=" + odd + " tunnel=hub":                   1480,
		"peer_path_packets_total direction=in encap=none path=1 peer=" + odd + " tunnel=hub": 25,
		"peer_path_packets_total direction=out encap=fou path=2 peer=" + odd + " tunnel=hub": 40,
		"peer_path_bytes_total direction=in encap=fou path=2 peer=" + odd + " tunnel=hub":    500,

		"tunnel_ready tunnel=" + odd: 0, "peer_up tunnel=" + odd: 0, "peer_state tunnel=" + odd: 1,
	}
	for name, v := range map[string]float64{
		"icmp_ignored_total": 7, "peer_up": 1, "peer_state": 5, "peer_state_since_timestamp_seconds": 1700000000.5, "peer_heard_timestamp_seconds": 1700000000.5,
		"peer_rtt_seconds": 0.016, "peer_loss_ratio": 0.25, "peer_probes_sent_total": 14, "peer_probes_lost_total": 15, "peer_echo_answered_total": 5,
		"path_mtu_bytes": 1500, "path_mtu_probes_sent_total": 10, "path_mtu_probes_answered_total": 11, "ecn_odd_total": 12, "ipid_wraps_total": 13,
	} {
		want[name+" tunnel=six0"] = v
		want[name+" peer=b tunnel=hub"] = v
	}
	want["peer_up peer="+odd+" tunnel=hub"] = 1 // suspect
	want["peer_state peer="+odd+" tunnel=hub"] = 4
	got := series(t, busy())
	for key, v := range want {
		if g, ok := got[key]; !ok || g != v {
			t.Errorf("%s is %v (there: %v), want %v", key, g, ok, v)
		}
	}
	for _, absent := range []string{
		"path_mtu_bytes tunnel=" + odd, "peer_rtt_seconds tunnel=" + odd, "peer_heard_timestamp_seconds tunnel=" + odd, "tunnel_mtu_bytes tunnel=" + odd,
		"drops_total direction=in reason=martian tunnel=hub", "packets_total direction=in",
		"peer_path_rtt_seconds encap=none path=1 peer=" + odd + " tunnel=hub", "peer_path_mtu_bytes encap=none path=1 peer=" + odd + " tunnel=hub",
		"peer_path_up encap=none path=1 tunnel=six0", "peer_path_up encap=none path=1 peer=b tunnel=hub",
	} {
		if v, ok := got[absent]; ok {
			t.Errorf("%s is %v: it must be absent", absent, v)
		}
	}
}

// TestLint checks names, types and help texts as promtool does.
func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(registry(busy(), counts{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestFamilies: each family has a sample, with its labels and its type.
func TestFamilies(t *testing.T) {
	all := exposed(t, busy())
	names := make(map[string]bool)
	for _, f := range families {
		names[f.name] = true
		shown := all[f.name]
		if shown == nil {
			t.Errorf("%s is not shown", f.name)
			continue
		}
		if kind := strings.ToLower(shown.GetType().String()); kind != f.typeName() || shown.GetHelp() != f.help {
			t.Errorf("%s is a %s: %s", f.name, kind, shown.GetHelp())
		}
		labels := slices.Sorted(slices.Values(f.labels))
		for _, m := range shown.GetMetric() {
			var has []string
			for _, l := range m.GetLabel() {
				has = append(has, l.GetName())
			}
			if !slices.Equal(slices.Sorted(slices.Values(has)), labels) {
				t.Errorf("%s has labels %v, want %v", f.name, has, labels)
			}
		}
	}
	for name := range all {
		switch {
		case names[name], strings.HasPrefix(name, "go_"), strings.HasPrefix(name, "process_"):
		default:
			t.Errorf("%s is shown and nowhere listed", name)
		}
	}
}

// TestDropsAddUp: each drop has one reason, a word of package drop, and the sum is the
// daemon's.
func TestDropsAddUp(t *testing.T) {
	words := make(map[string]bool)
	for r := range drop.Count {
		words[r.String()] = true
	}
	d := busy()
	want := make(map[string]float64)
	for _, s := range d.status.Tunnels {
		for _, by := range []map[string]uint64{s.In.Drops, s.Out.Drops} {
			for reason, n := range by {
				want[s.Name+" "+reason] += float64(n)
			}
		}
	}
	for reason, n := range d.status.Stray.Drops {
		want[" "+reason] += float64(n)
	}
	got := make(map[string]float64)
	for _, m := range exposed(t, busy())[prefix+"drops_total"].GetMetric() {
		labels := make(map[string]string)
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if !words[labels["reason"]] {
			t.Errorf("there is no reason %q", labels["reason"])
		}
		got[labels["tunnel"]+" "+labels["reason"]] += m.GetCounter().GetValue()
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
