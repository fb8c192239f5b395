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
			b = inner[header.IPv6Len+8:]
			typ = TypeRequest
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
			whole, _ := m.lengths()
			got = m.Append(nil, key, len(m.mac) != whole)
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
		{TTL: 15, EID: netip.MustParsePrefix("2001:db8:f000::/36"), Action: NativelyForward}}}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("negative reply is %+v, want %+v", m, want)
	}
	q, err := ParseRequest(all["LISP-23"])
	if err != nil {
		t.Fatal(err)
	}
	if !q.Solicit || q.Probe || len(q.EIDs) != 1 || q.EIDs[0] != netip.MustParsePrefix("2001:db8:e2::/48") ||
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

// An address in canonical format is skipped, and what follows is read.
func TestCanonicalFormat(t *testing.T) {
	b := []byte{0x20, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1,
		0, 0, 0, 5, 0, 32, 0x10, 0, 0, 0, 0x40, 0x03, 0, 0, 2, 32, 0, 10, 0, 0, 0, 7, 0, 1, 192, 0, 2, 0,
		0, 0, 0, 6, 0, 24, 0x10, 0, 0, 0, 0, 1, 198, 51, 100, 0}
	m, err := ParseReply(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Records) != 2 || m.Records[0].EID.IsValid() || m.Records[1].EID != netip.MustParsePrefix("198.51.100.0/24") {
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
		Encapsulated(b)
	})
}
