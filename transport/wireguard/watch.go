package wireguard

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// The device does not report handshakes. A goroutine asks for their times, regularly and
// after the socket has received what may change them.

// watched is what the watching goroutine knows about a peer.
type watched struct {
	handshake stamp          // of the last handshake
	since     time.Time      // when that was first seen
	endpoint  netip.AddrPort // where the device sends to; the zero value: it does not know
	asked     time.Time      // when the port last asked for a handshake
}

// stamp is a time of the device.
type stamp struct{ sec, nsec int64 }

// timing is how long things take. Tests have other values.
type timing struct {
	every time.Duration // between two looks at the device
	renew time.Duration // the age at which a session is renewed that nobody uses
	end   time.Duration // the age at which a session cannot be used any more
	ask   time.Duration // between two attempts without a session
	quit  time.Duration // for how long after its end a session with a peer whose address was learnt is asked for
}

// usualTiming follows WireGuard's. Both ends forget a session after RejectAfterTime; the
// device renews sessions that are in use, but not those by which nothing is sent. After
// RekeyAttemptTime it gives up, and the peer at a learnt address has probably left.
var usualTiming = timing{
	every: time.Second,
	renew: device.RejectAfterTime - device.KeepaliveTimeout - device.RekeyTimeout,
	end:   device.RejectAfterTime,
	ask:   device.RekeyTimeout,
	quit:  device.RekeyAttemptTime,
}

// retries is how often the goroutine looks again, each time later, when something may be
// about to change; the first time after firstRetry.
const (
	firstRetry = time.Millisecond
	retries    = 5
	backoff    = 4
)

// load is how much longer the goroutine rests than it works, at least: strangers can make it
// look again.
const load = 20

// arrived notes a message. Handshake messages, and others from new addresses, may change
// something.
func (p *Port) arrived(kind uint32, from netip.AddrPort) {
	if kind == device.MessageTransportType {
		if known := p.known.Load(); known != nil {
			if _, ok := (*known)[p.tunnel.withZone(from)]; ok {
				return
			}
		}
	}
	signal(p.kick)
}

// watch runs until the port is closed.
func (p *Port) watch(t timing) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	left, rest, wait := 0, time.Duration(0), time.Duration(0)
	for {
		select {
		case <-p.closed:
			return
		case <-p.kick:
			left, wait = retries, firstRetry
		case <-timer.C:
			start := time.Now()
			p.look(t, start)
			rest = load * time.Since(start)
			left, wait = left-1, wait*backoff
		}
		if left <= 0 {
			wait = t.every
		}
		timer.Reset(max(wait, rest))
	}
}

// look compares what the device says with what is known of each peer.
func (p *Port) look(t timing, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	peers := p.peers.Load().peers
	before := make([]*address, len(peers))
	for i, w := range peers {
		before[i] = w.at.Load()
	}
	state := reader{port: p, states: make(map[PublicKey]state, len(peers))}
	if err := p.device.IpcGetOperation(&state); err != nil {
		return
	}
	known := make(map[netip.AddrPort]struct{}, len(peers))
	for i, w := range peers {
		s, ok := state.states[w.settings.PublicKey]
		if !ok {
			continue
		}
		w.endpoint = s.endpoint
		if s.handshake != w.handshake {
			w.handshake, w.since = s.handshake, now
		}
		switch fresh := w.handshake != (stamp{}) && now.Sub(w.since) < t.end; {
		case fresh && s.endpoint.IsValid():
			w.seenAt(s.endpoint, before[i])
		case !fresh && before[i] != nil:
			w.ended(fmt.Errorf("no WireGuard handshake with %v for %v", before[i].now, t.end))
		}
		if a := w.at.Load(); a != nil {
			known[a.now] = struct{}{}
		}
		p.renew(w, t, now)
	}
	p.known.Store(&known)
}

// renew asks for a handshake, if there is no session or it is soon too old.
func (p *Port) renew(w *peer, t timing, now time.Time) {
	age := now.Sub(w.since)
	if w.handshake != (stamp{}) && age < t.renew || !w.endpoint.IsValid() || now.Sub(w.asked) < t.ask {
		return
	}
	if !w.remote.IsValid() && age > t.end+t.quit {
		return
	}
	if d := p.device.LookupPeer(device.NoisePublicKey(w.settings.PublicKey)); d != nil {
		w.asked = now
		_ = d.SendHandshakeInitiation(false) // an error is that of the socket; the next attempt is soon
	}
}

// state is what the device says about a peer.
type state struct {
	endpoint  netip.AddrPort
	handshake stamp
}

// reader is an io.Writer for the answer of the device, which is in the language of wg(8), and
// has the keys, too. It keeps none of them but public keys.
type reader struct {
	port   *Port
	states map[PublicKey]state
	key    PublicKey
}

// Write is called once, with the whole answer.
func (r *reader) Write(answer []byte) (int, error) {
	for line := range bytes.Lines(answer) {
		name, value, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte("="))
		s := r.states[r.key]
		switch string(name) {
		case "public_key":
			if hex.DecodedLen(len(value)) != len(r.key) {
				continue
			}
			_, _ = hex.Decode(r.key[:], value)
			s = state{}
		case "endpoint":
			a, err := netip.ParseAddrPort(string(value))
			if err != nil {
				continue
			}
			s.endpoint = r.port.tunnel.withZone(a)
		case "last_handshake_time_sec":
			s.handshake.sec, _ = strconv.ParseInt(string(value), 10, 64)
		case "last_handshake_time_nsec":
			s.handshake.nsec, _ = strconv.ParseInt(string(value), 10, 64)
		default:
			continue
		}
		r.states[r.key] = s
	}
	return len(answer), nil
}
