package gateway

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sixfour/internal/netcfg"
)

// Forwarding is turned on for the interfaces that need it, not for the whole host: for
// the tunnels, and for the uplink, on which answers arrive. It is turned off again when
// it is not needed any more, unless another program has meanwhile turned it on for the
// whole host, and so depends on it.
//
// After a process was killed, the next one must know which settings were ours. So they
// are recorded in the kernel, as a routing rule without effect: "30010: from all iif
// eth0 nop proto 64".

// forwardingChange holds the changes to forwarding settings.
type forwardingChange struct {
	own                   []string // interfaces on which we have turned forwarding on, after the change
	turnOn                []string
	turnOff               []string       // interfaces on which forwarding must be turned off
	removeRules, addRules []rule         // rules to remove and to add
	index                 map[string]int // indexes of existing interfaces
}

func forwardingRule(name string) rule { return rule{priority: priorityForwarding, arrived: name} }

// forwarding determines the changes after which the named interfaces, and no others,
// forward because of us.
func (m *masquerade) forwarding(names []string, done *Done) (forwardingChange, error) {
	c := forwardingChange{index: make(map[string]int)}
	all, err := m.router.Conf(4, netcfg.AllInterfaces)
	if err != nil {
		return c, err
	}
	marked, err := ownRules(m.handle, 4, isForwardingRule)
	if err != nil {
		return c, err
	}
	for _, name := range names {
		on, err := m.forwards(name, &c)
		if err != nil {
			return c, err
		}
		noted, known := slices.Contains(marked, forwardingRule(name)), slices.Contains(m.forwardingOn, name)
		if c.index[name] == 0 || all.Forwarding || on && !noted && !known {
			continue
		}
		c.own = append(c.own, name)
		if !on {
			c.turnOn = append(c.turnOn, name)
		}
		if !noted {
			c.addRules = append(c.addRules, forwardingRule(name))
		}
		if known && !on {
			done.Restored = append(done.Restored, "forwarding")
		}
		if known && !noted {
			done.Restored = append(done.Restored, "rule")
		}
	}
	for _, r := range marked {
		if slices.Contains(c.own, r.arrived) {
			continue
		}
		if _, err := m.forwards(r.arrived, &c); err != nil {
			return c, err
		}
		c.removeRules = append(c.removeRules, r)
		if !all.Forwarding && c.index[r.arrived] != 0 {
			c.turnOff = append(c.turnOff, r.arrived)
		}
	}
	return c, nil
}

// forwards reports whether an interface forwards. An interface that does not exist gets
// no index in c.
func (m *masquerade) forwards(name string, c *forwardingChange) (bool, error) {
	link, err := m.handle.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up interface %s: %w", name, err)
	}
	conf, err := m.router.Conf(4, link.Attrs().Index)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) { // the interface has no IPv4, or does not exist any more
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c.index[name] = link.Attrs().Index
	return conf.Forwarding, nil
}

// apply makes the changes. It records what is ours before it changes a setting.
func (m *masquerade) apply(c forwardingChange) error {
	all := setRules(m.handle, 4, nil, c.addRules)
	if all == nil {
		for _, name := range c.turnOn {
			all = errors.Join(all, m.set(name, c.index[name], true))
		}
	}
	for _, name := range c.turnOff {
		all = errors.Join(all, m.set(name, c.index[name], false))
	}
	m.forwardingOn = c.own
	return errors.Join(all, setRules(m.handle, 4, c.removeRules, nil))
}

func (m *masquerade) set(name string, index int, on bool) error {
	err := m.router.SetForwarding(name, index, on)
	if err != nil && on {
		return fmt.Errorf("%w: run: sysctl -w net.ipv4.ip_forward=1", err)
	}
	return err
}
