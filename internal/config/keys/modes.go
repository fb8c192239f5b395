package keys

import (
	"sixfour/encap"
	"sixfour/internal/config"
)

// Modes returns the names of the modes for which holds returns true.
func Modes(holds func(encap.Mode) bool) []string {
	var names []string
	for _, m := range encap.Modes {
		if holds(m) {
			names = append(names, m.Name)
		}
	}
	return names
}

// Carries returns a function that reports whether a mode carries an IP version. For IPv4, the
// automatic modes are left out: they carry only the addresses that a provider has given.
func Carries(version int) func(encap.Mode) bool {
	return func(m encap.Mode) bool { return m.Carries(version) && (version == 6 || !m.Automatic) }
}

// Over6 reports whether a mode has a configured IPv6 delivery header.
func Over6(m encap.Mode) bool { return m.Needs6() && !m.Automatic }

// AnyMode returns true.
func AnyMode(encap.Mode) bool { return true }

// CanBeItem reports whether a mode can be an item of a stack.
func CanBeItem(m encap.Mode) bool { return !m.Session }

// Encapsulations returns the names of the encapsulations that can be chosen for paths and for
// which holds returns true.
func Encapsulations(holds func(config.Encapsulation) bool) (names []string) {
	for _, e := range config.Encapsulations {
		if !e.Mode && holds(e) {
			names = append(names, e.Name)
		}
	}
	return names
}

// AnyEncapsulation returns true.
func AnyEncapsulation(config.Encapsulation) bool { return true }

// HasPorts reports whether an encapsulation has ports.
func HasPorts(e config.Encapsulation) bool { return e.Ports }

// HasChecksum reports whether an encapsulation has a checksum that can be left out.
func HasChecksum(e config.Encapsulation) bool { return e.Checksum }

// HasSourcePort reports whether the source port of an encapsulation can be chosen.
func HasSourcePort(e config.Encapsulation) bool { return e.SourcePort != "" }

// Listens reports whether the peer may come to us in an encapsulation.
func Listens(e config.Encapsulation) bool { return e.Listen }

// HasSecret reports whether an encapsulation has a secret.
func HasSecret(e config.Encapsulation) bool { return e.Secret }

// Has reports whether an encapsulation has the settings S of connections.
func Has[S any](e config.Encapsulation) bool {
	_, ok := e.Session.(S)
	return ok
}
