package api

// GatewayStatus is the status of [gateway].
type GatewayStatus struct {
	DefaultRoute *DefaultRouteStatus `json:"default_route,omitempty"`
	Masquerade   *MasqueradeStatus   `json:"masquerade,omitempty"`
	Shares       []ShareStatus       `json:"shares,omitempty"`
	Advice       []string            `json:"advice,omitempty"` // what does not work although there was no error
}

// GatewayState is the state of one half of [gateway]: the default route or masquerading.
type GatewayState string

// The states of a half: it works; it waits for a tunnel or an interface; the kernel
// refused a change.
const (
	GatewayActive  GatewayState = "active"
	GatewayWaiting GatewayState = "waiting"
	GatewayFailed  GatewayState = "failed"
)

// DefaultRouteStatus is the status of the default route through a tunnel.
type DefaultRouteStatus struct {
	Tunnel string       `json:"tunnel"`
	State  GatewayState `json:"state"`
	Detail string       `json:"detail,omitempty"` // why it is not active
	IPv4   bool         `json:"ipv4"`             // which IP versions go into the tunnel
	IPv6   bool         `json:"ipv6"`
	Bypass []string     `json:"bypass,omitempty"`
}

// MasqueradeStatus is the status of masquerading for hosts at the other ends of tunnels.
type MasqueradeStatus struct {
	Interfaces []string     `json:"interfaces"`
	State      GatewayState `json:"state"`
	Detail     string       `json:"detail,omitempty"`
	Missing    []string     `json:"missing,omitempty"` // interfaces that do not exist
}

// ShareStatus is the status of the translation to an IPv4 address that this host shares with
// others: of MAP-E and lightweight 4over6.
type ShareStatus struct {
	Tunnel    string       `json:"tunnel"`
	Address   string       `json:"address"`
	State     GatewayState `json:"state"`
	Detail    string       `json:"detail,omitempty"` // why it is not active
	Ports     []string     `json:"ports"`            // the ranges that belong to this host, such as 1232-1235
	PortCount int          `json:"port_count"`       // how many ports these are
}
