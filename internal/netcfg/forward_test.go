package netcfg

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// TestForwarding: netlink reads and writes the same settings as sysctl, also if
// /proc/sys is read-only.
func TestForwarding(t *testing.T) {
	ns := rigtest.Enter(t, "netcfg")
	rigtest.Must(t, rig.Veth(ns, "one", ns, "two", 1500))
	rigtest.Must(t, ns.Sysctl("net/ipv4/conf/one/rp_filter", "1"))
	rigtest.Must(t, ns.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	r, err := NewRouter()
	rigtest.Must(t, err)
	defer r.Close()
	link, err := ns.Handle().LinkByName("one")
	rigtest.Must(t, err)
	index := link.Attrs().Index
	want := func(v, index int, c Conf) {
		t.Helper()
		got, err := r.Conf(v, index)
		if v == 6 {
			got.RPFilter = 0
		}
		if err != nil || got != c {
			t.Errorf("version %d, interface %d: %+v, %v, want %+v", v, index, got, err, c)
		}
	}
	want(4, index, Conf{false, 1})
	want(6, AllInterfaces, Conf{true, 0})
	rigtest.Must(t, r.SetForwarding("one", index, true))
	want(4, index, Conf{true, 1})
	rigtest.Must(t, r.SetForwarding("one", index, false))
	want(4, index, Conf{false, 1})

	rigtest.Must(t, unix.Unshare(unix.CLONE_NEWNS))
	rigtest.Must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	rigtest.Must(t, unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""))
	rigtest.Must(t, unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	rigtest.Must(t, r.SetForwarding("one", index, true))
	want(4, index, Conf{true, 1})
	b, err := os.ReadFile("/proc/sys/net/ipv4/conf/one/forwarding")
	if err != nil || strings.TrimSpace(string(b)) != "1" {
		t.Errorf("forwarding is %q, %v", b, err)
	}
	rigtest.Must(t, r.SetForwarding("one", index, false))
	want(4, index, Conf{false, 1})
	if err := r.SetForwarding("none", 1<<20, true); err == nil {
		t.Error("forwarding of an interface that there is not")
	}
	if _, err := r.Conf(4, 1<<20); err == nil {
		t.Error("settings of an interface that there is not")
	}
}
