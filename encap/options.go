package encap

// Values of Options for "copy it from the inner packet" and "none".
const (
	InheritDSCP  = -1 // Options.DSCP: copy the inner packet's
	InheritTTL   = 0  // Options.TTL, Options.HopLimit: copy the inner packet's
	NoEncapLimit = -1 // Options.EncapLimit: add no option
)

// Options say how a tunnel's delivery headers are filled in, apart from their addresses.
// They hold for every layer of a stack.
type Options struct {
	TTL        int  // outer IPv4 TTL, 1 to 255, or InheritTTL
	HopLimit   int  // outer IPv6 hop limit, 1 to 255, or InheritTTL
	DSCP       int  // 0 to 63, or InheritDSCP
	ECNCompat  bool // RFC 6040 4.3: compatibility mode, the outer ECN field is always 00
	StaticMTU  bool // RFC 4213 3.2.1: outer DF is set only over an IPv4 packet that has it (RFC 2003 3.1)
	IgnoreDF   bool // inner IPv4 packets with DF are fragmented like those without (ip-tunnel(8): ignore-df)
	EncapLimit int  // RFC 2473 4.1.1: 0 to 255, or NoEncapLimit
	FlowLabel  FlowLabel
}

// FlowLabel says where the flow label of an outer IPv6 header comes from.
type FlowLabel struct {
	Source FlowLabelSource
	Fixed  uint32 // with FlowLabelFixed: the label, 20 bits
}

// FlowLabelSource says how a flow label is found.
type FlowLabelSource uint8

const (
	FlowLabelHash  FlowLabelSource = iota // a keyed hash of the inner flow (RFC 6438)
	FlowLabelInner                        // the inner IPv6 packet's own; 0 for IPv4
	FlowLabelFixed                        // Fixed
)

// DefaultOptions are the options of a tunnel whose configuration sets none.
var DefaultOptions = Options{TTL: 64, HopLimit: 64, DSCP: InheritDSCP, EncapLimit: NoEncapLimit}
