package e2e

import (
	"strings"
	"testing"

	"sixfour/internal/api"
)

// A reload that does not change the ends keeps the results of probes, whatever else it
// changes.
func TestReloadKeepsLiveness(t *testing.T) {
	auto := func(c string) string { return strings.Replace(c, `local = "`+outerA.String()+`"`, `local = "auto"`, 1) }
	for name, test := range map[string]struct{ a, b, routes string }{
		"4in6in4":        {configA(`address = ["10.0.0.1/30", "fc00::1/64"]`), configB(often), `"192.168.2.0/24", "fd00:2::/64"`},
		"6in4":           {auto(plainA(`address = ["fc00::1/64"]`)), plainB(often), `"fd00:2::/64"`},
		"gre":            {auto(kindGRE.atA()), kindGRE.atB(), `"192.168.2.0/24"`},
		"6in6":           {kind6in6.atA(), kind6in6.atB(), `"fd00:2::/64"`},
		"4in6 by AF_XDP": {kind4in6.xdp().atA(), kind4in6.xdp().atB(), `"192.168.2.0/24"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHosts6(t)
			start(t, h.b, test.b)
			a := start(t, h.a, test.a+often+"\n")
			before := a.phase(t, api.Up)
			for _, change := range []string{
				often + "\nroutes = [" + test.routes + "]",
				often + "\nroutes = [" + test.routes + "]\nmss_clamp = false",
				often + "\nttl = 17",
				often + "\nmtu = 1300",
				"keepalive = \"3s\"\ndead_after = 4",
				often,
			} {
				a.mustReload(t, test.a+change+"\n")
				_, s := a.status(t)
				if s.State.Phase != api.Up || s.State.Since != before.State.Since || s.Liveness.LastPacket.IsZero() {
					t.Errorf("%v: %+v %+v, before %+v", change, s.State, s.Liveness, before.State)
				}
			}
		})
	}
}
