package configfile

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// manyPeers returns a hub with n peers, each with a prefix of its own.
func manyPeers(n int) string {
	var b strings.Builder
	b.WriteString("[[tunnel]]\nname = 'hub'\nmode = '6in4'\nlocal = '192.0.2.1'\naddress = ['2001:db8::1/32']\n")
	for i := range n {
		fmt.Fprintf(&b, "[[tunnel.peer]]\nname = 'peer%d'\nremote = '10.%d.%d.%d'\nallowed = ['2001:db8:%x:%x::/64']\n",
			i, i>>16, i>>8&255, i&255, i>>16, i&0xffff)
	}
	return b.String()
}

func TestManyPeers(t *testing.T) {
	c, err := Parse("f", []byte(manyPeers(100_000)))
	if err != nil {
		t.Fatal(err)
	}
	if got := len(c.Tunnels[0].Peers); got != 100_000 {
		t.Errorf("%d peers", got)
	}
}

// What is needed while a file is read does not stay in memory.
func TestPeerMemory(t *testing.T) {
	const peers, most = 10_000, 600 // bytes of a peer; with its draft they are 870
	data := []byte(manyPeers(peers))
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	c, err := Parse("f", data)
	if err != nil {
		t.Fatal(err)
	}
	if per := (heap() - before) / peers; per > most {
		t.Errorf("a peer needs %d bytes, want at most %d", per, most)
	} else {
		t.Logf("a peer needs %d bytes", per)
	}
	runtime.KeepAlive(c)
	runtime.KeepAlive(data)
}

func BenchmarkPeers(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			data := []byte(manyPeers(n))
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := Parse("f", data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
