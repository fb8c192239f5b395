package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"sixfour/internal/rig"
)

const listenLine = "[metrics]\nlisten = \"127.0.0.1:9640\"\n"

// ask sends a request to the metrics server in a namespace.
func ask(ns *rig.Namespace, path string) (code int, body string, err error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return ns.DialTCP(ctx, netip.MustParseAddrPort(address))
		},
	}}
	resp, err := client.Get("http://127.0.0.1:9640" + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// scrape returns the sum of the series of a metric that have the labels.
func scrape(t *testing.T, ns *rig.Namespace, name string, labels map[string]string) (sum float64, n int) {
	t.Helper()
	code, body, err := ask(ns, "/metrics")
	must(t, err)
	if code != http.StatusOK {
		t.Fatal(code, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(body))
	must(t, err)
	for _, m := range all[name].GetMetric() {
		missing := len(labels)
		for _, l := range m.GetLabel() {
			if v, ok := labels[l.GetName()]; ok && v == l.GetValue() {
				missing--
			}
		}
		if missing == 0 {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			n++
		}
	}
	return sum, n
}

// The counters are the same as in the status, and /readyz follows the state of the tunnel.
func TestMetrics(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1500)
	start(t, h.b, configB())
	a := start(t, h.a, listenLine+configA())
	reachable(t, h.a, inB)
	pings(t, h.a, inB, rig.PingOptions{Count: 10})
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body, err := ask(h.a, path); code != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %d %q, %v", path, code, body, err)
		}
	}
	six0 := map[string]string{"tunnel": "six0"}
	out, _ := scrape(t, h.a, "sixfour_packets_total", map[string]string{"tunnel": "six0", "direction": "out"})
	in, _ := scrape(t, h.a, "sixfour_packets_total", map[string]string{"tunnel": "six0", "direction": "in"})
	_, s := a.status(t)
	if out < 10 || in < 10 || uint64(out) > s.Out.Packets || uint64(in) > s.In.Packets {
		t.Errorf("%v packets out, %v in; the status has %+v", out, in, s)
	}
	if up, n := scrape(t, h.a, "sixfour_peer_up", six0); n != 1 || up != 1 {
		t.Errorf("peer_up: %v of %d", up, n)
	}
	if mtu, _ := scrape(t, h.a, "sixfour_path_mtu_bytes", six0); int(mtu) != s.State.PathMTU {
		t.Errorf("path MTU %v, the status has %d", mtu, s.State.PathMTU)
	}
	if ok, n := scrape(t, h.a, "sixfour_reloads_total", nil); ok != 0 || n != 2 {
		t.Errorf("%v reloads of %d kinds", ok, n)
	}

	must(t, h.a.LinkDown("va"))
	eventually(t, "not ready", func() error {
		code, body, err := ask(h.a, "/readyz")
		if code != http.StatusServiceUnavailable || !strings.HasPrefix(body, "six0: waiting for ") {
			return fmt.Errorf("%d %q, %w", code, body, err)
		}
		return nil
	})
	if ready, n := scrape(t, h.a, "sixfour_tunnel_ready", six0); n != 1 || ready != 0 {
		t.Errorf("tunnel_ready: %v of %d", ready, n)
	}
	if code, body, err := ask(h.a, "/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d %q, %v", code, body, err)
	}
	must(t, h.a.LinkUp("va"))
	eventually(t, "ready again", func() error {
		code, body, err := ask(h.a, "/readyz")
		if code != http.StatusOK {
			return fmt.Errorf("%d %q, %w", code, body, err)
		}
		return nil
	})
	if code := a.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit status %d", code)
	}
}
