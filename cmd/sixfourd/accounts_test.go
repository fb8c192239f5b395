package main

import (
	"bytes"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"sixfour/internal/config"
)

// Requests on the store of a configuration, without a daemon.
func TestAnswerBroker(t *testing.T) {
	cfg := &config.Broker{
		Interface: "six0", Store: config.BrokerStore{File: filepath.Join(t.TempDir(), "new", "broker.db")},
		Pool: []netip.Prefix{netip.MustParsePrefix("2001:db8:100::/40")}, PrefixLength: 64, MaxPrefixLength: 56,
	}
	for _, c := range []struct{ request, out, err string }{
		{`{"do":"account list"}`, "", ""},
		{`{"do":"account add","account":"a"}`, `{"account":"a","password":"`, ""},
		{`{"do":"account add","account":"a"}`, "", `there is an account "a" already`},
		{`{"do":"account list"}`, `{"account":"a","number":1,"enabled":true,`, ""},
		{`{"do":"account remove","account":"a"}`, `{"account":"a"`, ""},
		{`{"do":"account add","account":"b"}`, `"number":2`, ""},
		{`{"do":"lease show","account":"b"}`, "", "has no lease"},
		{`{"do":"what","account":"b"}`, "", `"what" is not known`},
		{``, "", "sixfourctl broker"},
		{strings.Repeat("[", 100_000), "", "cannot read the request"},
	} {
		var out bytes.Buffer
		err := answerBroker("x.toml", cfg, strings.NewReader(c.request), &out)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || !strings.Contains(out.String(), c.out) || c.out == "" && out.Len() > 0 {
			t.Errorf("%.50s: %s, %v; want %s, %s", c.request, &out, err, c.out, c.err)
		}
	}
	if err := answerBroker("x.toml", &config.Broker{}, nil, nil); err == nil || !strings.Contains(err.Error(), "x.toml has no [broker]") {
		t.Errorf("%v", err)
	}
}
