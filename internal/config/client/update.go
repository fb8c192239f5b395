package client

import (
	"net/url"
	"strconv"
	"strings"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/config/tree"
	"sixfour/internal/config/value"
)

// UpdateKeys are the keys for reporting the outer address to a broker. Those after the first
// one belong to it, and it needs them.
var UpdateKeys = []tree.Key[*config.AddressUpdate]{
	{Name: "update_url", Read: readUpdateURL},
	{Name: "update_user", Read: updateText("the user of the account at the broker", ":", func(u *config.AddressUpdate) *string { return &u.User })},
	{Name: "update_key_file", Read: secret(1, func(u *config.AddressUpdate) *config.Secret { return &u.Key })},
	{Name: "update_host", Read: updateText("what has the address: a name, or the number of the tunnel at the broker", "", func(u *config.AddressUpdate) *string { return &u.Host })},
}

// updateNeeds says to what the keys that update_url needs are to be set.
var updateNeeds = map[string]string{
	"update_user":     "the user of the account at the broker",
	"update_key_file": "a file with the update key that the broker shows, or with the password",
	"update_host":     "the number of the tunnel at the broker, or the name that is to have the address",
}

func readUpdateURL(r *problem.Report, e tree.Entry, u *config.AddressUpdate) {
	const want = `a URL with https, such as "https://broker.example/nic/update"`
	s, ok := value.String(r, e, want)
	if !ok {
		return
	}
	to, err := url.Parse(s)
	switch {
	case err == nil && to.User != nil:
		r.Add(e.At, "update_url has a user or a password in it: write them in update_user and in update_key_file") // not shown
	case err == nil && to.Scheme == "http":
		r.Add(e.At, "update_url is %s, which sends the key without encryption: it must be %s", problem.Quote(s), want)
	case err != nil || to.Scheme != "https" || to.Hostname() == "" || to.Fragment != "" || !isPort(to.Port()):
		value.Refuse(r, e, want)
	default:
		u.URL = s
	}
}

// isPort reports whether a text is the number of a port, or empty.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}

// updateText is for a text without white space, control characters, and some others.
func updateText(want, without string, field func(*config.AddressUpdate) *string) func(*problem.Report, tree.Entry, *config.AddressUpdate) {
	return func(r *problem.Report, e tree.Entry, u *config.AddressUpdate) {
		s, ok := value.String(r, e, want)
		switch {
		case !ok:
		case s == "" || len(s) > maxUpdateText || strings.ContainsAny(s, without) || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f }):
			value.Refuse(r, e, want)
		default:
			*field(u) = s
		}
	}
}

// maxUpdateText is the length of the longest domain name, in bytes.
const maxUpdateText = 255

// CheckUpdate reports what reporting the address lacks, and what contradicts it. Follows says
// whether our outer address may change.
func CheckUpdate(r *problem.Report, t *Tunnel, follows bool) {
	if !t.State.Set["update_url"] {
		for _, k := range UpdateKeys[1:] {
			if t.State.Set[k.Name] {
				r.Add(t.at(k.Name), "%s has no effect without update_url: set that, or leave %[1]s out", k.Name)
			}
		}
		return
	}
	at := t.at("update_url")
	for _, k := range UpdateKeys[1:] {
		if !t.State.Set[k.Name] {
			r.Add(at, "update_url needs %s: set it to %s", k.Name, updateNeeds[k.Name])
		}
	}
	if !follows {
		r.Add(at, `update_url contradicts local, an address that does not change: leave it out, or set local to "auto"`)
	}
}
