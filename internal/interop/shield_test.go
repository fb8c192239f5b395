//go:build interop

package interop

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sixfour/internal/rig"
)

// inside is the beginning of the [[tunnel]] of the sixfourd in the machine.
const inside = `mode = "6in4"
local = "` + theirs + `"
remote = "` + ours + `"
address = ["2001:db8:6::1/64"]
`

// startInMachine starts sixfourd in the machine, until the end of the test, with the
// tunnels of a configuration that begins within the table of six0. Its log is
// /run/inside.log, and its process number is in /run/inside.pid.
func startInMachine(t *testing.T, tunnels string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, _ = lab.vm.Run(ctx, "kill -KILL $(cat /run/inside.pid)") // it has already ended, if all went well
		if t.Failed() {
			log, _ := lab.vm.Run(ctx, "cat /run/inside.log")
			t.Logf("log of the sixfourd in the machine:\n%s", log)
		}
	})
	run(t, `set -e
		cat >/run/inside.toml <<-end
			[control]
			socket = "/run/inside.sock"
			[[tunnel]]
			name = "six0"
			`+strings.ReplaceAll(tunnels, "\n", "\n\t\t\t")+`
		end
		sixfourd -config /run/inside.toml >/run/inside.log 2>&1 &
		echo $! >/run/inside.pid`)
}

// Beside the kernel's tunnels: sixfourd runs in the machine, whose kernel has sit loaded
// and therefore answers every packet that we accept with an error, unless nftables
// suppresses the errors. The peer outside is a sixfourd, too. In Debian's kernel nftables
// is a module, which is loaded on demand. While the kernel cannot find the program that
// loads it, there is none.
func TestBesideKernelTunnels(t *testing.T) {
	kernel(t, "")
	daemon(t, lab.ns, `
		mode = "6in4"
		local = "`+ours+`"
		remote = "`+theirs+`"
		address = ["2001:db8:6::2/64"]`)
	there, here := netip.MustParseAddr("2001:db8:6::1"), netip.MustParseAddr("2001:db8:6::2")

	// pinged sends pings into the machine, and returns how many were answered, and how many
	// errors the kernel sent.
	pinged := func(when string) (answers, errors int) {
		t.Helper()
		w := watch(t, protocol41)
		r, err := rig.Ping(t.Context(), lab.ns, there, rig.PingOptions{Count: 5, Timeout: 2 * time.Second, Interval: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		errors = w.unreachable()
		report(t, "%s: %d pings, %d answered; the kernel sent %d port unreachables", when, r.Sent, r.Received, errors)
		return r.Received, errors
	}
	run(t, `rmmod nf_tables nfnetlink 2>/dev/null || :; echo /nowhere >/proc/sys/kernel/modprobe`)
	t.Cleanup(func() { run(t, `echo /sbin/modprobe >/proc/sys/kernel/modprobe`) })

	if answers, errors := pinged("nobody there"); answers > 0 || errors == 0 {
		t.Error("the kernel should answer for a tunnel that nobody has")
	}
	startInMachine(t, inside)
	waitLog(t, "nftables cannot suppress these errors")
	waitLog(t, "ready")
	if answers, errors := pinged("sixfourd, without nftables"); answers == 0 || errors == 0 {
		t.Error("without nftables both should answer: sixfourd, and the kernel")
	}

	// A change of any link makes the daemon check at once.
	run(t, `echo /sbin/modprobe >/proc/sys/kernel/modprobe; ip link set lo txqueuelen 999`)
	waitLog(t, "these errors are suppressed")
	if answers, errors := pinged("sixfourd, with its shield"); answers != 5 || errors > 0 {
		t.Error("the kernel should not answer any more")
	}
	w := watch(t, protocol41)
	for _, way := range []struct {
		from end
		to   netip.Addr
	}{{daemonEnd{lab.ns}, there}, {kernelEnd{lab.ns}, here}} {
		tr, err := way.from.tcp(t.Context(), way.to, full.tcpBytes)
		if err != nil {
			t.Errorf("TCP to %v: %v", way.to, err)
			continue
		}
		report(t, "TCP  between two sixfourds, to %v: %d bytes in %v", way.to, tr.Bytes, tr.Elapsed.Round(10*time.Millisecond))
	}
	w.report(t, false, false) // only packets of the tunnel

	run(t, "kill -KILL $(cat /run/inside.pid)")
	run(t, "while [ -e /sys/class/net/six0 ]; do sleep 0.1; done")
	if answers, errors := pinged("sixfourd was killed"); answers > 0 || errors == 0 {
		t.Error("the shield should be gone with the process")
	}
}

// run runs a command in the machine that must succeed.
func run(t *testing.T, command string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := lab.vm.Run(ctx, command); err != nil {
		t.Fatal(err)
	}
}

// waitLog waits for a text in the log of the sixfourd in the machine.
func waitLog(t *testing.T, text string) {
	t.Helper()
	run(t, "until grep -q '"+text+"' /run/inside.log; do sleep 0.1; done")
	out, err := lab.vm.Run(t.Context(), "grep '"+text+"' /run/inside.log")
	if err != nil {
		t.Fatal(err)
	}
	report(t, "in the machine: %s", strings.TrimSpace(out))
}
