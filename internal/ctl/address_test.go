package ctl

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestAddressCommand(t *testing.T) {
	for _, c := range []struct{ args, want, err string }{
		{"6to4 192.0.2.1", "6to4\n  IPv4          192.0.2.1\n  prefix        2002:c000:201::/48\n", ""},
		{"6rd --prefix 2001:db8::/32 --mask-len 8 --border-relay 10.0.0.1 10.100.100.1",
			"6rd\n  IPv4          10.100.100.1 (martian: not globally unique)\n  prefix        2001:db8:6464:100::/56\n  border relay  10.0.0.1\n", ""},
		{"::192.0.2.1", "v4compat\n  IPv4          192.0.2.1\n  address       ::c000:201\n", ""},
		{"6to4 --json 192.0.2.1", "[\n  {\n    \"mechanism\": \"6to4\",\n    \"asked\": \"192.0.2.1\",\n    \"ipv4\": \"192.0.2.1\",\n    \"martian\": false,\n    \"prefix\": \"2002:c000:201::/48\"\n  }\n]\n", ""},
		{"6rd --prefix 2001:db8:: 10.0.0.1", "", `--prefix "2001:db8::" is not a prefix`},
		{"6rd --border-relay ::1 10.0.0.1", "", `--border-relay "::1" is not an IPv4 address`},
		{"gre 10.0.0.1", "", `unknown mechanism "gre"`},
		{"2001:db8::1", "", "2001:db8::1 has no IPv4 address in it"},
		{"", "", "address: an argument is missing: sixfourctl address ["},
	} {
		cmd := addressCommand()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs(strings.Fields(c.args))
		err := cmd.Execute()
		if c.err == "" && (err != nil || out.String() != c.want) {
			t.Errorf("address %s: %v\n got %s\nwant %s", c.args, err, out.String(), c.want)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || errors.As(err, new(failure))) {
			t.Errorf("address %s: %v, want %q, and misuse", c.args, err, c.err)
		}
	}
}
