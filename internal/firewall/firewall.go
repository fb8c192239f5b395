// Package firewall determines what this host's packet filter would do with a packet, by
// reading its nftables rules and evaluating them for the packet. It changes nothing, and
// sends nothing.
//
// A rule may test a property that is unknown, because the packet was not sent, and the
// kernel has more expressions than this package evaluates. So there are three results: the
// packet passes, it is dropped, or the result depends on what is unknown.
package firewall

import (
	"net/netip"

	"github.com/google/nftables"
)

// Hook is the path of a packet: Input arrives for this host, Output is sent by it,
// Forward passes through it.
type Hook uint8

// The hooks.
const (
	Input Hook = iota
	Output
	Forward
)

// Packet is what is known about a packet. The packet is whole, not a fragment, and has
// no IPv4 options. Device is where it arrives or, for Output, where it leaves; "":
// unknown.
type Packet struct {
	Hook        Hook
	Source      netip.Addr
	Destination netip.Addr
	Protocol    byte
	Payload     []byte // the first bytes after the IP header, as far as they are known
	Device      string
	Index       int    // of the device
	To          string // for Forward: the device through which it leaves
	ToIndex     int
	Mark        uint32 // for Output: SO_MARK
	// Answer means that this host recently sent a packet of the same connection in the
	// other direction, so connection tracking has the connection (state established,
	// not new).
	Answer bool
}

// Verdict is the result for a packet.
type Verdict uint8

// The verdicts.
const (
	Pass    Verdict = iota
	Drop            // dropped, or rejected
	Depends         // unknown
)

// Place is a rule or, with handle 0, a chain's policy.
type Place struct {
	Family, Table string
	Base          string // the base chain that the packet entered
	Chain         string // the chain with the rule
	Handle        uint64
}

// Judgement is a verdict and, for Drop or Depends, the place that causes it.
type Judgement struct {
	Verdict
	Place
}

// Ruleset holds a namespace's rules as they were read. It is immutable.
type Ruleset struct {
	base  []*chain // in the order in which packets pass them
	steps int      // the most expressions that may be evaluated for a packet
}

// chain is one chain, with the chains and sets that its rules use.
type chain struct {
	family   nftables.TableFamily
	table    string
	name     string
	hook     uint32
	priority int32
	nat      bool
	drops    bool // its policy is drop
	rules    []rule
	chains   map[string]*chain // of the same table
	sets     map[string]*set   // of the same table
}

// Judge evaluates the rules for a packet.
func (r *Ruleset) Judge(p Packet) Judgement {
	e := &evaluation{packet: p, left: r.steps}
	e.prepare()
	var doubt *Place
	for _, c := range r.base {
		certain, ok := c.isOnWayOf(p)
		if !ok || c.nat && p.Answer { // only the first packet of a connection passes NAT chains
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

// isOnWayOf reports whether packets pass a base chain, and whether that is certain: the
// chain of a device may be that of another device.
func (c *chain) isOnWayOf(p Packet) (certain, ok bool) {
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

// familyNames are the names in the nft command.
var familyNames = map[nftables.TableFamily]string{
	nftables.TableFamilyINet:   "inet",
	nftables.TableFamilyIPv4:   "ip",
	nftables.TableFamilyIPv6:   "ip6",
	nftables.TableFamilyNetdev: "netdev",
}
