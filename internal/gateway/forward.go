package gateway

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/netcfg"
)

// Forwarding is turned on for the interfaces that need it, not for the host: for
// the tunnels, and for the uplink, by which answers come. It is turned off again
// when it is not needed any more, unless somebody has turned it on for the whole
// host meanwhile, and so relies on it.
//
// That it was us must be known also to whoever comes after a process that was
// killed. So it is written where the setting is, in the kernel, as a routing rule
// that does nothing: "30010: from all iif eth0 nop proto 64".

// change is what is to be done about forwarding.
type change struct {
	ours             []string // those that forward because of us, then
	on               []string
	off              []string       // and no longer ours
	forget, remember []rule         // rules to remove and to add
	index            map[string]int // of the interfaces that there are
}

func forwardingRule(name string) rule { return rule{priority: priorityForwarding, arrived: name} }

// forwarding finds what is to be done for some interfaces to forward, and no others.
func (m *masquerade) forwarding(names []string, done *Done) (change, error) {
	c := change{index: make(map[string]int)}
	all, err := m.router.Conf(4, netcfg.AllInterfaces)
	if err != nil {
		return c, err
	}
	marked, err := ours(m.handle, 4, isForwarding)
	if err != nil {
		return c, err
	}
	for _, name := range names {
		on, err := m.forwards(name, &c)
		if err != nil {
			return c, err
		}
		noted, known := slices.Contains(marked, forwardingRule(name)), slices.Contains(m.ours, name)
		if c.index[name] == 0 || all.Forwarding || on && !noted && !known {
			continue
		}
		c.ours = append(c.ours, name)
		if !on {
			c.on = append(c.on, name)
		}
		if !noted {
			c.remember = append(c.remember, forwardingRule(name))
		}
		if known && !on {
			done.Mended = append(done.Mended, "forwarding")
		}
		if known && !noted {
			done.Mended = append(done.Mended, "rule")
		}
	}
	for _, r := range marked {
		if slices.Contains(c.ours, r.arrived) {
			continue
		}
		if _, err := m.forwards(r.arrived, &c); err != nil {
			return c, err
		}
		c.forget = append(c.forget, r)
		if !all.Forwarding && c.index[r.arrived] != 0 {
			c.off = append(c.off, r.arrived)
		}
	}
	return c, nil
}

// forwards tells whether an interface forwards; one that there is not has no index.
func (m *masquerade) forwards(name string, c *change) (bool, error) {
	link, err := m.handle.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up interface %s: %w", name, err)
	}
	conf, err := m.router.Conf(4, link.Attrs().Index)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) { // it is without IPv4, or gone since
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c.index[name] = link.Attrs().Index
	return conf.Forwarding, nil
}

// apply does it. What is ours is noted before it is done.
func (m *masquerade) apply(c change) error {
	all := setRules(m.handle, 4, nil, c.remember)
	if all == nil {
		for _, name := range c.on {
			all = errors.Join(all, m.set(name, c.index[name], true))
		}
	}
	for _, name := range c.off {
		all = errors.Join(all, m.set(name, c.index[name], false))
	}
	m.ours = c.ours
	return errors.Join(all, setRules(m.handle, 4, c.forget, nil))
}

func (m *masquerade) set(name string, index int, on bool) error {
	err := m.router.SetForwarding(name, index, on)
	if err != nil && on {
		return fmt.Errorf("%w: run: sysctl -w net.ipv4.ip_forward=1", err)
	}
	return err
}
