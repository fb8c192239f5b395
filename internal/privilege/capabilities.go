package privilege

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"sixfour/internal/config"
)

// required returns the capabilities without which the daemon does not start: for interfaces, routes
// and the packet filter, and for the raw sockets of tunnels, unless all packets travel in UDP.
func required(raw bool) []cap.Value {
	if raw {
		return []cap.Value{cap.NET_ADMIN, cap.NET_RAW}
	}
	return []cap.Value{cap.NET_ADMIN}
}

// capabilitiesFor returns the capabilities to keep, if the process has them.
func capabilitiesFor(n needs) []cap.Value {
	k := required(true) // ICMP errors need raw sockets in any case
	if n.setns {        // setns(2)
		k = append(k, cap.SYS_ADMIN)
	}
	if n.xdp {
		// Memory that is shared with the kernel counts as locked; RLIMIT_MEMLOCK may be
		// too small for it.
		k = append(k, loadProgram(), cap.IPC_LOCK)
	}
	if n.lowPort {
		k = append(k, cap.NET_BIND_SERVICE)
	}
	return k
}

// loadProgram returns the capability for bpf(2): before Linux 5.8 there was none for
// bpf(2) alone.
func loadProgram() cap.Value {
	if cap.MaxBits() > cap.BPF {
		return cap.BPF
	}
	return cap.SYS_ADMIN
}

// Check returns an error if the process lacks a capability that the configuration needs in
// any case, with advice how to grant it.
func Check(cfg *config.Config) error {
	var missing []string
	needed := required(needsRaw(cfg))
	have := cap.GetProc()
	for _, c := range needed {
		if ok, err := have.GetFlag(cap.Permitted, c); err != nil || !ok {
			missing = append(missing, strings.ToUpper(c.String()))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	var names, flags []string
	for _, c := range needed {
		names = append(names, c.String())
		flags = append(flags, "--cap-add "+strings.ToUpper(strings.TrimPrefix(c.String(), "cap_")))
	}
	return fmt.Errorf("the process lacks %s: run as root; or give it the capabilities, in a unit with AmbientCapabilities=%s, "+
		"to the program with setcap %s+ep %s, to a container with %s",
		strings.Join(missing, " and "), strings.ToUpper(strings.Join(names, " ")), strings.Join(names, ","), program(), strings.Join(flags, " "))
}

// needsRaw reports whether tunnels need raw sockets to send or receive packets.
func needsRaw(cfg *config.Config) bool {
	for i := range cfg.Tunnels {
		if rawPath(&cfg.Tunnels[i]) != nil {
			return true
		}
	}
	return false
}

// rawPath returns the first path of a tunnel that needs raw sockets; nil: none.
func rawPath(t *config.Tunnel) *config.Path {
	for _, path := range t.AllPaths() {
		if t.NeedsRaw(path) {
			return path
		}
	}
	return nil
}

// keepCapabilities drops all capabilities that are not needed, in every set of every
// thread, and returns those that remain.
func keepCapabilities(n needs) (names []string, err error) {
	have, left := cap.GetProc(), cap.NewSet()
	keep := map[cap.Value]bool{}
	for _, c := range capabilitiesFor(n) {
		if keep[c] {
			continue
		}
		ok, err := have.GetFlag(cap.Permitted, c)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		keep[c] = true
		names = append(names, c.String())
		for _, set := range []cap.Flag{cap.Permitted, cap.Effective} {
			if err := left.SetFlag(set, true, c); err != nil {
				return nil, err
			}
		}
	}
	if err := lockCapabilities(have, keep); err != nil {
		return nil, err
	}
	return names, left.SetProc()
}

// lockCapabilities makes sure that no program that the process might start gets more rights
// than the process: neither set-user-ID programs nor uid 0 gain capabilities.
func lockCapabilities(have *cap.Set, keep map[cap.Value]bool) error {
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := cap.ResetAmbient(); err != nil {
		return fmt.Errorf("ambient: %w", err)
	}
	may, err := have.GetFlag(cap.Permitted, cap.SETPCAP)
	if err != nil || !may {
		return err // the service manager has done it, or no_new_privs must be enough
	}
	withSetpcap, err := have.Dup()
	if err != nil {
		return err
	}
	if err := withSetpcap.SetFlag(cap.Effective, true, cap.SETPCAP); err != nil {
		return err
	}
	if err := withSetpcap.SetProc(); err != nil {
		return err
	}
	for c := cap.Value(0); c < cap.MaxBits(); c++ {
		if keep[c] {
			continue
		}
		if err := cap.DropBound(c); err != nil {
			return fmt.Errorf("bounding set, %v: %w", c, err)
		}
	}
	return lockedBits.Set()
}

// lockedBits are the bits of capabilities(7) that remove the special rights of uid 0,
// and prevent later changes.
const lockedBits = cap.SecbitNoRoot | cap.SecbitNoRootLocked |
	cap.SecbitNoSetUIDFixup | cap.SecbitNoSetUIDFixupLocked |
	cap.SecbitKeepCapsLocked |
	cap.SecbitNoCapAmbientRaise | cap.SecbitNoCapAmbientRaiseLocked
