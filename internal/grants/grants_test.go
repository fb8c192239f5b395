package grants

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	wire "sixfour/encap/tic"
	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/configfile"
	"sixfour/internal/session/tic"
)

// files of tunnels, without what their secrets are.
const (
	jsonTunnel  = "[[tunnel]]\nname = 'six0'\nmode = 'json'\nserver = '192.0.2.9'\nid = 'a'\n"
	ticTunnel   = "[[tunnel]]\nname = 'six1'\nmode = 'tic'\nserver = 'tic.example'\nuser = 'u'\npassword_file = '/p'\n"
	ayiyaTunnel = "[[tunnel]]\nname = 'six2'\nmode = 'ayiya'\nserver = '192.0.2.9'\nidentity = '2001:db8:f::2'\npassword_file = '/p'\n"
	plain       = "[[tunnel]]\nname = 'six3'\nmode = '6in4'\nlocal = '192.0.2.1'\nremote = '192.0.2.3'\naddress = ['2001:db8:33::1/64']\nroutes = ['2001:db8:34::/48']\n"
)

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := configfile.Parse("file", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.Tunnels {
		client := &c.Tunnels[i].Client
		if s, ok := client.Settings.(config.TIC); ok {
			s.Password = s.Password.With("secret")
			client.Settings = s
		}
	}
	return c
}

// clock is a time that tests move. Every pause ends when a test says so.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	waits []wait
	asked chan time.Duration // each pause
}

type wait struct {
	at time.Time
	ch chan time.Time
}

func newClock() *clock {
	return &clock{now: time.Unix(1_700_000_000, 0), asked: make(chan time.Duration, 100)}
}

func (c *clock) clock() Clock {
	return Clock{
		Now: func() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now },
		After: func(d time.Duration) <-chan time.Time {
			c.mu.Lock()
			w := wait{c.now.Add(d), make(chan time.Time, 1)}
			c.waits = append(c.waits, w)
			c.mu.Unlock()
			if d != lookAgain && d != lookSoon {
				c.asked <- d
			}
			return w.ch
		},
	}
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.waits = slices.DeleteFunc(c.waits, func(w wait) bool {
		if w.at.After(c.now) {
			return false
		}
		w.ch <- c.now
		return true
	})
}

// rig is a Set with an engine that takes configurations or refuses them.
type rig struct {
	*Set
	clock  *clock
	t      *testing.T
	mu     sync.Mutex
	events []string
	seen   map[string]Seen
}

func newRig(t *testing.T, learn learner) *rig {
	r := &rig{clock: newClock(), t: t}
	r.Set = New(Options{
		Log: zap.NewNop(), Clock: r.clock.clock(), learn: learn,
		Event: func(e api.Event) { r.mu.Lock(); defer r.mu.Unlock(); r.events = append(r.events, e.Kind+" "+e.Text) },
		Look:  func() map[string]Seen { r.mu.Lock(); defer r.mu.Unlock(); return r.seen },
		Networks: func() map[string][]netip.Prefix {
			return map[string][]netip.Prefix{"eth0": {netip.MustParsePrefix("2001:db8:a:1::5/64"), netip.MustParsePrefix("192.0.2.1/24")}}
		},
	})
	return r
}

// run applies a configuration, and returns what the engine gets.
func (r *rig) run(c *config.Config, err error, reread bool) *config.Config {
	a := r.Apply(c)
	a.Done(err, reread)
	return a.Config
}

func (r *rig) status(tunnel string) *api.Session {
	s := api.Status{Tunnels: []api.TunnelStatus{{Name: tunnel}}}
	r.Fill(&s)
	return s.Tunnels[0].Session
}

func reports(c *config.Config, i int) config.Reports {
	return config.ReportsOf(c.Tunnels[i].Peers[0].Paths[0].Session)
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// What a server grants is added to the tunnel of the file, stays on a reload, and ends with the
// settings of the session.
func TestGranted(t *testing.T) {
	r := newRig(t, nil)
	file := parse(t, plain+jsonTunnel)
	before := r.run(file, nil, true)
	if len(before.Tunnels[1].Address) != 0 || len(before.Tunnels[1].Routes) != 0 || r.status("six0").State != api.SessionConnecting || r.status("six3") != nil {
		t.Fatalf("%+v", before.Tunnels[1])
	}
	to := reports(before, 1)
	to.Granted(config.Grant{Address: prefix("2001:db8:9::1/64"), Routed: []netip.Prefix{prefix("2001:db8:9::/64")}})
	to.Connected(netip.MustParseAddrPort("192.0.2.9:14629"), nil)
	<-r.wake
	after := r.run(file, nil, false)
	got := &after.Tunnels[1]
	if !slices.Equal(got.Address, []netip.Prefix{prefix("2001:db8:9::1/64")}) || !slices.Equal(got.Routes, []netip.Prefix{allIPv6}) || reports(after, 1) != to {
		t.Errorf("granted: %+v", got)
	}
	if d := before.Tunnels[1].Difference(got); !slices.Equal(d.Keys, []string{"granted"}) {
		t.Errorf("the difference is %+v", d)
	}
	if s := r.status("six0"); s.State != api.SessionUp || s.Address != "2001:db8:9::1/64" || !slices.Equal(s.Routed, []string{"2001:db8:9::/64"}) || s.Type != "TCP" || s.Attempts["success"] != 1 {
		t.Errorf("the status is %+v", s)
	}
	again := r.run(parse(t, jsonTunnel), nil, true) // without the other tunnel
	if d := got.Difference(&again.Tunnels[0]); !d.None() {
		t.Errorf("a reload changes %+v", d)
	}
	other := r.run(parse(t, strings.Replace(jsonTunnel, "'a'", "'b'", 1)), nil, true)
	if len(other.Tunnels[0].Address) != 0 || reports(other, 0) == to || r.status("six0").State != api.SessionConnecting {
		t.Error("another id has the grant of the former one")
	}
	if !slices.Contains(r.events, "session 192.0.2.9: the server grants 2001:db8:9::1/64, and routes 2001:db8:9::/64 to it") {
		t.Errorf("the events are %q", r.events)
	}
}

// A reload that the engine refuses changes no session.
func TestRefusedReload(t *testing.T) {
	r := newRig(t, nil)
	first := r.run(parse(t, jsonTunnel), nil, true)
	to := reports(first, 0)
	r.run(parse(t, strings.Replace(jsonTunnel, "'a'", "'b'", 1)), errors.New("no"), true)
	if again := r.run(parse(t, jsonTunnel), nil, true); reports(again, 0) != to {
		t.Error("the session is another one")
	}
}

// A grant that the engine refuses is taken back, and tried again later.
func TestRefusedGrant(t *testing.T) {
	r := newRig(t, nil)
	file := parse(t, jsonTunnel)
	to := reports(r.run(file, nil, true), 0)
	to.Granted(config.Grant{Address: prefix("2001:db8:9::1/64")})
	r.run(file, errors.New("the kernel says no"), false)
	if got := r.run(file, nil, false); len(got.Tunnels[0].Address) != 0 {
		t.Error("the grant is used again at once")
	}
	if s := r.status("six0"); !strings.Contains(s.Error, "the kernel says no") || s.Address != "" {
		t.Errorf("the status is %+v", s)
	}
	<-r.wake
	r.clock.advance(2 * applyAgain)
	r.look()
	<-r.wake
	if got := r.run(file, nil, false); len(got.Tunnels[0].Address) != 1 {
		t.Error("the grant is not tried again")
	}
}

// If one of several new grants is refused by the engine, the others are used.
func TestOneOfSeveralRefused(t *testing.T) {
	r := newRig(t, nil)
	text := ""
	for _, n := range []string{"1", "2", "3"} {
		text += strings.NewReplacer("six0", "six"+n, "192.0.2.9", "192.0.2.1"+n).Replace(jsonTunnel) + "routes = []\n"
	}
	file := parse(t, text)
	first := r.run(file, nil, true)
	for i := range file.Tunnels {
		reports(first, i).Granted(config.Grant{Address: prefix(fmt.Sprintf("2001:db8:9:%d::1/64", i))})
	}
	runs := 0
	for ; len(r.wake) > 0; runs++ {
		<-r.wake
		a := r.Apply(file)
		var err error
		if len(a.Config.Tunnels[1].Address) > 0 {
			err = errors.New("the second one is wrong")
		}
		a.Done(err, false)
		if runs > 10 {
			t.Fatal("it does not end")
		}
	}
	got := r.Apply(file).Config
	for i := range got.Tunnels {
		if used := len(got.Tunnels[i].Address) > 0; used != (i != 1) {
			t.Errorf("grant %d is used: %v, after %d attempts", i, used, runs)
		}
	}
	if s := r.status("six2"); !strings.Contains(s.Error, "the second one is wrong") {
		t.Errorf("the status is %+v", s)
	}
}

// What servers must not grant is refused, with words.
func TestUnsafe(t *testing.T) {
	path := func(remote string) *config.Path {
		return &config.Path{Encap: config.NoEncapsulation, Remote: config.Host{Addr: netip.MustParseAddr(remote)}}
	}
	for _, c := range []struct {
		grant config.Grant
		want  string // "": it is safe
	}{
		{config.Grant{Address: prefix("2001:db8:9::1/64"), MTU: 1280}, ""},
		{config.Grant{Address: prefix("2001:db8:9::1/64"), Routed: []netip.Prefix{prefix("2001:db8:a::/48")}}, ""}, // eth0 has a network of it
		{config.Grant{Address: prefix("2001:db8:9::1/64"), MTU: 1279}, "an MTU of 1279, which is not between 1280"},
		{config.Grant{Address: prefix("2001:db8:9::1/64"), MTU: 70000}, "an MTU of 70000"},
		{config.Grant{Address: prefix("fe80::1/64")}, "the address fe80::1/64, of a link-local network"},
		{config.Grant{Address: prefix("::1/128")}, "the address ::1/128, which is not of IPv6 or not a host's"},
		{config.Grant{Address: prefix("192.0.2.77/24")}, "the address 192.0.2.77/24, which is not of IPv6"},
		{config.Grant{Address: prefix("ff02::1/64")}, "the address ff02::1/64, of a multicast network"},
		{config.Grant{Address: prefix("2002:c000:201::1/64")}, "of the network of 6to4"},
		{config.Grant{Address: prefix("2001:db8:a:1::7/64")}, "the address 2001:db8:a:1::7/64, which is in the network 2001:db8:a:1::/64 of interface eth0 of this host"},
		{config.Grant{Address: prefix("2001:db8:9::1/64"), Routed: []netip.Prefix{prefix("2001:db8:a:1:8000::/80")}}, "the prefix 2001:db8:a:1:8000::/80, which is in the network 2001:db8:a:1::/64 of interface eth0"},
		{config.Grant{Address: prefix("2001:db8:9::1/64"), Routed: []netip.Prefix{prefix("::/0")}}, "the prefix ::/0, which is not of IPv6 or not a host's"},
		{config.Grant{Address: prefix("2001:db8:9::1/64"), Routed: []netip.Prefix{prefix("2000::/3")}}, "the prefix 2000::/3, which is most of the Internet"},
		{config.Grant{Address: prefix("2001:db8:9::1/64"), Routed: []netip.Prefix{prefix("2001:db8:34::/48")}}, "the prefix 2001:db8:34::/48, which covers 2001:db8:34::/48 of the tunnel six3"},
		{config.Grant{Address: prefix("2001:db8:33::9/64")}, "the address 2001:db8:33::9/64, which covers 2001:db8:33::1/64 of the tunnel six3"},
		{config.Grant{Address: prefix("2001:db8:9::1/64"), Path: path("192.0.2.1")}, "the outer address 192.0.2.1, which is this host's own, of interface eth0"},
		{config.Grant{Address: prefix("2001:db8:9::1/64"), Path: path("127.0.0.1")}, "the outer address 127.0.0.1, to which no packets can be sent"},
		{config.Grant{Address: prefix("2001:db8:9::1/64"), Path: path("224.0.0.1")}, "the outer address 224.0.0.1, to which no packets can be sent"},
	} {
		r := newRig(t, nil)
		file := parse(t, plain+jsonTunnel)
		to := reports(r.run(file, nil, true), 1)
		to.Granted(c.grant)
		got := r.run(file, nil, false)
		s := r.status("six0")
		if used := len(got.Tunnels[1].Address) > 0; used != (c.want == "") || c.want != "" && !strings.HasPrefix(s.Error, "what the server grants is refused: ") || !strings.Contains(s.Error, c.want) {
			t.Errorf("%+v: used %v, %q, want %q", c.grant, used, s.Error, c.want)
		}
	}
}

// The first tunnel that a server grants addresses has the default route, unless a tunnel has it
// already, or the file says otherwise.
func TestDefaultRoute(t *testing.T) {
	second := strings.NewReplacer("six0", "six9", "192.0.2.9", "192.0.2.8").Replace(jsonTunnel)
	for _, c := range []struct {
		text string
		want []bool
	}{
		{jsonTunnel + second, []bool{true, false}},
		{jsonTunnel + "routes = []\n" + second, []bool{false, true}},
		{jsonTunnel + "routes = ['2001:db8:1::/48']\n", []bool{false}},
		{jsonTunnel + ayiyaTunnel + "routes = ['::/0']\n", []bool{false, true}},
		{strings.Replace(jsonTunnel, "192.0.2.9", "2001:db8::9", 1), []bool{false}},
		{jsonTunnel + "netns = 'a'\n" + second, []bool{true, true}},
		{ayiyaTunnel, []bool{false}},
	} {
		r := newRig(t, nil)
		file := parse(t, c.text)
		first := r.run(file, nil, true)
		for i := range file.Tunnels {
			reports(first, i).Granted(config.Grant{Address: netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 9, 0, byte(i), 15: 1}), 64)})
		}
		got := r.run(file, nil, false)
		for i, want := range c.want {
			if has := slices.Contains(got.Tunnels[i].Routes, allIPv6); has != want {
				t.Errorf("%s\ntunnel %d has the default route: %v", c.text, i, has)
			}
		}
	}
}

// A dialogue is repeated until it succeeds, with pauses that grow; then the tunnel is of the type
// that the server says, and stays when the server fails.
func TestTIC(t *testing.T) {
	answers := make(chan func() (wire.Tunnel, error), 100)
	asked := make(chan tic.ClientConfig, 100)
	r := newRig(t, func(ctx context.Context, c tic.ClientConfig) (wire.Tunnel, error) {
		asked <- c
		select {
		case f := <-answers:
			return f()
		case <-ctx.Done():
			return wire.Tunnel{}, ctx.Err()
		}
	})
	file := parse(t, ticTunnel)
	if first := r.run(file, nil, true); first.Tunnels[0].Peers[0].Paths[0].Waits == "" {
		t.Error("the path does not wait")
	}
	ctx, stop := context.WithCancel(t.Context())
	applied := make(chan *config.Config, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx, func(context.Context) error { applied <- r.run(file, nil, false); return nil })
	}()
	for i := range 8 {
		if c := <-asked; c.User != "u" || c.Password != "secret" || c.Server != "tic.example:3874" {
			t.Fatalf("asked %+v", c)
		}
		answers <- func() (wire.Tunnel, error) { return wire.Tunnel{}, errors.New("400 the password is wrong") }
		pause := <-r.clock.asked
		if want := min(firstRetry<<i, lastRetry); pause < want*3/4 || pause > want*5/4 {
			t.Errorf("the pause after failure %d is %v", i+1, pause)
		}
		if s := r.status("six1"); s.State != api.SessionRetrying || s.Error != "400 the password is wrong" || s.Next.IsZero() || s.Attempts["failure"] != uint64(i+1) {
			t.Errorf("the status is %+v", s)
		}
		r.clock.advance(pause)
	}
	tunnel := wire.Tunnel{ID: "T1", Type: wire.TypeAYIYA, Client: netip.MustParseAddr("2001:db8:9::2"), Broker: netip.MustParseAddr("2001:db8:9::1"), Bits: 64, MTU: 1280, Server: netip.MustParseAddr("198.51.100.1"), Password: "tunnel"}
	<-asked
	answers <- func() (wire.Tunnel, error) { return tunnel, nil }
	got := &(<-applied).Tunnels[0]
	path := got.Peers[0].Paths[0]
	of, ok := path.Session.(config.AYIYA)
	if !ok || of.Password.Value() != "tunnel" || of.Identity != tunnel.Client || of.Reports == nil || path.Port != 5072 || path.Remote.Addr != tunnel.Server || path.Waits != "" || got.MTU != 1280 || got.Peers[0].Probe != tunnel.Broker || got.Mode.Name != "tic" {
		t.Errorf("granted: %+v, path %+v", got, path)
	}
	pause := <-r.clock.asked
	if pause < askAgain*3/4 {
		t.Errorf("it is asked again after %v", pause)
	}
	r.clock.advance(pause)
	<-asked
	answers <- func() (wire.Tunnel, error) { return wire.Tunnel{}, errors.New("away") }
	pause = <-r.clock.asked
	if s := r.status("six1"); s.State != api.SessionRetrying || s.Address != "2001:db8:9::2/64" || s.Type != "ayiya" {
		t.Errorf("the status is %+v", s)
	}
	r.clock.advance(pause)
	tunnel.Type, tunnel.MTU = wire.Type6in4, 1480
	<-asked
	answers <- func() (wire.Tunnel, error) { return tunnel, nil }
	got = &(<-applied).Tunnels[0]
	if path := got.Peers[0].Paths[0]; path.Encap != config.NoEncapsulation || path.Session != nil || got.MTU != 0 {
		t.Errorf("granted: %+v, path %+v", got, path)
	}
	stop()
	<-done
}

// Tunnels of TIC that cannot be used are errors.
func TestUnusableTIC(t *testing.T) {
	r := newRig(t, nil)
	file := parse(t, ticTunnel)
	r.run(file, nil, true)
	good := wire.Tunnel{ID: "T1", Type: wire.Type6in4, Client: netip.MustParseAddr("2001:db8:9::2"), Bits: 64, Server: netip.MustParseAddr("198.51.100.1")}
	for name, change := range map[string]func(*wire.Tunnel){
		"disabled":           func(t *wire.Tunnel) { t.Disabled = "user" },
		"no address of IPv6": func(t *wire.Tunnel) { t.Client = netip.MustParseAddr("192.0.2.1") },
		"with a prefix":      func(t *wire.Tunnel) { t.Bits = 0 },
		"to which IPv4":      func(t *wire.Tunnel) { t.Server = netip.Addr{} },
		`of the type "l2tp"`: func(t *wire.Tunnel) { t.Type = "l2tp" },
	} {
		one := good
		change(&one)
		if _, err := r.current["six1"].ofTIC(&one); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A tunnel in protocol 41 that TSP has granted is negotiated again when our address changes, or
// when the server is gone for a while.
func TestNegotiatedAgain(t *testing.T) {
	for name, now := range map[string]Seen{
		"moved": {Phase: api.Up, Local: netip.MustParseAddr("192.0.2.7")},
		"down":  {Phase: api.Down, Local: netip.MustParseAddr("192.0.2.1"), Since: time.Unix(1_700_000_000, 0)},
	} {
		r := newRig(t, nil)
		file := parse(t, "[[tunnel]]\nname = 'six0'\nmode = 'tsp'\nserver = '192.0.2.9'\n")
		to := reports(r.run(file, nil, true), 0)
		to.Granted(config.Grant{Address: prefix("2001:db8:9::2/64"), Path: &config.Path{Encap: config.NoEncapsulation, Remote: config.Host{Addr: netip.MustParseAddr("192.0.2.9")}}})
		<-r.wake
		got := r.run(file, nil, false)
		if p := got.Tunnels[0].Peers[0].Paths[0]; p.Session != nil || r.status("six0").State != api.SessionUp || r.status("six0").Type != "6in4" {
			t.Errorf("%s: %+v", name, p)
		}
		look := func(s Seen) {
			r.mu.Lock()
			r.seen = map[string]Seen{"six0": s}
			r.mu.Unlock()
			r.look()
		}
		look(Seen{Phase: api.Up, Local: netip.MustParseAddr("192.0.2.1")})
		if len(r.wake) != 0 {
			t.Errorf("%s: at once", name)
		}
		r.clock.advance(2 * downFor)
		look(now)
		<-r.wake
		got = r.run(file, nil, false)
		if p := got.Tunnels[0].Peers[0].Paths[0]; p.Session == nil || len(got.Tunnels[0].Address) != 1 {
			t.Errorf("%s: %+v", name, got.Tunnels[0])
		}
	}
}
