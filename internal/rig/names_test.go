package rig

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	n := namespace(t, "names")
	s, err := n.ServeNames()
	check(t, err)
	defer s.Close()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (c net.Conn, err error) {
		err = n.Do(func() error {
			c, err = (&net.Dialer{}).DialContext(ctx, "udp", "127.0.0.1:53")
			return err
		})
		return c, err
	}}
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	s.Set("host.example", v4, v6)
	for network, want := range map[string]netip.Addr{"ip4": v4, "ip6": v6} {
		if got, err := r.LookupNetIP(t.Context(), network, "host.example."); err != nil || !slices.Equal(got, []netip.Addr{want}) {
			t.Errorf("%s: %v, %v", network, got, err)
		}
	}
	s.Set("host.example", v6) // its address changes, and it has no IPv4 address any more
	if got, err := r.LookupNetIP(t.Context(), "ip4", "host.example."); err == nil {
		t.Errorf("an address that it has no more: %v", got)
	}
	if got, err := r.LookupNetIP(t.Context(), "ip6", "no-such-host.example."); err == nil {
		t.Errorf("a name that nobody has: %v", got)
	}
}

func TestStartWith(t *testing.T) {
	n := namespace(t, "files")
	file := filepath.Join(t.TempDir(), "resolv.conf")
	check(t, os.WriteFile(file, []byte(Resolv), 0o644))
	before, err := os.ReadFile("/etc/resolv.conf")
	check(t, err)
	var out Log
	cmd := exec.Command("cat", "/etc/resolv.conf")
	cmd.Stdout = &out
	check(t, n.StartWith(cmd, map[string]string{"/etc/resolv.conf": file}))
	if err := cmd.Wait(); err != nil || out.String() != Resolv {
		t.Errorf("the process saw %q, %v", out.String(), err)
	}
	if after, err := os.ReadFile("/etc/resolv.conf"); err != nil || string(after) != string(before) {
		t.Errorf("we see %q, %v", after, err)
	}
	err = n.StartWith(exec.Command("true"), map[string]string{"/no/such/file": file})
	if err == nil || !strings.Contains(err.Error(), "/no/such/file") {
		t.Errorf("a file that cannot be hidden: %v", err)
	}
}
