package tsp

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/netip"
)

// AppendAccept appends the document by which a client accepts what was granted.
func AppendAccept(b []byte) []byte { return append(b, "<tunnel action=\"accept\"></tunnel>\r\n"...) }

// AppendRequest appends the document of a client. Some servers refuse it without the attribute
// proxy, which says that the tunnel ends at the client itself.
func (t *Tunnel) AppendRequest(b []byte) []byte {
	b = fmt.Appendf(b, "<tunnel action=\"%s\" type=\"%s\" proxy=\"no\">\r\n <client>\r\n", escape(t.Action), escape(string(t.Type)))
	c := &t.Client
	b = fmt.Appendf(b, "  <address type=\"ipv4\">%v</address>\r\n", c.IPv4)
	if c.Keepalive > 0 {
		b = fmt.Appendf(b, "  <keepalive interval=\"%d\">\r\n    <address type=\"ipv6\">::</address>\r\n  </keepalive>\r\n", c.Keepalive)
	}
	if c.Router {
		b = fmt.Appendf(b, "  <router>\r\n   <prefix length=\"%d\"/>\r\n  </router>\r\n", c.PrefixLength)
	}
	return append(b, " </client>\r\n</tunnel>\r\n"...)
}

// AppendInfo appends the document of a server. IPv6 addresses are written without "::": clients
// in the field cut a prefix by the number of its digits, and know no shorter form.
func (t *Tunnel) AppendInfo(b []byte) []byte {
	b = fmt.Appendf(b, "<tunnel action=\"%s\" type=\"%s\" lifetime=\"%d\"", escape(t.Action), escape(string(t.Type)), t.Lifetime)
	if t.MTU > 0 {
		b = fmt.Appendf(b, " mtu=\"%d\"", t.MTU)
	}
	b = append(b, ">\r\n\t<server>\r\n"...)
	b = t.Server.appendAddresses(b)
	b = append(b, "\t</server>\r\n\t<client>\r\n"...)
	b = t.Client.appendAddresses(b)
	b = append(b, "\t\t<dns_server>\r\n"...)
	for _, a := range t.Client.resolvers() {
		b = appendAddress(append(b, "\t\t\t"...), a)
	}
	b = append(b, "\t\t</dns_server>\r\n"...)
	if p := t.Client.Prefix; p.IsValid() {
		b = fmt.Appendf(b, "\t\t<router>\r\n\t\t\t<prefix length=\"%d\">%s</prefix>\r\n\t\t</router>\r\n", p.Bits(), p.Addr().StringExpanded())
	}
	if t.Client.Keepalive > 0 {
		b = fmt.Appendf(b, "\t\t<keepalive interval=\"%d\">\r\n\t\t\t", t.Client.Keepalive)
		b = append(appendAddress(b, t.Client.KeepaliveTo), "\t\t</keepalive>\r\n"...)
	}
	return append(b, "\t</client>\r\n</tunnel>\r\n"...)
}

// resolvers returns the resolvers, or the unspecified address, which names none: clients in the
// field crash if there is no dns_server element with an IPv6 address.
func (e *End) resolvers() []netip.Addr {
	if len(e.DNS) == 0 {
		return []netip.Addr{netip.IPv6Unspecified()}
	}
	return e.DNS
}

func (e *End) appendAddresses(b []byte) []byte {
	for _, a := range []netip.Addr{e.IPv4, e.IPv6} {
		if a.IsValid() {
			b = appendAddress(append(b, "\t\t"...), a)
		}
	}
	if e.Name != "" {
		b = fmt.Appendf(b, "\t\t<address type=\"dn\">%s</address>\r\n", escape(e.Name))
	}
	return b
}

func appendAddress(b []byte, a netip.Addr) []byte {
	kind := "ipv6"
	if a.Is4() {
		kind = "ipv4"
	}
	return fmt.Appendf(b, "<address type=\"%s\">%s</address>\r\n", kind, a.StringExpanded())
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a Buffer returns no errors
	return b.String()
}
