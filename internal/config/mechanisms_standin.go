package config

import (
	"errors"
	"net/netip"

	"sixfour/encap/resolve"
)

type (
	standin struct{}
	pmtType struct {
		standin
		Provider  netip.Prefix
		Common    netip.Prefix
		Customers []netip.Prefix
		Subnet    uint16
		NPT       bool
	}
	isatapType struct {
		standin
		Routers  []Host
		Router   bool
		Prefixes []netip.Prefix
	}
	sixOverFourType struct {
		standin
		Scope byte
	}
)

func (m isatapType) Hosts() []Host { return m.Routers }
func (standin) Hosts() []Host      { return nil }
func (standin) Resolver(resolve.Site) (resolve.Resolver, error) {
	return nil, errors.New("not there yet")
}
