package demo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/control/client"
	"sixfour/internal/rig"
	"sixfour/internal/text"
)

// Broker is what the demonstration of a broker measured.
type Broker struct {
	Clients []BrokerClient `json:"clients"`
}

// BrokerClient is one client of the broker, behind the NAT.
type BrokerClient struct {
	Protocol string        `json:"protocol"`
	Address  string        `json:"address"` // of its end of the tunnel
	RTT      time.Duration `json:"rtt_ns"`  // median, to the host on the internet
}

const brokerNetwork = `
   home 1 .. 5               NAT                      broker                 a host on the internet
   192.168.N.2 --- 192.168.N.1  203.0.113.20 --- 203.0.113.10  2001:db8:1::1 --- 2001:db8:1::80
       |                                              |
      six0  =========== IPv6 in five ways ==========  six0
`

const brokerConfiguration = `[control]
socket = %q

[broker]
store     = %q
interface = "six0"
pool      = ["2001:db8:100::/40"]
endpoints = "2001:db8:ff::/48"
`

const brokerListen = `
[[broker.listen]]
protocol = %q
address  = "203.0.113.10"
`

const brokerTLS = `tls_certificate = %q
tls_key         = %q
`

// brokerClients are the clients: the protocol of each, with the lines of its tunnel. %[1]s is
// the account, %[2]s the file with its secret, %[3]v its end of the tunnel, and %[4]s the file
// with the certificate of the broker's authority.
var brokerClients = []struct{ protocol, lines string }{
	{"json", "id          = %[1]q\nsecret_file = %[2]q\n"},
	{"ayiya", "identity      = \"%[3]v\"\npassword_file = %[2]q\nroutes        = [\"::/0\"]\n"},
	{"heartbeat", "identity      = \"%[3]v\"\npassword_file = %[2]q\nroutes        = [\"::/0\"]\n"},
	{"tic", "user          = %[1]q\npassword_file = %[2]q\nca            = %[4]q\n"},
	{"tsp", "user          = %[1]q\npassword_file = %[2]q\n"},
}

var (
	brokerOuter = netip.MustParseAddr("203.0.113.10")
	natOuter    = netip.MustParseAddr("203.0.113.20")
	uplink      = [2]netip.Addr{netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:1::80")} // broker, host
)

// brokerReady is how long all clients have to get their tunnels.
const brokerReady = 20 * time.Second

// brokerDemo is one run.
type brokerDemo struct {
	demo     // its namespaces are the host on the internet and the broker
	nat      *rig.Namespace
	homes    []*rig.Namespace
	clients  []string // control sockets
	broker   string   // the same
	measured Broker
}

// RunBroker shows a broker and a client of each protocol behind a NAT. It tells what it does
// on w. Program is the path of sixfourd. It cleans up, whether it succeeds or not.
func RunBroker(ctx context.Context, w io.Writer, program string) (res Broker, err error) {
	dir, err := tempDir()
	if err != nil {
		return res, err
	}
	b := &brokerDemo{demo: demo{w: w, program: program, dir: dir, began: time.Now()}, broker: filepath.Join(dir, "broker.sock")}
	defer b.end()
	err = b.steps(ctx, []step{
		{"a broker, a host on the internet, and five homes behind a NAT", b.network},
		{"the broker's daemon", b.serve},
		{"a client in each home, with an account of its own", b.connect},
		{"ping from each home to the host on the internet", b.pings},
		{"what the broker has given away", b.leases},
	})
	return b.measured, err
}

func (b *brokerDemo) network(context.Context) (err error) {
	for at, name := range map[**rig.Namespace]string{&b.ns[0]: "host", &b.ns[1]: "broker", &b.nat: "nat"} {
		if *at, err = rig.New(name); err != nil {
			return err
		}
	}
	if err := rig.Veth(b.nat, "out", b.ns[1], "uplink", 1500); err != nil {
		return err
	}
	if err := rig.Veth(b.ns[1], "inet", b.ns[0], "eth0", 1500); err != nil {
		return err
	}
	type on struct {
		ns  *rig.Namespace
		dev string
		is  netip.Prefix
	}
	addresses := []on{
		{b.nat, "out", netip.PrefixFrom(natOuter, 24)}, {b.ns[1], "uplink", netip.PrefixFrom(brokerOuter, 24)},
		{b.ns[1], "inet", netip.PrefixFrom(uplink[0], 64)}, {b.ns[0], "eth0", netip.PrefixFrom(uplink[1], 64)},
	}
	for i := range brokerClients {
		home, err := rig.New(fmt.Sprintf("home%d", i+1))
		if err != nil {
			return err
		}
		b.homes = append(b.homes, home)
		in := fmt.Sprintf("in%d", i+1)
		if err := rig.Veth(home, "eth0", b.nat, in, 1500); err != nil {
			return err
		}
		net := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i + 1), 1}), 24)
		addresses = append(addresses, on{b.nat, in, net}, on{home, "eth0", netip.PrefixFrom(net.Addr().Next(), 24)})
	}
	for _, a := range addresses {
		if err := a.ns.AddAddr(a.dev, a.is); err != nil {
			return err
		}
	}
	for i, home := range b.homes {
		if err := home.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.AddrFrom4([4]byte{192, 168, byte(i + 1), 1}), "eth0"); err != nil {
			return err
		}
	}
	if err := b.ns[0].AddRoute(netip.MustParsePrefix("2001:db8::/32"), uplink[0], "eth0"); err != nil {
		return err
	}
	for _, router := range []*rig.Namespace{b.nat, b.ns[1]} {
		if err := router.Forward(); err != nil {
			return err
		}
	}
	if err := b.nat.Masquerade("out"); err != nil {
		return err
	}
	fmt.Fprint(b.w, brokerNetwork)
	return nil
}

// file writes a file for the daemons, and returns its path.
func (b *brokerDemo) file(name string, content []byte) (string, error) {
	path := filepath.Join(b.dir, name)
	return path, os.WriteFile(path, content, 0o600)
}

func (b *brokerDemo) serve(ctx context.Context) error {
	c, err := rig.NewCertificate(brokerOuter.String())
	if err != nil {
		return err
	}
	var files [3]string
	for i, f := range []struct {
		name    string
		content []byte
	}{{"ca.pem", c.CA}, {"broker.pem", c.Cert}, {"broker.key", c.Key}} {
		if files[i], err = b.file(f.name, f.content); err != nil {
			return err
		}
	}
	text := fmt.Sprintf(brokerConfiguration, b.broker, filepath.Join(b.dir, "broker.db"))
	for _, c := range brokerClients {
		text += fmt.Sprintf(brokerListen, c.protocol)
		if c.protocol == "tic" {
			text += fmt.Sprintf(brokerTLS, files[1], files[2])
		}
	}
	if err := b.daemon(b.ns[1], "broker", text); err != nil {
		return err
	}
	return b.until(ctx, ready, func() (bool, error) {
		s, err := client.Status(ctx, b.broker)
		if err != nil || s.Broker == nil {
			return false, err
		}
		return s.Broker.Error == "", errors.New(s.Broker.Error)
	})
}

// until waits until something is so.
func (b *brokerDemo) until(ctx context.Context, longest time.Duration, is func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	for {
		ok, err := is()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready after %v: the logs of the daemons are printed above (%w)", longest, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ask sends a request to the broker, and returns its answer, of one value.
func ask[V any](ctx context.Context, b *brokerDemo, q api.BrokerRequest) (v V, err error) {
	err = client.New(b.broker).Broker(ctx, q, func(line []byte) error { return json.Unmarshal(line, &v) })
	return v, err
}

const homeConfiguration = `[control]
socket = %q

[[tunnel]]
name   = "six0"
mode   = %q
server = "203.0.113.10"
`

func (b *brokerDemo) connect(ctx context.Context) error {
	ends := make([]string, len(brokerClients)) // of clients that are not told
	for i, c := range brokerClients {
		name := fmt.Sprintf("home%d", i+1)
		kind := "ayiya" // what TIC offers
		if c.protocol == "heartbeat" {
			kind = c.protocol
		}
		account, err := ask[api.BrokerAccount](ctx, b, api.BrokerRequest{Do: api.AccountAdd, Account: name, Type: &kind})
		if err != nil {
			return err
		}
		fmt.Fprintf(b.w, "  sixfourctl broker account add %s --type %s\n", name, kind)
		if ends[i] = account.Endpoint.String(); c.protocol == "json" {
			ends[i] = ""
		}
		secret, err := b.file(name+".secret", []byte(account.Password+"\n"))
		if err != nil {
			return err
		}
		socket := filepath.Join(b.dir, name+".sock")
		b.clients = append(b.clients, socket)
		lines := fmt.Sprintf(c.lines+"%.0[1]s%.0[2]s%.0[3]s%.0[4]s", name, secret, account.Endpoint, filepath.Join(b.dir, "ca.pem"))
		if err := b.daemon(b.homes[i], name, fmt.Sprintf(homeConfiguration, socket, c.protocol)+lines); err != nil {
			return err
		}
	}
	for i, c := range brokerClients {
		var t api.TunnelStatus
		err := b.until(ctx, brokerReady, func() (bool, error) {
			s, err := client.Status(ctx, b.clients[i])
			if err != nil {
				return false, err
			}
			t = s.Tunnels[0]
			ends[i] = cmp.Or(t.Session.Address, ends[i])
			return t.State.Phase == api.Up && t.Session.State == api.SessionUp && ends[i] != "", fmt.Errorf("the tunnel of %s is %s", c.protocol, t.State.Phase)
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(b.w, "  %-10s %v\n", c.protocol, ends[i])
		b.measured.Clients = append(b.measured.Clients, BrokerClient{Protocol: c.protocol, Address: ends[i]})
	}
	return nil
}

// brokerPings is how many pings each client sends.
const brokerPings = 20

func (b *brokerDemo) pings(ctx context.Context) error {
	for i := range b.measured.Clients {
		c := &b.measured.Clients[i]
		res, err := rig.Ping(ctx, b.homes[i], uplink[1], rig.PingOptions{Size: 1000, Count: brokerPings})
		if err != nil {
			return err
		}
		if res.Received == 0 {
			return fmt.Errorf("%s: none of %d pings was answered", c.Protocol, res.Sent)
		}
		slices.Sort(res.RTTs)
		c.RTT = res.RTTs[len(res.RTTs)/2]
		fmt.Fprintf(b.w, "  %-10s %d of %d answered, median round trip %v\n", c.Protocol, res.Received, res.Sent, round(c.RTT))
	}
	return nil
}

func (b *brokerDemo) leases(ctx context.Context) error {
	fmt.Fprintf(b.w, "  sixfourctl broker lease list\n  %-8s %-24s %-10s %s\n", "ACCOUNT", "PREFIX", "PROTOCOL", "OUTER ADDRESS")
	return client.New(b.broker).Broker(ctx, api.BrokerRequest{Do: api.LeaseList}, func(line []byte) error {
		var l api.BrokerLease
		if err := json.Unmarshal(line, &l); err != nil {
			return err
		}
		fmt.Fprintf(b.w, "  %-8s %-24v %-10s %s\n", l.Account, l.Prefix, l.Protocol, text.Outer(l.Outer))
		return nil
	})
}

// end cleans up: first the clients, and the broker's daemon, which was started first, last.
func (b *brokerDemo) end() {
	slices.Reverse(b.daemons)
	b.cleanUp()
	for _, ns := range append(b.homes, b.nat) {
		if ns != nil {
			ns.Close()
		}
	}
}
