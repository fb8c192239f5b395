package doctor

import (
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/subject"
	"sixfour/internal/doctor/tunnelcheck"
)

// The session with a server is shown as the daemon has it.
func TestSession(t *testing.T) {
	for _, c := range []struct {
		session *api.Session
		want    finding.Verdict
		text    string
	}{
		{nil, finding.Skip, "the mode has no server, or no daemon runs the tunnel"},
		{&api.Session{Server: "b.example", State: api.SessionUp}, finding.Pass, "the session with b.example is up"},
		{&api.Session{Server: "b.example", State: api.SessionUp, Address: "2001:db8::1/64"}, finding.Pass, "the session with b.example is up, and it grants 2001:db8::1/64"},
		{&api.Session{Server: "b.example", State: api.SessionConnecting}, finding.Fail, "there is no session with b.example: it has not answered yet"},
		{&api.Session{Server: "b.example", State: api.SessionRetrying, Error: "the password is wrong"}, finding.Fail, "there is no session with b.example: the password is wrong"},
	} {
		f := tunnelcheck.Session(t.Context(), &subject.Tunnel{Status: &api.TunnelStatus{Session: c.session}})
		if f.Verdict != c.want || f.Text != c.text {
			t.Errorf("%+v", f)
		}
	}
}
