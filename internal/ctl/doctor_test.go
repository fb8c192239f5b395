package ctl

import (
	"bytes"
	"strings"
	"testing"

	"sixfour/internal/doctor"
	"sixfour/internal/doctor/finding"
)

var found = doctor.Report{
	Checks: []doctor.Result{
		{Check: "tun", Subject: doctor.OfHost, Verdict: finding.Pass, Finding: "/dev/net/tun is a TUN device"},
		{Check: "interface", Subject: doctor.OfTunnel, Tunnel: "six0", Verdict: finding.Skip, Finding: "there is none yet"},
		{Check: "route", Subject: doctor.OfPeer, Tunnel: "six0", Peer: "b", Verdict: finding.Fail, Finding: "no route", Mend: "ip route add"},
		{Check: "answer", Subject: doctor.OfPeer, Tunnel: "six0", Peer: "b", Verdict: finding.Skip, Finding: "of \x1b[2J"},
	},
	Passed: 1, Failed: 1, Skipped: 2, Unseen: 3,
}

func TestPrintReport(t *testing.T) {
	var b bytes.Buffer
	if err := printReport(&b, &found, false); err != nil {
		t.Fatal(err)
	}
	want := "this host\n" +
		"  PASS  tun        /dev/net/tun is a TUN device\n" +
		"tunnel six0\n" +
		"  SKIP  interface  there is none yet\n" +
		"peer six0/b\n" +
		"  FAIL  route      no route\n" +
		"                   > ip route add\n" +
		"  SKIP  answer     of \uFFFD[2J\n" +
		"3 more peers were not checked: name them as TUNNEL/PEER\n" +
		"1 PASS, 1 FAIL, 2 SKIP\n"
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}

func TestPrintReportInColour(t *testing.T) {
	var b bytes.Buffer
	if err := printReport(&b, &found, true); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "  \x1b[31mFAIL\x1b[0m  route      no route\n") {
		t.Errorf("%q", b.String())
	}
}
