package lisp

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/vectors"
)

var key = []byte("lisp-key")

// messages returns the control messages of the vectors: those from or to the control port.
func messages(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for name, b := range vectors.Read(t) {
		if !strings.HasPrefix(name, "LISP-") {
			continue
		}
		udp := b[header.IPv4Len:]
		if int(udp[0])<<8|int(udp[1]) == ControlPort || int(udp[2])<<8|int(udp[3]) == ControlPort {
			all[name] = udp[8:]
		}
	}
	if len(all) < 18 {
		t.Fatalf("only %d vectors", len(all))
	}
	return all
}

// Every vector is read, and written again as it was.
func TestVectors(t *testing.T) {
	for name, b := range messages(t) {
		typ, err := MessageType(b)
		if err != nil {
			t.Fatal(err)
		}
		if typ == TypeEncapsulated {
			inner, err := Encapsulated(b)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got := append(AppendEncapsulation(nil), inner...); !bytes.Equal(got, b) {
				t.Errorf("%s: written as\n%x, want\n%x", name, got, b)
			}
			from, to, inside, err := Inside(inner)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got := AppendInside(nil, from, to, inside); !bytes.Equal(got[len(got)-len(inside)-8:], b[len(b)-len(inside)-8:]) {
				t.Errorf("%s: written as\n%x, want\n%x", name, got, b)
			}
			b, typ = inside, TypeRequest
		}
		var got []byte
		switch typ {
		case TypeRequest:
			m, err := ParseRequest(b)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			got = m.Append(nil)
		case TypeReply:
			m, err := ParseReply(b)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			got = m.Append(nil)
		default:
			m, err := ParseRegistration(b)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if err := m.Verify(b, key); (err != nil) != (name == "LISP-D1") {
				t.Errorf("%s: Verify: %v", name, err)
			}
			if m.Verify(b, []byte("another")) == nil {
				t.Errorf("%s: accepted with another key", name)
			}
			if name == "LISP-D1" || name == "LISP-19" {
				continue // a wrong MAC, and one that ends at the last record
			}
			got = m.Append(nil, key, m.Cut())
		}
		if !bytes.Equal(got, b) {
			t.Errorf("%s: written as\n%x, want\n%x", name, got, b)
		}
	}
}

// Fields are where the RFC has them.
func TestFields(t *testing.T) {
	all := messages(t)
	m, err := ParseReply(all["LISP-7"])
	if err != nil {
		t.Fatal(err)
	}
	want := &Reply{Nonce: 0xa1a2a3a4a5a6a7a8, Records: []Record{
		{TTL: 15, EID: EID{Prefix: netip.MustParsePrefix("2001:db8:f000::/36")}, Action: NativelyForward}}}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("negative reply is %+v, want %+v", m, want)
	}
	q, err := ParseRequest(all["LISP-23"])
	if err != nil {
		t.Fatal(err)
	}
	if !q.Solicit || q.Probe || len(q.EIDs) != 1 || q.EIDs[0] != (EID{Prefix: netip.MustParsePrefix("2001:db8:e2::/48")}) ||
		q.Locators[0] != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("request is %+v", q)
	}
	r, err := ParseRegistration(all["LISP-18"])
	if err != nil {
		t.Fatal(err)
	}
	if r.Site != 9 || r.XTR[0] != 0xa0 || r.Nonce != 4 || !r.Proxy || !r.WantNotify ||
		r.Records[0].Locators[0].Flags != LocatorLocal|LocatorReachable || r.Records[0].Locators[0].Weight != 100 {
		t.Errorf("registration is %+v", r)
	}
}

// Identifiers that authentication data does not cover are not believed.
func TestIdentifiers(t *testing.T) {
	all := messages(t)
	for name, covered := range map[string]bool{"LISP-18": true, "LISP-19": false} {
		b := all[name]
		m, err := ParseRegistration(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Verify(b, key); err != nil || m.Identified != covered || (m.Site == 9) != covered {
			t.Errorf("%s: Verify: %v; identified %v, site %d", name, err, m.Identified, m.Site)
		}
		b = bytes.Clone(b)
		b[len(b)-1] ^= 1
		m, _ = ParseRegistration(b)
		if err := m.Verify(b, key); (err == nil) == covered {
			t.Errorf("%s with another site: Verify: %v", name, err)
		}
	}
}

// A message that ends early is refused, wherever it ends.
func TestTruncated(t *testing.T) {
	for name, b := range messages(t) {
		for n := range len(b) {
			var err error
			switch Type(b[0] >> 4) {
			case TypeRequest:
				_, err = ParseRequest(b[:n])
			case TypeReply:
				_, err = ParseReply(b[:n])
			case TypeEncapsulated:
				continue
			default:
				_, err = ParseRegistration(b[:n])
			}
			if err != ErrShort {
				t.Fatalf("%s: %d of %d bytes: %v", name, n, len(b), err)
			}
		}
	}
}

// Instance identifiers are read and written in each message; a locator in another format is
// kept as it is.
func TestInstances(t *testing.T) {
	e := EID{7, netip.MustParsePrefix("2001:db8:e1::/48")}
	q := &Request{Source: HostEID(7, netip.MustParseAddr("10.0.0.1")), Locators: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, EIDs: []EID{e, {Prefix: e.Prefix}}}
	got, err := ParseRequest(q.Append(nil))
	if err != nil || !reflect.DeepEqual(got, q) {
		t.Errorf("request is read as %+v, %v", got, err)
	}
	name := string([]byte{0x40, 0x03, 0, 0, 1, 32, 0, 6, 0, 1, 192, 0, 2, 1})
	m := &Registration{Type: TypeRegister, Algorithm: SHA256, Records: []Record{
		{TTL: 3, EID: e, Locators: []Locator{{Other: name}, {Priority: 1, Addr: netip.MustParseAddr("2001:db8::1")}}}}}
	b := m.Append(nil, key, false)
	r, err := ParseRegistration(b)
	if err != nil || r.Verify(b, key) != nil || !reflect.DeepEqual(r.Records, m.Records) {
		t.Errorf("registration is read as %+v, %v", r, err)
	}
	at := bytes.Index(b, []byte{0x40, 3, 0, 0, 2, 0, 0, 22})
	if at < 0 {
		t.Fatalf("%x has no instance identifier", b)
	}
	for what, change := range map[string]func([]byte){
		"identifier of 25 bits": func(b []byte) { b[at+8] = 1 },
		"another type":          func(b []byte) { b[at+4] = 3 },
		"another family":        func(b []byte) { b[at+13] = 9 },
		"address too long":      func(b []byte) { b[at+13] = 1 },
	} {
		c := bytes.Clone(b)
		change(c)
		r, err := ParseRegistration(c)
		if err != nil || len(r.Records) != 1 || r.Records[0].EID.IsValid() || len(r.Records[0].Locators) != 2 {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
	}
	if s := e.String(); s != "[7]2001:db8:e1::/48" || (EID{Prefix: e.Prefix}).String() != "2001:db8:e1::/48" {
		t.Error(s)
	}
	wide := EID{7, netip.MustParsePrefix("2001:db8::/32")}
	if !wide.Contains(e) || e.Contains(wide) || wide.Contains(EID{8, e.Prefix}) || wide.Contains(EID{}) || (EID{}).Contains(e) {
		t.Error("Contains is wrong")
	}
}

// What an encapsulated control message must have inside is checked.
func TestInside(t *testing.T) {
	for _, a := range []string{"10.0.0.1", "2001:db8::1"} {
		from, to := netip.AddrPortFrom(netip.MustParseAddr(a), 5000), netip.AddrPortFrom(netip.MustParseAddr(a).Next(), ControlPort)
		packet, err := Encapsulated(AppendInside(nil, from, to, []byte("message!")))
		if err != nil {
			t.Fatal(err)
		}
		f, d, m, err := Inside(append(bytes.Clone(packet), 0, 0))
		if err != nil || f != from || d != to || string(m) != "message!" {
			t.Errorf("%s: %v %v %q %v", a, f, d, m, err)
		}
		udp := len(packet) - 8 - header.UDPLen
		for what, change := range map[string]func([]byte){
			"another port": func(b []byte) { b[udp+3]++ },
			"checksum":     func(b []byte) { b[len(b)-1]++ },
			"no checksum":  func(b []byte) { b[udp+6], b[udp+7] = 0, 0 },
			"length":       func(b []byte) { b[udp+5]-- },
			"protocol":     func(b []byte) { b[6], b[9] = 6, 6 },
			"version":      func(b []byte) { b[0] = 0x55 },
			"total length": func(b []byte) { clear(b[2:6]) },
		} {
			b := bytes.Clone(packet)
			change(b)
			if _, _, _, err := Inside(b); err == nil {
				t.Errorf("%s: %s: accepted", a, what)
			}
		}
		for n := range packet {
			if _, _, _, err := Inside(packet[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes are accepted", a, n, len(packet))
			}
		}
	}
}

// An address in canonical format is skipped, and what follows is read.
func TestCanonicalFormat(t *testing.T) {
	b := []byte{0x20, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1,
		0, 0, 0, 5, 0, 32, 0x10, 0, 0, 0, 0x40, 0x03, 0, 0, 4, 32, 0, 10, 0, 0, 0, 7, 0, 1, 192, 0, 2, 0,
		0, 0, 0, 6, 0, 24, 0x10, 0, 0, 0, 0, 1, 198, 51, 100, 0}
	m, err := ParseReply(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Records) != 2 || m.Records[0].EID.IsValid() || m.Records[1].EID != (EID{Prefix: netip.MustParsePrefix("198.51.100.0/24")}) {
		t.Errorf("records are %+v", m.Records)
	}
	b[len(b)-11] = 33
	if _, err := ParseReply(b); err != ErrPrefix {
		t.Errorf("a prefix of 33 bits of IPv4: %v", err)
	}
}

// Parsers survive any bytes, and what they accept can be checked.
func FuzzParse(f *testing.F) {
	for _, b := range messages(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ParseRegistration(b); err == nil && m.Verify(b, []byte("not the key")) == nil {
			t.Error("accepted without the key")
		}
		ParseRequest(b)
		ParseReply(b)
		if inner, err := Encapsulated(b); err == nil {
			Inside(inner)
		}
	})
}
