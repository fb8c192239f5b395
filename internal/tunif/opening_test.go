package tunif

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"sixfour/internal/capture"
	"sixfour/internal/icmpreply"
	"sixfour/internal/iface"
	"sixfour/internal/netns"
	"sixfour/internal/ports"
	"sixfour/internal/report"
	"sixfour/internal/rig"
)

// closer are senders to close.
type closer struct{}

func (closer) Close() {}

// A tunnel waits for an interface that was never complete; what goes missing later stops
// nothing, unless the interface itself is lost.
func TestWaits(t *testing.T) {
	i, _ := newInterface()
	kept, senders := ports.NewKept(nil, nil, zap.NewNop()), closer{}
	if w := i.Waits(); w != "" {
		t.Errorf("at the start: %q", w)
	}
	i.Lack(errors.New("one\ntwo"))
	if w := i.Waits(); w != "its interface: one; two" {
		t.Errorf("%q", w)
	}
	if d := i.Due(time.Hour, time.Millisecond); d != Retry {
		t.Errorf("due in %v", d)
	}
	_, err := netns.Identify("sixfour-none")
	i.Lack(err)
	if w := i.Waits(); !strings.HasPrefix(w, "its ") || !strings.Contains(w, "network namespace") {
		t.Errorf("%q", w)
	}
	if made := i.Again(func() { t.Error("an attempt before it is due") }); made {
		t.Error("made")
	}
	i.Lose(Loss{Waits: "its namespace", Repair: report.Namespace, AtOnce: true}, kept, senders)
	tried := false
	if i.Again(func() { tried = true }) || !tried || i.Waits() != "its namespace" {
		t.Errorf("tried: %v, waits for %q", tried, i.Waits())
	}
}

// An interface is made, completed after a change from outside, renumbered, and made again
// when it was deleted.
func TestInterface(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ns, err := rig.New("opening")
	must(err)
	t.Cleanup(ns.Close)
	one, two := netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.0.1.1/24")
	route := netip.MustParsePrefix("10.9.0.0/16")
	i, noted := newInterface()
	i.tunnel.Queues, i.tunnel.Captures = 1, new(capture.Set)
	i.tunnel.Reply = icmpreply.New(ns.Path(), &i.Index, zap.NewNop())
	kept, senders := ports.NewKept(nil, nil, zap.NewNop()), closer{}
	s := iface.Settings{Name: "six0", Namespace: ns.Path(), MTU: 1400, Queues: 1, Addresses: []netip.Prefix{one}, Routes: []netip.Prefix{route}}
	lost := make(chan struct{}, 2)
	open := func() { must(i.OpenKept(kept, s, func() { lost <- struct{}{} })) }
	open()
	t.Cleanup(func() { i.Close(senders) })
	link := func() netlink.Link {
		t.Helper()
		l, err := ns.Handle().LinkByName("six0")
		must(err)
		return l
	}
	has := func(want ...netip.Prefix) {
		t.Helper()
		list, err := ns.Handle().AddrList(link(), netlink.FAMILY_V4)
		must(err)
		var got []netip.Prefix
		for _, a := range list {
			got = append(got, netip.MustParsePrefix(a.IPNet.String()))
		}
		if !slices.Equal(got, want) {
			t.Errorf("addresses %v, want %v", got, want)
		}
	}
	has(one)
	if i.Link == nil || i.Waits() != "" || i.IsDown() || i.IsGone() {
		t.Errorf("waits for %q", i.Waits())
	}
	addr, err := netlink.ParseAddr(one.String())
	must(err)
	must(ns.Handle().AddrDel(link(), addr))
	i.Touch()
	if i.Check() {
		t.Fatal("gone")
	}
	has(one)
	if r := i.report.Repairs(); r["address"] != 1 {
		t.Errorf("repairs %v", r)
	}
	i.restoring.next = time.Time{} // as if the pause were over
	must(ns.Handle().LinkSetDown(link()))
	if i.Touch(); i.Check() || !i.IsDown() {
		t.Error("it is not down")
	}
	must(ns.Handle().LinkSetUp(link()))
	if i.Touch(); i.Check() || i.IsDown() {
		t.Error("it is down")
	}
	if !i.Renumber([]netip.Prefix{two}, s.Routes) || i.Renumber([]netip.Prefix{two}, s.Routes) {
		t.Error("a change must be reported once")
	}
	has(two)
	i.SetMTU(1380)
	if mtu := link().Attrs().MTU; mtu != 1380 || i.tunnel.MTU.Load() != 1380 {
		t.Errorf("MTU %d", mtu)
	}
	must(ns.Handle().LinkDel(link()))
	<-lost
	if !i.IsGone() {
		t.Fatal("it is not gone")
	}
	i.Lose(Loss{Waits: "its interface", Repair: report.Interface, Text: "made again", AtOnce: true}, kept, senders)
	if i.Link != nil || i.Waits() != "its interface" {
		t.Errorf("waits for %q", i.Waits())
	}
	if !i.Again(open) || i.Link == nil || i.report.Repairs()["interface"] != 1 {
		t.Errorf("not made again: %v", i.report.Repairs())
	}
	has(one)
	if len(*noted) > 0 {
		t.Errorf("errors: %q", *noted)
	}
}
