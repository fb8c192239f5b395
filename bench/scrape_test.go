package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/configfile"
	"sixfour/internal/engine"
	"sixfour/internal/metrics"
	"sixfour/internal/rig"
)

// scraper returns an HTTP client; dial is nil outside namespaces.
func scraper(dial func(context.Context, netip.AddrPort) (*net.TCPConn, error)) *http.Client {
	t := &http.Transport{}
	if dial != nil {
		t.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
			return dial(ctx, netip.MustParseAddrPort(address))
		}
	}
	return &http.Client{Transport: t, Timeout: time.Minute}
}

// scrape reads all metrics, and returns their size in bytes.
func scrape(c *http.Client, address string) (int64, error) {
	resp, err := c.Get("http://" + address + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("scrape: %s", resp.Status)
	}
	return n, err
}

// BenchmarkUnderScrapes sends small packets through a tunnel, in turns without reading
// metrics and with reading them ten times per second. The result is the ratio of the
// median pair. It needs root.
func BenchmarkUnderScrapes(b *testing.B) {
	const address, pairs = "127.0.0.1:9640", 9
	ns := namespaces(b, "[metrics]\n")
	client := scraper(ns[0].DialTCP)
	defer client.CloseIdleConnections()
	load := func() float64 {
		r, err := rig.Load(b.Context(), ns[0], ns[1], netip.AddrPortFrom(inner, 5001), rig.LoadOptions{UDP: true, Size: 64, Duration: time.Second})
		if err != nil {
			b.Fatal(err)
		}
		return r.PacketsPerSecond()
	}
	load() // warms up
	var without, with, ratios []float64
	for range pairs {
		quiet := load()
		done, ended := make(chan struct{}), make(chan error)
		go func() {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-done:
					ended <- nil
					return
				case <-tick.C:
					if _, err := scrape(client, address); err != nil {
						ended <- err
						return
					}
				}
			}
		}()
		watched := load()
		close(done)
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
		without, with, ratios = append(without, quiet), append(with, watched), append(ratios, watched/quiet)
	}
	b.ReportMetric(median(without), "packets/s")
	b.ReportMetric(median(with), "scraped-packets/s")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(0, "ns/op") // not shown: it has no meaning here
}

// many is the number of peers of a large hub.
const many = 10_000

// hub returns the engine of a hub, which does not run.
func hub(b *testing.B, peers int) *engine.Engine {
	var text strings.Builder
	text.WriteString("[[tunnel]]\nname = \"six0\"\nmode = \"6in4\"\nlocal = \"203.0.113.10\"\n")
	for i := range peers {
		fmt.Fprintf(&text, "[[tunnel.peer]]\nname = \"peer%d\"\nremote = \"198.18.%d.%d\"\nallowed = [\"2001:db8:%x::/48\"]\n", i, i>>8, i&0xff, i)
	}
	cfg, err := configfile.Parse("hub", []byte(text.String()))
	if err != nil {
		b.Fatal(err)
	}
	e, err := engine.New(cfg, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	return e
}

type noLogs struct{}

func (noLogs) Lost() uint64    { return 0 }
func (noLogs) Limited() uint64 { return 0 }

// BenchmarkScrape measures the cost of a scrape for the daemon, and that of its status
// alone.
func BenchmarkScrape(b *testing.B) {
	for _, peers := range []int{1, 100, many} {
		e := hub(b, peers)
		b.Run(fmt.Sprintf("status/%d", peers), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e.Status()
			}
		})
		b.Run(fmt.Sprintf("metrics/%d", peers), func(b *testing.B) {
			s, err := metrics.Listen("127.0.0.1:0", e, noLogs{}, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			client := scraper(nil)
			defer client.CloseIdleConnections()
			b.ReportAllocs()
			var n int64
			for b.Loop() {
				if n, err = scrape(client, s.Addr().String()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n), "bytes")
		})
	}
}

func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}
