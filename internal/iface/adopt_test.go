package iface

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig/rigtest"
	"sixfour/tun"
)

// copies returns copies of a device's descriptors, as another process would hold them.
func copies(t *testing.T, d *tun.Device) (fds []int) {
	t.Helper()
	for _, q := range d.Queues() {
		rigtest.Must(t, q.Use(func(fd int) error {
			own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			fds = append(fds, own)
			return err
		}))
	}
	t.Cleanup(func() { release(fds) })
	return fds
}

func release(fds []int) {
	for i, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
		fds[i] = -1
	}
}

// TestAdopt: an interface whose descriptors are held is taken over with what is right
// about it; one that does not fit is replaced.
func TestAdopt(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(s *Settings)
		kept   bool
	}{
		{"as it was", func(*Settings) {}, true},
		{"other addresses and routes", func(s *Settings) {
			s.Addresses, s.Routes = prefixes("10.0.0.2/24 2001:db8::2/64"), prefixes("192.168.3.0/24 2001:db8:3::/48")
		}, true},
		{"none", func(s *Settings) { s.Addresses, s.Routes = nil, nil }, true},
		{"another MTU", func(s *Settings) { s.MTU = 1300 }, true},
		{"no offload", func(s *Settings) { s.Offload = tun.OffloadNone }, true},
		{"more queues", func(s *Settings) { s.Queues = 3 }, false},
		{"one queue", func(s *Settings) { s.Queues = 1 }, false},
	} {
		ns := rigtest.Enter(t, "iface")
		set := Settings{Name: "six0", Namespace: ns.Path(), MTU: 1400, Queues: 2, Offload: tun.OffloadUDP,
			Addresses: prefixes("10.0.0.1/30 fe80::5efe:c000:201/64 2001:db8::1/64"), Routes: prefixes("192.168.2.0/24 ::/0")}
		first, err := Open(set)
		rigtest.Must(t, err)
		kept := copies(t, first.Device)
		rigtest.Must(t, first.Close())
		if _, err := Open(Settings{Name: "six0", Namespace: ns.Path(), MTU: 1400, Queues: 2}); !errors.Is(err, tun.ErrBusy) {
			t.Errorf("%s: who has no descriptors: %v, want ErrBusy", c.name, err)
		}
		c.change(&set)
		set.Descriptors = kept
		second, err := Open(set)
		rigtest.Must(t, err)
		if second.Adopted() != c.kept || (second.Index() == first.Index()) != c.kept {
			t.Errorf("%s: adopted %v, index %d, before %d", c.name, second.Adopted(), second.Index(), first.Index())
		}
		fresh := rigtest.Enter(t, "iface")
		set.Descriptors, set.Namespace = nil, fresh.Path()
		want, err := Open(set)
		rigtest.Must(t, err)
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			if got, want := routes(t, ns, family), routes(t, fresh, family); got != want {
				t.Errorf("%s: routes %s, want %s", c.name, got, want)
			}
			if got, want := addresses(t, ns, family), addresses(t, fresh, family); got != want && family == unix.AF_INET {
				t.Errorf("%s: addresses %s, want %s", c.name, got, want)
			}
		}
		if mtu, err := ns.MTU("six0"); err != nil || mtu != set.MTU {
			t.Errorf("%s: MTU %d, %v", c.name, mtu, err)
		}
		rigtest.Must(t, want.Close())
		rigtest.Must(t, second.Delete())
		rigtest.Must(t, second.Close())
		release(kept)
		if _, err := ns.Handle().LinkByName("six0"); err == nil {
			t.Errorf("%s: it is still there", c.name)
		}
	}
}

// TestAdoptFromAnotherNamespace: descriptors of an interface with the same name in
// another namespace are refused.
func TestAdoptFromAnotherNamespace(t *testing.T) {
	ns, other := rigtest.Enter(t, "iface"), rigtest.Enter(t, "iface")
	set := Settings{Name: "six0", Namespace: other.Path(), MTU: 1400, Queues: 1}
	theirs, err := Open(set)
	rigtest.Must(t, err)
	defer theirs.Close()
	set.Namespace, set.Descriptors = ns.Path(), copies(t, theirs.Device)
	l, err := Open(set)
	rigtest.Must(t, err)
	defer l.Close()
	if l.Adopted() {
		t.Error("it was adopted")
	}
	if up, err := theirs.IsUp(); err != nil || !up {
		t.Errorf("the other one: up %v, %v", up, err)
	}
}
