package icmpreply

import (
	"sync/atomic"

	"sixfour/encap/icmp"
	"sixfour/internal/api"
)

// Counts counts received or sent ICMP errors by type. Any goroutine may use it.
type Counts struct {
	unreachable, tooBig, timeExceeded, parameter, other atomic.Uint64
}

func (c *Counts) Types() api.ICMPTypes {
	return api.ICMPTypes{
		Unreachable: c.unreachable.Load(), TooBig: c.tooBig.Load(), TimeExceeded: c.timeExceeded.Load(), Parameter: c.parameter.Load(), Other: c.other.Load(),
	}
}

// Add counts a message of the given IP version.
func (c *Counts) Add(version int, typ, code byte) {
	if version == 4 {
		c.of4(typ, code).Add(1)
	} else {
		c.of6(typ).Add(1)
	}
}

func (c *Counts) of4(typ, code byte) *atomic.Uint64 {
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

func (c *Counts) of6(typ byte) *atomic.Uint64 {
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
