package importing

import (
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestCommandOfLink(t *testing.T) {
	named := func(name string, mtu int) netlink.LinkAttrs { return netlink.LinkAttrs{Name: name, MTU: mtu} }
	a, b := net.IPv4(203, 0, 113, 10), net.IPv4(203, 0, 113, 20)
	a6, b6 := net.ParseIP("2001:db8::10"), net.ParseIP("2001:db8::20")
	for _, c := range []struct {
		link netlink.Link
		want string
	}{
		{&netlink.Sittun{LinkAttrs: named("six0", 1480), Local: a, Remote: b, Ttl: 64, Tos: 1, PMtuDisc: 1}, "ip link add name 'six0' type sit local 203.0.113.10 remote 203.0.113.20 ttl 64 tos inherit"},
		{&netlink.Sittun{LinkAttrs: named("sit0", 1480)}, ""},
		{&netlink.Sittun{LinkAttrs: named("it's", 1280), Local: a, Remote: net.IPv4zero}, `ip link add name 'it'\''s' mtu 1280 type sit local 203.0.113.10 ttl inherit tos 0 nopmtudisc`},
		{&netlink.Iptun{LinkAttrs: named("t", 1400), Local: a, Remote: b, Ttl: 255, Tos: 0x20, PMtuDisc: 1, EncapType: 2, EncapFlags: 1, EncapSport: 6080, EncapDport: 6080},
			"ip link add name 't' mtu 1400 type ipip local 203.0.113.10 remote 203.0.113.20 ttl 255 tos 20 encap gue encap-sport 6080 encap-dport 6080 encap-csum"},
		{&netlink.Gretun{LinkAttrs: named("g", 1476), Local: a, Remote: b, Ttl: 64, Tos: 1, PMtuDisc: 1, IFlags: 0xa000, OFlags: 0xb000, IKey: 1, OKey: 2},
			"ip link add name 'g' type gre local 203.0.113.10 remote 203.0.113.20 ikey 1 okey 2 csum oseq ttl 64 tos inherit"},
		{&netlink.Gretun{LinkAttrs: named("g6", 1448), Local: a6, Remote: b6, Ttl: 64, EncapType: 1, EncapDport: 4754},
			"ip link add name 'g6' type ip6gre local 2001:db8::10 remote 2001:db8::20 hoplimit 64 encap fou encap-sport auto encap-dport 4754 noencap-csum"},
		{&netlink.Ip6tnl{LinkAttrs: named("t6", 1460), Local: a6, Remote: b6, Proto: 4, Ttl: 64, Flags: ignoreEncapLimit | inheritClass | inheritFlowLabel},
			"ip link add name 't6' type ip6tnl mode ipip6 local 2001:db8::10 remote 2001:db8::20 hoplimit 64 encaplimit none tclass inherit flowlabel inherit"},
		{&netlink.Dummy{LinkAttrs: named("d", 1500)}, ""},
		{&netlink.Wireguard{LinkAttrs: named("wg0", 1420)}, "ip link add name 'wg0' mtu 1420 type wireguard"},
	} {
		if got := commandOfLink(c.link); got != c.want {
			t.Errorf("%s\nwant %s", got, c.want)
		}
	}
}

// A namespace without tunnels. Package interop has one with tunnels: a kernel need not have
// them.
func TestKernelWithoutTunnels(t *testing.T) {
	type result struct {
		file File
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{err: err}
			return
		}
		file, err := Kernel()
		done <- result{file, err}
	}()
	r := <-done
	if r.err != nil || strings.Contains(string(r.file.Data), "link add") {
		t.Errorf("%s, %v", r.file.Data, r.err)
	}
}
