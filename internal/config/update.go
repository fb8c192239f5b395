package config

import (
	"net/url"
	"strconv"
)

// AddressUpdate says where a tunnel's outer address is reported when it changes: to a broker
// that serves the requests of dynamic DNS. The zero value means nowhere. It can be compared
// with ==.
type AddressUpdate struct {
	URL  string // https
	User string
	Key  Secret
	Host string // what the address belongs to: a name, or the number of a tunnel
}

// ConnectsTo returns the port to which the report is sent over TCP; 0: there is none.
func (u *AddressUpdate) ConnectsTo() uint16 {
	to, err := url.Parse(u.URL)
	if err != nil || u.URL == "" {
		return 0
	}
	if n, err := strconv.ParseUint(to.Port(), 10, 16); err == nil {
		return uint16(n)
	}
	return 443
}

// ConnectsTo returns the ports to which the tunnel connects over TCP.
func (t *Tunnel) ConnectsTo() (all []uint16) {
	if port := t.Update.ConnectsTo(); port != 0 {
		all = append(all, port)
	}
	if port := t.Client.ConnectsTo(); port != 0 {
		all = append(all, port)
	}
	for _, p := range t.AllPaths() {
		if port := p.ConnectsTo(); port != 0 {
			all = append(all, port)
		}
	}
	return all
}

// Files returns the files that the configuration of the tunnel names.
func (t *Tunnel) Files() (all []string) {
	if f := t.Update.Key.File; f != "" {
		all = append(all, f)
	}
	all = append(append(all, t.Client.Files()...), t.secretFiles()...)
	for _, p := range t.AllPaths() {
		all = append(all, p.Files()...)
	}
	return all
}
