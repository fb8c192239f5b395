package config

import (
	"net/netip"
	"time"
)

// Servers are what a tunnel tells a server about itself, and learns from one.
type Servers struct {
	Update AddressUpdate
	Client Client
}

// Client is how a tunnel of a mode with a session deals with its server. The zero value means
// that the mode has none. It can be compared with ==.
type Client struct {
	Server   Host
	Port     uint16
	Settings any // an AYIYA, Heartbeat, TIC, TSP or JSON, by the mode
}

// The ports of the protocols; that of JSON is the one that the broker of this program has.
const (
	AYIYAPortNumber     = 5072
	HeartbeatPortNumber = 3740
	TICPortNumber       = 3874
	TSPPortNumber       = 3653
	JSONPortNumber      = 14629
)

// AYIYA are the settings of a tunnel in AYIYA.
type AYIYA struct {
	Identity netip.Addr // our end of the tunnel
	Password Secret
	Hash     string // sha1, sha256 or md5
	Reports
}

// Heartbeat are the settings of a 6in4 tunnel whose server learns our address by heartbeats.
type Heartbeat struct {
	Identity netip.Addr // our end of the tunnel
	Password Secret
}

// TIC are the settings of a tunnel that is described by a server of TIC.
type TIC struct {
	User     string
	Password Secret
	TunnelID string // "": the only one
	StartTLS string // auto, require or off
	CA       string // file; "": the certificates of the system
}

// TSP are the settings of a tunnel that is negotiated by the Tunnel Setup Protocol.
type TSP struct {
	User     string // "": anonymous
	Password Secret
	Auth     string // auto, anonymous, plain or digest-md5
	Want     string // any, v6v4 or v6udpv4
	Prefix   int    // length of the prefix that is asked for; 0: none is
	Reports
}

// JSON are the settings of a tunnel over TCP, to a server that assigns a prefix.
type JSON struct {
	ID     string
	Secret Secret // "": none
	TLS    bool
	CA     string // file; "": the certificates of the system
	Reports
}

// Reports receive what happens to a session whose packets travel in its own connections. Their
// methods may be called by any goroutine, and do not block. The value can be compared with ==.
type Reports interface {
	// Granted takes note of what the server grants.
	Granted(Grant)
	// Connected says that a connection is usable, with the server's address, or that it has
	// ended or could not be made, and why.
	Connected(at netip.AddrPort, why error)
	// Said takes note of a text of the server.
	Said(text string)
}

// Grant is what a server grants.
type Grant struct {
	Address netip.Prefix   // of our end; zero: it grants none
	Remote  netip.Addr     // the server's end; zero: not known
	Routed  []netip.Prefix // what the server routes to us
	MTU     int            // of the tunnel; 0: it says nothing
	Every   time.Duration  // how often the server wants a sign of life; 0: it says nothing
	Path    *Path          // another way to exchange packets; nil: the session's own connections
}

// AYIYAPort, TSPPort and JSONPort are what all sessions of a protocol at one port have in
// common: nothing but the protocol.
type (
	AYIYAPort struct{}
	TSPPort   struct{}
	JSONPort  struct{}
)

// ReportsOf returns the Reports in the settings of connections; nil: there are none.
func ReportsOf(session any) Reports {
	switch s := session.(type) {
	case AYIYA:
		return s.Reports
	case TSP:
		return s.Reports
	case JSON:
		return s.Reports
	}
	return nil
}

// extra returns how many bytes AYIYA adds to the header of UDP: eight, the identity, and the
// signature.
func (a AYIYA) extra() int {
	const fixed, identity = 8, 16
	switch a.Hash {
	case "md5":
		return fixed + identity + 16
	case "sha256":
		return fixed + identity + 32
	}
	return fixed + identity + 20
}

// Path returns the way to the server before it has granted anything.
func (c *Client) Path() Path {
	p := Path{Encap: NoEncapsulation, Remote: c.Server}
	switch s := c.Settings.(type) {
	case AYIYA:
		p.Encap, p.Port, p.Session = "ayiya", c.Port, s
	case TSP:
		p.Encap, p.Port, p.Session = "tsp", c.Port, s
	case JSON:
		p.Encap, p.Port, p.Session = "json", c.Port, s
	case TIC:
		p.Remote, p.Waits = Host{}, "what its server says of the tunnel"
	}
	return p
}

// Grants reports whether the server grants addresses.
func (c *Client) Grants() bool {
	switch c.Settings.(type) {
	case TIC, TSP, JSON:
		return true
	}
	return false
}

// ConnectsTo returns the port to which the session connects over TCP; 0: it does not.
func (c *Client) ConnectsTo() uint16 {
	switch c.Settings.(type) {
	case TIC, TSP, JSON:
		return c.Port
	}
	return 0
}

// secretKey returns the key for the file with the secret.
func (c *Client) secretKey() string {
	if _, ok := c.Settings.(JSON); ok {
		return "secret_file"
	}
	return "password_file"
}

// Files returns the files that the settings name.
func (c *Client) Files() []string { return filesOf(c.Settings) }

// filesOf returns the files that the settings of a session name.
func filesOf(settings any) (all []string) {
	var named []string
	switch s := settings.(type) {
	case AYIYA:
		named = []string{s.Password.File}
	case Heartbeat:
		named = []string{s.Password.File}
	case TIC:
		named = []string{s.Password.File, s.CA}
	case TSP:
		named = []string{s.Password.File}
	case JSON:
		named = []string{s.Secret.File, s.CA}
	}
	for _, f := range named {
		if f != "" {
			all = append(all, f)
		}
	}
	return all
}

// Identity returns the configured address of our end of the tunnel; invalid: the server says
// what it is.
func (c *Client) Identity() netip.Addr {
	switch s := c.Settings.(type) {
	case AYIYA:
		return s.Identity
	case Heartbeat:
		return s.Identity
	}
	return netip.Addr{}
}
