package engine

import (
	"sync/atomic"

	"sixfour/encap/icmp"
)

// ICMPTypes are errors by their type; those of ICMP and ICMPv6 that mean the same
// are one.
type ICMPTypes struct {
	Unreachable  uint64 `json:"unreachable,omitempty"`
	TooBig       uint64 `json:"too_big,omitempty"`
	TimeExceeded uint64 `json:"time_exceeded,omitempty"`
	Parameter    uint64 `json:"parameter_problem,omitempty"`
	Other        uint64 `json:"other,omitempty"`
}

func (t *ICMPTypes) merge(o ICMPTypes) {
	t.Unreachable += o.Unreachable
	t.TooBig += o.TooBig
	t.TimeExceeded += o.TimeExceeded
	t.Parameter += o.Parameter
	t.Other += o.Other
}

// total is how many there are of all types.
func (t *ICMPTypes) total() uint64 {
	return t.Unreachable + t.TooBig + t.TimeExceeded + t.Parameter + t.Other
}

// icmpCounts are how often an ICMP error was heard or sent. Any goroutine may use
// them.
type icmpCounts struct {
	unreachable, tooBig, timeExceeded, parameter, other atomic.Uint64
}

func (c *icmpCounts) counts() ICMPTypes {
	return ICMPTypes{c.unreachable.Load(), c.tooBig.Load(), c.timeExceeded.Load(), c.parameter.Load(), c.other.Load()}
}

// add counts a message of an IP version.
func (c *icmpCounts) add(version int, typ, code byte) {
	if version == 4 {
		c.of4(typ, code).Add(1)
	} else {
		c.of6(typ).Add(1)
	}
}

func (c *icmpCounts) of4(typ, code byte) *atomic.Uint64 {
	switch typ {
	case icmp.Unreachable4:
		if code == icmp.FragNeeded {
			return &c.tooBig
		}
		return &c.unreachable
	case icmp.TimeExceeded4:
		return &c.timeExceeded
	case icmp.Parameter4:
		return &c.parameter
	}
	return &c.other
}

func (c *icmpCounts) of6(typ byte) *atomic.Uint64 {
	switch typ {
	case icmp.Unreachable6:
		return &c.unreachable
	case icmp.TooBig6:
		return &c.tooBig
	case icmp.TimeExceeded6:
		return &c.timeExceeded
	case icmp.Parameter6:
		return &c.parameter
	}
	return &c.other
}
