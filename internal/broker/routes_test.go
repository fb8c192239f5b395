package broker

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport/access"
)

// routeOf returns the route of one of many clients.
func routeOf(i int) Route {
	at := func(host int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8:ff:%x::%d", i, host)) }
	return Route{netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8:100:%x::", i)), 64), access.Endpoint{Broker: at(1), Client: at(2)}}
}

// counted returns how many routes of a table lead to a device.
func counted(t *testing.T, dev string, table int) (n int) {
	t.Helper()
	link, err := netlink.LinkByName(dev)
	rigtest.Must(t, err)
	list, err := netlink.RouteListFiltered(unix.AF_INET6, &netlink.Route{LinkIndex: link.Attrs().Index, Table: table}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	rigtest.Must(t, err)
	for _, r := range list {
		if r.Protocol == unix.RTPROT_BOOT {
			n++
		}
	}
	return n
}

// Many routes are added at once, come back after the interface was down or is another one, and
// go with their clients. A prefix that is routed into the interface anyway is left alone.
func TestRoutes(t *testing.T) {
	clients := 1000
	if n, err := strconv.Atoi(os.Getenv("SIXFOUR_ROUTES")); err == nil {
		clients = n
	}
	ns, other := rigtest.Enter(t, "server"), rigtest.Namespace(t, "other")
	r, err := NewRoutes("six0", zap.NewNop())
	rigtest.Must(t, err)
	r.Leave([]netip.Prefix{routeOf(0xffff).Prefix})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = ns.Do(func() error { r.Run(ctx); return nil })
	}()
	defer func() { cancel(); <-done }()
	for i := range clients {
		r.Add(routeOf(i))
	}
	up := func() {
		t.Helper()
		rigtest.Must(t, rig.Veth(ns, "six0", other, "far", 1500))
		rigtest.Must(t, other.LinkUp("far"))
		rigtest.Must(t, ns.AddAddr("six0", netip.MustParsePrefix("fd00::1/64"))) // it has IPv6 then
		rigtest.Must(t, ns.LinkUp("six0"))
	}
	want := func(what string, main, local int) {
		t.Helper()
		begun := time.Now()
		for deadline := begun.Add(30 * time.Second); counted(t, "six0", unix.RT_TABLE_MAIN) != main || counted(t, "six0", unix.RT_TABLE_LOCAL) != local; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d routes and %d local ones, want %d and %d", what, counted(t, "six0", unix.RT_TABLE_MAIN), counted(t, "six0", unix.RT_TABLE_LOCAL), main, local)
			}
		}
		t.Logf("%s: %d routes after %v", what, main+local, time.Since(begun))
	}
	up()
	want("there is an interface", 2*clients, clients)
	rigtest.Must(t, ns.LinkDown("six0"))
	rigtest.Must(t, ns.LinkUp("six0"))
	want("it was down", 2*clients, clients)
	rigtest.Must(t, ns.DelLink("six0"))
	up()
	want("it is another one", 2*clients, clients)
	r.Add(routeOf(0xffff))
	for i := range clients / 2 {
		r.Remove(routeOf(i))
	}
	r.Remove(routeOf(clients - 1)) // and at once again
	r.Add(routeOf(clients - 1))
	want("half of the clients have left", 2*(clients-clients/2)+1, clients-clients/2+1)
	res, err := rig.Ping(t.Context(), ns, routeOf(clients-1).Endpoint.Broker, rig.PingOptions{Count: 1, Timeout: 5 * time.Second})
	if err != nil || res.Received != 1 {
		t.Errorf("the broker's end does not answer: %+v, %v", res, err)
	}
	for i := range clients {
		r.Remove(routeOf(i))
	}
	r.Remove(routeOf(0xffff))
	want("all have left", 0, 0)
}
