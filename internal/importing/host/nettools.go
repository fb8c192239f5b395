package host

import "net/netip"

// ReadIfconfig reads the arguments of ifconfig, with which a tunnel is made as in
// "ifconfig sit0 inet6 tunnel ::192.0.2.1": it is the next sit interface.
func (h *Host) ReadIfconfig(args []string, line int) {
	c := &command{h: h, line: line, args: args}
	name := c.next()
	for len(c.args) > 0 {
		switch arg := c.next(); arg {
		case "up", "down", "inet6", "inet":
		case "tunnel":
			remote, err := netip.ParseAddr(c.next())
			if err != nil || !prefixCompat.Contains(remote) {
				c.part("the address of a tunnel must be one such as ::192.0.2.1")
				return
			}
			b := remote.As16()
			c.make(h.nextSIT(), "sit").remote = netip.AddrFrom4([4]byte(b[12:])).String()
		case "add":
			c.args = append([]string{"add", c.next(), "dev", name}, c.args...)
			c.address()
			return
		case "mtu":
			c.args = append([]string{name, "mtu"}, c.args...)
			c.linkSet()
			return
		default:
			c.part("%s is not taken over", arg)
		}
	}
}

// nextSIT returns the name that the kernel gives to the next sit interface.
func (h *Host) nextSIT() string {
	name := "sit1"
	for i := byte('1'); i <= '9' && h.links["sit"+string(i)] != nil; i++ {
		name = "sit" + string(i+1)
	}
	return name
}

// ReadRoute reads the arguments of route, as in "route -A inet6 add ::/0 dev sit1".
func (h *Host) ReadRoute(args []string, line int) {
	c := &command{h: h, line: line, args: args}
	six := false
	var rest []string
	for len(c.args) > 0 {
		switch arg := c.next(); arg {
		case "-A", "--inet6", "-6":
			six = true
			if arg == "-A" {
				six = c.next() == "inet6"
			}
		case "-net", "-host":
		case "gw":
			rest = append(rest, "via", c.next())
		case "metric", "dev":
			rest = append(rest, arg, c.next())
		case "netmask":
			c.part("netmask %s is not taken over: give the prefix with its length", c.next())
			return
		default:
			rest = append(rest, arg)
		}
	}
	c.args, c.six = rest, six
	c.route()
}
