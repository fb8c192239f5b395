package ctl

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"sixfour/encap/mape"
	"sixfour/internal/address"
)

// addressCommand explains addresses; it does not need a daemon.
func addressCommand() *cobra.Command {
	var prefix, relay, common, server, rule, option string
	var o address.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "address [MECHANISM] ADDRESS",
		Short: "Convert between the IPv4 and IPv6 addresses of a mechanism",
		Long: `Shows which IPv6 address or prefix a mechanism derives from an IPv4 address, and which IPv4 address an IPv6 address contains. The
mechanism is ` + strings.Join(address.Mechanisms, ", ") + `. It needs no daemon.`,
		Args: takes(1, 2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if prefix != "" {
				if o.Prefix, err = netip.ParsePrefix(prefix); err != nil {
					return fmt.Errorf("--prefix %q is not a prefix: give one such as 2001:db8::/32", prefix)
				}
			}
			for _, f := range []struct {
				name, text string
				to         *netip.Addr
			}{{"border-relay", relay, &o.BorderRelay}, {"common", common, &o.Common}, {"server", server, &o.Server}} {
				if f.text == "" {
					continue
				}
				if *f.to, err = netip.ParseAddr(f.text); err != nil || !f.to.Is4() {
					return fmt.Errorf("--%s %q is not an IPv4 address", f.name, f.text)
				}
			}
			if o.Rule, err = mapRule(rule, option, args[len(args)-1]); err != nil {
				return err
			}
			mechanism := ""
			if len(args) == 2 {
				mechanism = args[0]
			}
			answers, err := address.Explain(mechanism, args[len(args)-1], o)
			if err != nil {
				return err
			}
			if asJSON {
				return fail(printJSON(cmd.OutOrStdout(), answers))
			}
			out := output(cmd)
			for _, a := range answers {
				fmt.Fprint(out, a)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "6rd: prefix of the domain; isatap: /64 of the link; 6bed4: /64 of the router; 6a44: /48 of the provider")
	cmd.Flags().IntVar(&o.MaskLen, "mask-len", 0, "6rd: leading IPv4 bits that are left out")
	cmd.Flags().StringVar(&relay, "border-relay", "", "6rd: the border relay's IPv4 address")
	cmd.Flags().StringVar(&common, "common", "", "6rd: an IPv4 address with the bits that are left out (default: the border relay)")
	cmd.Flags().StringVar(&server, "server", "", "teredo: IPv4 address of a client's server")
	cmd.Flags().Uint16Var(&o.Port, "port", 0, "teredo, 6bed4: UDP port outside the NAT; map_e: a port of the customer edge")
	cmd.Flags().StringVar(&rule, "rule", "", "map_e: IPv6 prefix,IPv4 prefix,EA bits[,offset [,PSID length,PSID]][,draft03]")
	cmd.Flags().StringVar(&option, "option94", "", "map_e: the rules as in DHCPv6, in hexadecimal")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// mapRule returns the rule for an address that was asked for; nil: none is given.
func mapRule(rule, option, asked string) (*mape.Rule, error) {
	switch {
	case rule != "" && option != "":
		return nil, errors.New("--rule contradicts --option94: give one of them")
	case option != "":
		a, _ := netip.ParseAddr(asked) // Explain reports the error
		return address.ParseOption94(option, a)
	case rule != "":
		return address.ParseRule(rule)
	}
	return nil, nil
}
