package tsp_test

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sixfour/encap/tsp"
	"sixfour/internal/vectors"
)

// udp returns the datagram of a vector.
func udp(t testing.TB, name string) []byte {
	t.Helper()
	b := vectors.Read(t)[name]
	if len(b) < 28 {
		t.Fatalf("there is no vector %s", name)
	}
	return b[28:]
}

func document(t *testing.T, name string) *tsp.Tunnel {
	t.Helper()
	_, text, ok := tsp.Parse(udp(t, name))
	if !ok {
		t.Fatalf("%s is not signalling", name)
	}
	body, ok, err := tsp.Document(text)
	if !ok || err != nil {
		t.Fatalf("%s: %v, %v", name, ok, err)
	}
	if _, rest, ok := tsp.ParseStatus(body); ok {
		body = rest
	}
	d, err := tsp.ParseTunnel(body)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return d
}

// Recorded documents are read, and a client's are written again byte by byte.
func TestRecordedDocuments(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.45"), netip.MustParseAddr("2001:db8:8000::1")
	for name, want := range map[string]*tsp.Tunnel{
		"TSP-3":  {Action: tsp.Create, Type: tsp.V6UDPV4, Client: tsp.End{IPv4: netip.MustParseAddr("192.0.2.1"), Keepalive: 30}},
		"TSP-13": {Action: tsp.Create, Type: tsp.V6UDPV4, Client: tsp.End{IPv4: four, Keepalive: 30}},
		"TSP-20": {Action: tsp.Create, Type: tsp.V6AnyV4, Client: tsp.End{IPv4: four, Keepalive: 30}},
		"TSP-15": {Action: tsp.Accept},
		"TSP-14": {
			Action: tsp.Info, Type: tsp.V6UDPV4, Lifetime: 366 * 24 * 60, Server: tsp.End{IPv4: netip.MustParseAddr("198.51.100.2"), IPv6: six},
			Client: tsp.End{IPv4: four, IPv6: netip.MustParseAddr("2001:db8:8000::39"), Keepalive: 30, KeepaliveTo: six},
		},
	} {
		if got := document(t, name); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, not %+v", name, got, want)
		}
	}
	for _, name := range []string{"TSP-13", "TSP-20"} {
		got := tsp.AppendDocument(udp(t, name)[:8:8], document(t, name).AppendRequest(nil))
		want := strings.Replace(string(udp(t, name)), "content-length", "Content-length", 1) // TSP-20 has another case
		if string(got) != want {
			t.Errorf("%s, written again, is\n%q, not\n%q", name, got, want)
		}
	}
	if got := tsp.AppendDocument(udp(t, "TSP-15")[:8:8], tsp.AppendAccept(nil)); string(got) != string(udp(t, "TSP-15")) {
		t.Errorf("accept is %q", got)
	}
}

// What is written is read again.
func TestDocuments(t *testing.T) {
	a := netip.MustParseAddr
	d := &tsp.Tunnel{
		Action: tsp.Info, Type: tsp.V6V4, Lifetime: 1440, MTU: 1400, Server: tsp.End{IPv4: a("198.51.100.2"), IPv6: a("2001:db8::1")},
		Client: tsp.End{
			IPv4: a("192.0.2.1"), IPv6: a("2001:db8::2"), Name: "a<b>&c", DNS: []netip.Addr{a("2001:db8::53"), a("192.0.2.53")},
			Router: true, Prefix: netip.MustParsePrefix("2001:db8:100:ab00::/56"), PrefixLength: 56, Keepalive: 30, KeepaliveTo: a("2001:db8::1"),
		},
	}
	text := d.AppendInfo(nil)
	if got, err := tsp.ParseTunnel(text); err != nil || !reflect.DeepEqual(got, d) {
		t.Errorf("%s\nis read as %+v, %v", text, got, err)
	}
	if !strings.Contains(string(text), `<prefix length="56">2001:0db8:0100:ab00:0000:0000:0000:0000</prefix>`) {
		t.Errorf("the prefix is not written with all digits:\n%s", text)
	}
	r := &tsp.Tunnel{Action: tsp.Create, Type: tsp.V6AnyV4, Client: tsp.End{IPv4: a("192.0.2.1"), Router: true, PrefixLength: 48}}
	if got, err := tsp.ParseTunnel(r.AppendRequest(nil)); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("the request is read as %+v, %v", got, err)
	}
}

// Documents that are no tunnel, or that want to cost much, are errors.
func TestDocumentRefuses(t *testing.T) {
	laughs := `<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">`
	for i := range 9 {
		laughs += fmt.Sprintf(`<!ENTITY lol%d "%s">`, i, strings.Repeat(fmt.Sprintf("&lol%d;", i-1), 10))
	}
	for name, doc := range map[string]string{
		"a billion laughs":  laughs + `]><tunnel action="create">&lol8;</tunnel>`,
		"external entity":   `<!DOCTYPE t SYSTEM "http://192.0.2.1/t.dtd"><tunnel/>`,
		"unknown entity":    `<tunnel><client><address type="dn">&who;</address></client></tunnel>`,
		"deep":              strings.Repeat("<tunnel>", 1000),
		"deep and closed":   strings.Repeat("<tunnel>", 500) + strings.Repeat("</tunnel>", 500),
		"many":              "<tunnel>" + strings.Repeat("<a/>", 500) + "</tunnel>",
		"long text":         "<tunnel><client><address>" + strings.Repeat("x", 500) + "</address></client></tunnel>",
		"long":              "<tunnel>" + strings.Repeat(" ", 9000) + "</tunnel>",
		"not closed":        `<tunnel action="create"><client>`,
		"crossed":           `<tunnel><client></tunnel></client>`,
		"two":               `<tunnel/><tunnel/>`,
		"behind":            `<tunnel/>and more`,
		"another root":      `<html><tunnel/></html>`,
		"instruction":       `<tunnel><?php x ?></tunnel>`,
		"other charset":     `<?xml version="1.0" encoding="utf-7"?><tunnel/>`,
		"not XML":           "200 Success",
		"empty":             "",
		"IPv6 as IPv4":      `<tunnel><client><address type="ipv4">2001:db8::1</address></client></tunnel>`,
		"IPv4 as IPv6":      `<tunnel><client><address type="ipv6">192.0.2.1</address></client></tunnel>`,
		"no address":        `<tunnel><client><address type="ipv4">example.net</address></client></tunnel>`,
		"zone":              `<tunnel><client><address type="ipv6">fe80::1%eth0</address></client></tunnel>`,
		"length":            `<tunnel><client><router><prefix length="x"/></router></client></tunnel>`,
		"length 129":        `<tunnel><client><router><prefix length="129">2001:db8::</prefix></router></client></tunnel>`,
		"negative interval": `<tunnel><client><keepalive interval="-1"/></client></tunnel>`,
		"huge lifetime":     `<tunnel lifetime="99999999999"/>`,
		"invalid UTF-8":     "<tunnel>\xff</tunnel>",
	} {
		if d, err := tsp.ParseTunnel([]byte(doc)); !errors.Is(err, tsp.ErrDocument) {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	d, err := tsp.ParseTunnel([]byte("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<!-- a comment --><tunnel action=\"CREATE\" type=\"V6UDPV4\" x=\"y\"><x><y/></x></tunnel>\x00\r\n"))
	if err != nil || d.Action != tsp.Create || d.Type != tsp.V6UDPV4 {
		t.Errorf("what is not known is not ignored: %+v, %v", d, err)
	}
}

// A Content-length may be wrong by the last CR LF in both directions, and no more.
func TestLengths(t *testing.T) {
	const doc = "<tunnel action=\"accept\"></tunnel>\r\n"
	for n, want := range map[string]error{
		"35": nil, "33": nil, "37": nil, " 35 ": nil, "32": tsp.ErrLength, "38": tsp.ErrLength, "0": tsp.ErrLength, "-1": tsp.ErrLength,
		"65536": tsp.ErrLength, "9999": tsp.ErrTooLong, "": tsp.ErrLength, "x": tsp.ErrLength,
	} {
		body, ok, err := tsp.Document([]byte("Content-length: " + n + "\r\n" + doc))
		if !ok || !errors.Is(err, want) || err == nil && string(body) != doc {
			t.Errorf("Content-length %q: %q, %v, %v", n, body, ok, err)
		}
	}
	for text, isDocument := range map[string]bool{"": false, "\x00": false, "Content": false, "200 Success\r\n": false, "CONTENT-LENGTH: 1": true} {
		if _, ok, err := tsp.Document([]byte(text)); ok != isDocument || isDocument != (err != nil) {
			t.Errorf("%q: %v, %v", text, ok, err)
		}
	}
}
