package doctor

import (
	"net/netip"
	"strings"
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/subject"
)

func TestMapServer(t *testing.T) {
	here := []api.MapServerListener{{Address: netip.MustParseAddrPort("127.0.0.1:4342")}}
	for _, c := range []struct {
		of      *api.MapServerStatus
		verdict finding.Verdict
		text    string
	}{
		{nil, finding.Fail, "not at a reload"},
		{&api.MapServerStatus{Error: "the disk is full"}, finding.Fail, "the disk is full"},
		{&api.MapServerStatus{Listeners: []api.MapServerListener{{Address: netip.MustParseAddrPort("192.0.2.1:4342")}}}, finding.Fail, "does not have the address"},
		{&api.MapServerStatus{Listeners: []api.MapServerListener{{Address: here[0].Address, Error: "in use"}}}, finding.Fail, "in use"},
		{&api.MapServerStatus{Listeners: here, SiteList: []api.MapServerSite{{Name: "b", Refused: map[string]uint64{"old_nonce": 1, "wrong_key": 3}}}}, finding.Fail, "site b has registered nothing, and its registrations are refused: wrong_key"},
		{&api.MapServerStatus{Listeners: here, Sites: 2, Registered: 1, Prefixes: 5, SiteList: []api.MapServerSite{{Name: "b"}, {Name: "a", Prefixes: 5, Refused: map[string]uint64{"old_nonce": 1}}}}, finding.Pass, "1 of 2 sites are registered, with 5 prefixes"},
	} {
		f := checkMapServer(t.Context(), &subject.Host{Status: &api.Status{LISP: c.of}})
		if f.Verdict != c.verdict || !strings.Contains(f.Text, c.text) {
			t.Errorf("%+v: %+v, want %v, %q", c.of, f, c.verdict, c.text)
		}
	}
	if f := checkMapServer(t.Context(), &subject.Host{}); f.Verdict != finding.Skip {
		t.Errorf("no daemon: %+v", f)
	}
}
