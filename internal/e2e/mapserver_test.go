package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
	"sixfour/internal/rig"
)

// Sites register with the map server of another daemon, and find each other by it: one lets it
// reply in its place. After a restart it knows what was registered, and accepts further
// registrations.
func TestMapServer(t *testing.T) {
	t.Parallel()
	h := newHosts6(t)
	must(t, h.b.AddAddr("vb", netip.MustParsePrefix("203.0.113.53/24")))
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	must(t, os.WriteFile(key, []byte(lispKey+"\n"), 0o600))
	text := fmt.Sprintf("[lisp]\nlisten = \"203.0.113.53\"\nstore = %q\n", filepath.Join(dir, "lisp.db"))
	for _, site := range []int{1, 2} {
		text += fmt.Sprintf("[[lisp.site]]\nname = \"site%d\"\nkey_file = %q\ninstance = 7\neid = [\"2001:db8:e%[1]d::/48\", \"10.%[1]d.0.0/16\"]\n", site, key)
	}
	server := start(t, h.b, text)
	site := func(number int, more string) string {
		return fmt.Sprintf("[[tunnel]]\nname = \"lisp0\"\nmode = \"lisp\"\nrole = \"xtr\"\nlocal = \"203.0.113.%[1]d0\"\neid = [\"2001:db8:e%[1]d::/48\", \"10.%[1]d.0.0/16\"]\n"+
			"address = [\"2001:db8:e%[1]d::1/48\", \"10.%[1]d.0.1/16\"]\nroutes = [\"2001:db8:e0::/44\", \"10.0.0.0/8\"]\ninstance = 7\n"+
			"map_resolver = \"203.0.113.53\"\nmap_server = \"203.0.113.53\"\nkey_file = %[2]q\nnonce_file = %[4]q\n%[3]s", number, key, more, nonceFile(key))
	}
	a := start(t, h.a, site(1, "proxy_reply = true\nalgorithm = \"sha256-hkdf\"\n"))
	b := start(t, h.b, site(2, "algorithm = \"sha1\"\n"))
	for _, d := range []*daemon{a, b} {
		_, st := d.status(t)
		d.has(t, st.Neighbours[0].Address, "registered")
	}
	for _, to := range []string{"2001:db8:e2::1", "10.2.0.1"} {
		pings(t, h.a, netip.MustParseAddr(to), rig.PingOptions{Size: 1000})
	}
	lisp := func(d *daemon) *api.MapServerStatus {
		t.Helper()
		s, err := client.Status(t.Context(), d.socket)
		must(t, err)
		return s.LISP
	}
	// B answers for itself, and the map server for A.
	if s := lisp(server); s.Registered != 2 || s.Prefixes != 4 || s.Served["forwarded"] == 0 || s.Served["replied"] == 0 || s.Error != "" || len(s.Refused) != 0 {
		t.Errorf("status is %+v", s)
	}
	server.end(t, syscall.SIGTERM)
	server = start(t, h.b, text)
	if s := lisp(server); s.Registered != 2 || s.Prefixes != 4 {
		t.Errorf("status after a restart is %+v", s)
	}
	b.end(t, syscall.SIGTERM)
	b = start(t, h.b, site(2, ""))
	_, st := b.status(t)
	b.has(t, st.Neighbours[0].Address, "registered")
	if plan := server.reload(t, strings.Replace(text, "name = \"site2\"", "name = \"another\"", 1)); plan.Failed != 0 {
		t.Errorf("reload: %+v", plan)
	}
	if s := lisp(server); s.Registered != 1 || s.Prefixes != 2 {
		t.Errorf("status after a site has another name is %+v", s)
	}
}
