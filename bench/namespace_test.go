package bench

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sixfour/internal/rig"
)

// inner is the other end of the tunnel between the namespaces.
var inner = netip.MustParseAddr("10.0.0.2")

// namespaces returns two namespaces, each with a daemon that has lines at the beginning
// of its configuration, and a tunnel between them that works. It needs root.
func namespaces(b *testing.B, lines string) (ns [2]*rig.Namespace) {
	for i, name := range []string{"A", "B"} {
		n, err := rig.New(name)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(n.Close)
		ns[i] = n
	}
	if err := rig.Veth(ns[0], "va", ns[1], "vb", 1500); err != nil {
		b.Fatal(err)
	}
	for i, dev := range []string{"va", "vb"} {
		if err := ns[i].AddAddr(dev, netip.PrefixFrom([]netip.Addr{left.Local, left.Remote}[i], 24)); err != nil {
			b.Fatal(err)
		}
	}
	dir := b.TempDir()
	program := filepath.Join(dir, "sixfourd")
	if out, err := exec.Command("go", "build", "-o", program, "sixfour/cmd/sixfourd").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	for i := range 2 {
		o := 1 - i
		end := []string{"1", "2"}
		outer := []netip.Addr{left.Local, left.Remote}
		path := filepath.Join(dir, end[i]+".toml")
		config := lines + fmt.Sprintf("[control]\nsocket = %q\n[[tunnel]]\nname = \"six0\"\nmode = \"4in6in4\"\nlocal = \"%v\"\nremote = \"%v\"\nlocal6 = \"fc00::%s\"\nremote6 = \"fc00::%s\"\naddress = [\"10.0.0.%s/30\"]\n",
			filepath.Join(dir, end[i]+".sock"), outer[i], outer[o], end[i], end[o], end[i])
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			b.Fatal(err)
		}
		var log strings.Builder
		cmd := exec.Command(program, "-config", path)
		cmd.Stderr = &log
		if err := ns[i].Start(cmd); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
			if b.Failed() {
				b.Log(log.String())
			}
		})
	}
	waitFor(b, ns[0], inner)
	return ns
}

// BenchmarkNamespaces sends through two daemons between two namespaces and, for
// comparison, over the veth pair alone. Only the ratios within one run are meaningful.
func BenchmarkNamespaces(b *testing.B) {
	ns := namespaces(b, "")
	for _, path := range []struct {
		name string
		addr netip.Addr
	}{{"tunnel", inner}, {"veth", left.Remote}} {
		b.Run(path.name+"/tcp", func(b *testing.B) {
			measure(b, ns, path.addr, rig.LoadOptions{}, func(r rig.LoadResult) (float64, string) { return r.BytesPerSecond() * 8 / 1e9, "Gbit/s" })
		})
		b.Run(path.name+"/udp64", func(b *testing.B) {
			measure(b, ns, path.addr, rig.LoadOptions{UDP: true, Size: 64}, func(r rig.LoadResult) (float64, string) { return r.PacketsPerSecond(), "packets/s" })
		})
		b.Run(path.name+"/ping", func(b *testing.B) {
			res, err := rig.Ping(b.Context(), ns[0], path.addr, rig.PingOptions{Count: max(b.N, 2), Size: 56})
			if err != nil || res.Received != res.Sent {
				b.Fatalf("%d of %d answered: %v", res.Received, res.Sent, err)
			}
			slices.Sort(res.RTTs)
			b.ReportMetric(float64(res.RTTs[len(res.RTTs)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(res.RTTs[len(res.RTTs)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// measure runs a load for a second, whatever b.N is, and reports its rate.
func measure(b *testing.B, ns [2]*rig.Namespace, to netip.Addr, o rig.LoadOptions, rate func(rig.LoadResult) (float64, string)) {
	o.Duration = time.Second
	r, err := rig.Load(b.Context(), ns[0], ns[1], netip.AddrPortFrom(to, 5001), o)
	if err != nil {
		b.Fatal(err)
	}
	value, unit := rate(r)
	b.ReportMetric(value, unit)
	b.ReportMetric(0, "ns/op") // not shown: it has no meaning here
}

func waitFor(b *testing.B, from *rig.Namespace, to netip.Addr) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		res, err := rig.Ping(b.Context(), from, to, rig.PingOptions{Timeout: 100 * time.Millisecond})
		if err != nil {
			b.Fatal(err)
		}
		if res.Received > 0 {
			return
		}
	}
	b.Fatalf("%v is not reached", to)
}
