//go:build interop

package interop

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

var publicKey = regexp.MustCompile(`"[A-Za-z0-9+/]{43}="`)

// TestWireGuardPage runs the commands and the files of docs/encap/wireguard.md in two
// namespaces of the machine: sixfourd or the kernel's WireGuard at each end, but not the
// kernel's at both. The largest packets of the tunnel pass.
//
//	a: six0 ── eth0 203.0.113.10 ──── 203.0.113.20 eth0 ── six0: b
func TestWireGuardPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/encap/wireguard.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string][]string{}
	for _, m := range block.FindAllStringSubmatch(string(page), -1) {
		blocks[m[1]] = append(blocks[m[1]], m[2])
	}
	if len(blocks["sh"]) != 3 || len(blocks["toml"]) != 2 {
		t.Fatalf("the page has %d blocks of commands and %d files, not 3 and 2", len(blocks["sh"]), len(blocks["toml"]))
	}
	for _, kernel := range []string{"b", "a", ""} {
		name := "sixfourd at both ends"
		if kernel != "" {
			name = "the kernel at " + kernel
		}
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				if t.Failed() {
					out, _ := lab.vm.Run(ctx, "tail -n 50 /run/a.log /run/b.log")
					t.Logf("logs of the daemons:\n%s", out)
				}
				_, _ = lab.vm.Run(ctx, "for e in a b; do kill -KILL $(cat /run/$e.pid); ip netns del $e; done; rm -f /run/[ab].*")
			})
			run(t, fmt.Sprintf(`set -e
				make() { %s
				}
				mkdir -p /etc
				A_PUBLIC=$(make); mv /etc/wireguard.key /run/a.key
				B_PUBLIC=$(make); mv /etc/wireguard.key /run/b.key
				echo "A_PUBLIC=$A_PUBLIC B_PUBLIC=$B_PUBLIC" >/run/a.keys
				ip netns add a; ip netns add b
				ip -n a link add eth0 type veth peer name eth0 netns b
				for e in a b; do ip -n $e link set lo up; ip -n $e link set eth0 up; done
				ip -n a addr add 203.0.113.10/24 dev eth0; ip -n b addr add 203.0.113.20/24 dev eth0`, blocks["sh"][0]))
			for i, e := range []string{"a", "b"} {
				keyed := strings.NewReplacer("$END", e, "/etc/wireguard.key", "/run/"+e+".key")
				if e == kernel {
					run(t, keyed.Replace(`cat >/run/$END.sh <<'end'
set -e
. /run/a.keys
`+blocks["sh"][1+i]+`
end
ip netns exec $END sh /run/$END.sh`))
					continue
				}
				other := []string{`"$B_PUBLIC"`, `"$A_PUBLIC"`}[i]
				run(t, keyed.Replace(`set -e
. /run/a.keys
cat >/run/$END.toml <<end
[control]
socket = "/run/$END.sock"
`+publicKey.ReplaceAllLiteralString(blocks["toml"][i], other)+`
end
ip netns exec $END sixfourd -config /run/$END.toml >/run/$END.log 2>&1 &
echo $! >/run/$END.pid`))
			}
			const mtu = 1440
			out, err := lab.vm.Run(t.Context(), fmt.Sprintf(`set -e
				for i in $(seq 30); do ! ip netns exec a ping -6 -c 1 -W 1 2001:db8:6::2 || break; done
				ip netns exec a ping -6 -c 3 -W 10 -s %[1]d 2001:db8:6::2
				ip netns exec b ping -6 -c 3 -W 10 -s %[1]d 2001:db8:6::1
				for e in a b; do
					[ $(ip netns exec $e cat /sys/class/net/six0/mtu) = %[2]d ]
					[ ! -e /run/$e.log ] || grep ' up ' /run/$e.log
				done`, mtu-48, mtu))
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			report(t, "IPv6 packets of %d bytes pass in both directions", mtu)
		})
	}
}
