package ctl

import (
	"net/netip"
	"testing"
	"time"

	"sixfour/internal/api"
)

// The status of a map server has its sites, and what does not work.
func TestReportMapServer(t *testing.T) {
	at := began.Add(-12 * time.Second)
	m := &api.MapServerStatus{
		Store: "/var/lib/sixfour/lisp.db", Error: "the disk is full", Sites: 30, Registered: 2, Prefixes: 5,
		Served: map[string]uint64{"replied": 3, "registered": 14}, Refused: map[string]uint64{"wrong_key": 3},
		Listeners: []api.MapServerListener{{Address: netip.MustParseAddrPort("203.0.113.53:4342"), Error: "another program listens there"}},
		SiteList: []api.MapServerSite{
			{Name: "b", Refused: map[string]uint64{"wrong_key": 3}},
			{Name: "a", Prefixes: 4, LastRegistered: &at, From: netip.MustParseAddrPort("192.0.2.1:4342")},
			{Name: "c", Prefixes: 1},
		},
	}
	want := `lisp
  store      the disk is full
  sites      2 of 30 registered, with 5 prefixes, kept in /var/lib/sixfour/lisp.db
  messages   registered 14, replied 3
  refused    wrong_key 3
  listener   203.0.113.53:4342: another program listens there
  site       b: nothing is registered; refused: wrong_key 3
  site       a: 4 prefixes, by 192.0.2.1 12s ago
  site       c: 1 prefixes, since before the start
`
	if got := lines(api.Status{LISP: m}, began); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	m.SiteList = make([]api.MapServerSite, 30)
	r := reporter{now: began}
	r.mapServer(m)
	if n := len(r.lines); n != 6+maxShownSites+1 {
		t.Errorf("%d lines", n)
	}
}
