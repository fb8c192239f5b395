package api

// GatewayStatus is what [gateway] came to.
type GatewayStatus struct {
	DefaultRoute *DefaultRouteStatus `json:"default_route,omitempty"`
	Masquerade   *MasqueradeStatus   `json:"masquerade,omitempty"`
	Advice       []string            `json:"advice,omitempty"` // what does not work though nothing went wrong
}

// HalfState is where one half of [gateway] stands.
type HalfState string

// The states of a half: it does what it should; something that it needs is not there yet;
// the kernel refuses.
const (
	HalfActive  HalfState = "active"
	HalfWaiting HalfState = "waiting"
	HalfFailed  HalfState = "failed"
)

// DefaultRouteStatus is the way of this host into the internet.
type DefaultRouteStatus struct {
	Tunnel string    `json:"tunnel"`
	State  HalfState `json:"state"`
	Detail string    `json:"detail,omitempty"` // why it is not active
	IPv4   bool      `json:"ipv4"`             // which IP versions go into the tunnel
	IPv6   bool      `json:"ipv6"`
	Bypass []string  `json:"bypass,omitempty"`
}

// MasqueradeStatus is what this host does for those at the other ends.
type MasqueradeStatus struct {
	Interfaces []string  `json:"interfaces"`
	State      HalfState `json:"state"`
	Detail     string    `json:"detail,omitempty"`
	Missing    []string  `json:"missing,omitempty"` // interfaces that there are not
}
