package config

import "net/netip"

var (
	ThisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	reserved    = netip.MustParsePrefix("240.0.0.0/4")
	Broadcast   = netip.MustParseAddr("255.255.255.255")
)

// NotUnicast says why an address cannot be an end of a tunnel. It returns "" if it can.
func NotUnicast(a netip.Addr) string {
	switch {
	case a == Broadcast:
		return "the broadcast address"
	case ThisNetwork.Contains(a):
		return "an address of 0.0.0.0/8, which means this network"
	case reserved.Contains(a):
		return "a reserved address, of 240.0.0.0/4"
	case a.IsMulticast():
		return "a multicast address"
	case a.Is4(): // 127.0.0.0/8 and 169.254.0.0/16 are valid for tunnels on one host or one link
		return ""
	case a.IsUnspecified():
		return "the unspecified address"
	case a.IsLoopback():
		return "the loopback address"
	case a.IsLinkLocalUnicast():
		return "a link-local address"
	}
	return ""
}
