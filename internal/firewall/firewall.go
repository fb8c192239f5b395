// Package firewall says what this host's packet filter would do with a packet, by
// reading its nftables rules and following the packet through them. It changes
// nothing, and sends nothing.
//
// Rules ask for more than is known of a packet that nobody has sent, and the kernel
// has more expressions than are understood here. So the answer has three values: it
// passes, it is dropped, or that depends on what is not known.
package firewall

import (
	"net/netip"

	"github.com/google/nftables"
)

// Hook is the way of a packet: Input arrives for this host, Output is sent by it, Forward
// passes through it.
type Hook uint8

// The ways.
const (
	Input Hook = iota
	Output
	Forward
)

// Packet is what is known of a packet: one that is whole, not a fragment, and has no
// IPv4 options. Device is where it arrives, or, of Output, where it leaves; "": not known.
type Packet struct {
	Hook        Hook
	Source      netip.Addr
	Destination netip.Addr
	Protocol    byte
	Payload     []byte // the first bytes behind the IP header, as far as they are known
	Device      string
	Index       int    // of the device
	To          string // of Forward: the device by which it leaves
	ToIndex     int
	Mark        uint32 // of Output: SO_MARK
	// Answer means that this host has sent such a packet the other way not long ago,
	// so that connection tracking knows the two (state established, not new).
	Answer bool
}

// Verdict is what becomes of a packet.
type Verdict uint8

// The verdicts.
const (
	Pass    Verdict = iota
	Drop            // dropped, or rejected
	Depends         // on what is not known
)

// String is the verdict in a word.
func (v Verdict) String() string { return [...]string{"pass", "drop", "depends"}[v] }

// Place is a rule, or, with handle 0, a chain's policy.
type Place struct {
	Family, Table string
	Base          string // the chain at the hook, by which the packet came
	Chain         string // that has the rule
	Handle        uint64
}

// Judgement is a verdict and the place that is the reason for Drop or Depends.
type Judgement struct {
	Verdict
	Place
}

// Ruleset is a namespace's rules as they were when they were read. It is immutable.
type Ruleset struct {
	base  []*chain // in the order in which packets of any hook meet them
	steps int      // how many expressions a judgement may look at
}

// chain is one chain with what its rules jump to.
type chain struct {
	family   nftables.TableFamily
	table    string
	name     string
	hook     uint32
	priority int32
	nat      bool
	drops    bool // its policy
	rules    []rule
	chains   map[string]*chain // of the same table
	sets     map[string]*set   // of the same table
}

// Judge follows a packet through the rules.
func (r *Ruleset) Judge(p Packet) Judgement {
	e := &evaluation{packet: p, left: r.steps}
	e.prepare()
	var doubt *Place
	for _, c := range r.base {
		certain, met := c.meets(p)
		if !met || c.nat && p.Answer { // which only first packets go through
			continue
		}
		out := e.base(c)
		switch {
		case out.drop == nil:
		case out.pass || !certain || e.left <= 0:
			if doubt == nil {
				doubt = out.drop
			}
		default:
			return Judgement{Drop, *out.drop}
		}
	}
	if doubt != nil {
		return Judgement{Depends, *doubt}
	}
	return Judgement{Verdict: Pass}
}

// Hook numbers (linux/netfilter.h).
const (
	prerouting  = 0
	input       = 1
	forward     = 2
	output      = 3
	postrouting = 4
	inetIngress = 5

	netdevIngress = 0
	netdevEgress  = 1
)

// meets reports whether packets come through a base chain, and whether that is
// certain: a chain of a device may be another device's.
func (c *chain) meets(p Packet) (certain, met bool) {
	arrives, leaves := p.Hook != Output, p.Hook != Input
	switch c.family {
	case nftables.TableFamilyNetdev:
		return false, arrives && c.hook == netdevIngress || leaves && c.hook == netdevEgress
	case nftables.TableFamilyINet:
		if c.hook == inetIngress {
			return false, arrives
		}
	case nftables.TableFamilyIPv4:
		if !p.Source.Is4() {
			return false, false
		}
	case nftables.TableFamilyIPv6:
		if p.Source.Is4() {
			return false, false
		}
	default:
		return false, false
	}
	switch c.hook {
	case prerouting:
		return true, arrives
	case postrouting:
		return true, leaves
	}
	return true, c.hook == map[Hook]uint32{Input: input, Forward: forward, Output: output}[p.Hook]
}

// familyNames are those of the nft command.
var familyNames = map[nftables.TableFamily]string{
	nftables.TableFamilyINet:   "inet",
	nftables.TableFamilyIPv4:   "ip",
	nftables.TableFamilyIPv6:   "ip6",
	nftables.TableFamilyNetdev: "netdev",
}
