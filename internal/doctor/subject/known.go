package subject

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/netns"
)

// FailedCheck returns why something is not tried: another check failed without which it
// cannot work; "": none failed.
func (p *Peer) FailedCheck(needed ...string) string {
	for _, id := range needed {
		if slices.Contains(p.Failed, id) {
			return fmt.Sprintf("the check %s fails", id)
		}
	}
	return ""
}

// KnownRemote returns the peer's outer address if it is known without a look-up; invalid:
// it is not.
func (p *Peer) KnownRemote() netip.Addr {
	switch {
	case p.Remote.IsValid():
		return p.Remote
	case p.Target.Addr.IsValid():
		return p.Target.Addr
	case p.Status != nil && p.Tunnel.Mechanism() < 0:
		return DaemonAddr(p.Status.State.Remote)
	}
	return netip.Addr{}
}

// Configured returns our configured outer address; invalid: "auto".
func (p *Peer) Configured() netip.Addr { return p.Config.Paths[0].Local }

// InNamespace runs f in the namespace of the tunnel's interface, with a netlink handle
// for it.
func (t *Tunnel) InNamespace(f func(*netlink.Handle) error) error {
	return netns.In(t.Config.Netns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open netlink: %w", err)
		}
		defer h.Close()
		return f(h)
	})
}

// IPCommand returns the ip command for the interface's namespace.
func (t *Tunnel) IPCommand() string {
	switch {
	case t.Config.Netns == "":
		return "ip"
	case strings.ContainsRune(t.Config.Netns, '/'):
		return "nsenter --net=" + t.Config.Netns + " ip"
	}
	return "ip -n " + t.Config.Netns
}

// Addresses returns the addresses that the interface must have, given the daemon's
// present outer address.
func (t *Tunnel) Addresses() []netip.Prefix {
	if t.Status == nil {
		return t.Config.Address
	}
	local, _ := netip.ParseAddr(t.Status.State.Local) // invalid if there is none
	return t.Config.AddressAt(local)
}

// Sysctl reads a setting in the namespace of the current thread. A missing setting is 0.
func (t *Tunnel) Sysctl(path string) (int, error) {
	b, err := os.ReadFile(filepath.Join(t.Host.Options.Paths.Proc, "sys", path))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// Strict is the value of rp_filter that drops packets which fail the reverse path check
// (RFC 3704 section 2.2); 2 is loose.
const Strict = 1

// ReversePathFilter returns the effective rp_filter of an interface: the larger of its
// own value and that of all.
func (t *Tunnel) ReversePathFilter(device string) (int, error) {
	all, err := t.Sysctl("net/ipv4/conf/all/rp_filter")
	if err != nil {
		return 0, err
	}
	own, err := t.Sysctl(filepath.Join("net/ipv4/conf", device, "rp_filter"))
	return max(all, own), err
}

// HasAddress reports whether the interface is configured to have an address.
func (t *Tunnel) HasAddress(a netip.Addr) bool {
	return slices.ContainsFunc(t.Addresses(), func(p netip.Prefix) bool { return p.Addr() == a })
}

// Carried reports whether packets of an IP version can enter the interface.
func (t *Tunnel) Carried(version int) bool {
	return t.Config.Mode.Carries(version) || slices.ContainsFunc(t.Config.Address, func(p netip.Prefix) bool { return p.Addr().Is4() == (version == 4) })
}
