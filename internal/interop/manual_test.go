//go:build interop

package interop

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestEncapsulationsOfTheManual runs what the pages of docs/encap show, in two namespaces of
// the machine: the file of one end, and the commands for the kernel at the other end.
//
//	a: sixfourd or kernel ── eth0 203.0.113.10 ──── 203.0.113.20 eth0 ── kernel or sixfourd: b
func TestEncapsulationsOfTheManual(t *testing.T) {
	for page, inside := range map[string]string{"fou": "2001:db8:6::", "gue": "10.4.4.", "gre_udp": "10.47.0."} {
		text, err := os.ReadFile("../../docs/encap/" + page + ".md")
		if err != nil {
			t.Fatal(err)
		}
		blocks := map[string][]string{}
		for _, m := range block.FindAllStringSubmatch(string(text), -1) {
			blocks[m[1]] = append(blocks[m[1]], m[2])
		}
		if len(blocks["sh"]) != 2 || len(blocks["toml"]) != 2 {
			t.Fatalf("%s has %d blocks of commands and %d files, not 2 and 2", page, len(blocks["sh"]), len(blocks["toml"]))
		}
		for daemon, e := range []string{"a", "b"} {
			t.Run(fmt.Sprintf("%s, sixfourd is %s", page, e), func(t *testing.T) {
				runPage(t, blocks["toml"][daemon], blocks["sh"][1-daemon], daemon, fmt.Sprint(inside, 2-daemon))
			})
		}
	}
}

// runPage runs sixfourd at an end (0 or 1) with a file, and commands at the other one. The daemon's
// end sends packets of all sizes to an address inside the tunnel.
func runPage(t *testing.T, file, commands string, daemon int, to string) {
	here, there := []string{"a", "b"}[daemon], []string{"b", "a"}[daemon]
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if t.Failed() {
			out, _ := lab.vm.Run(ctx, "tail -n 50 /run/page.log")
			t.Logf("log of sixfourd:\n%s", out)
		}
		_, _ = lab.vm.Run(ctx, "kill $(cat /run/page.pid); sleep 1; ip netns del a; ip netns del b; rm -f /run/page.*")
	})
	run(t, strings.NewReplacer("$HERE", here, "$THERE", there, "$TO", to).Replace(`set -e
		ip netns add a; ip netns add b
		ip -n a link add eth0 type veth peer name eth0 netns b
		for e in a b; do ip -n $e link set lo up; ip -n $e link set eth0 up; done
		ip -n a addr add 203.0.113.10/24 dev eth0; ip -n b addr add 203.0.113.20/24 dev eth0
cat >/run/page.sh <<'end'
set -e
`+commands+`
end
cat >/run/page.toml <<'end'
[control]
socket = "/run/page.sock"
`+file+`
end
		ip netns exec $THERE sh /run/page.sh
		ip netns exec $HERE sixfourd -config /run/page.toml >/run/page.log 2>&1 &
		echo $! >/run/page.pid
		until grep -q ready /run/page.log; do sleep 0.1; done
		for n in 56 1400 4000; do
			ip netns exec $HERE ping -c 3 -s $n $TO >/run/page.ping || { cat /run/page.ping >&2; exit 1; }
			grep -q ' 0% packet loss' /run/page.ping || { cat /run/page.ping >&2; exit 1; }
		done
		ip -n $HERE link show six0 | sed 's/.*mtu \([0-9]*\).*/\1/;q' >/run/page.mtu
		ip -n $THERE link show six0 | sed 's/.*mtu \([0-9]*\).*/\1/;q' | diff /run/page.mtu - >&2`))
}
