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

// block matches the code blocks of a page, for a shell or of a configuration file.
var block = regexp.MustCompile("(?ms)^```(sh|toml)\n(.*?)^```$")

// encrypted is a section of docs/over-ipsec.md.
type encrypted struct {
	section string
	mtu     int    // of the tunnel
	keys    string // commands that make the keys: they write variables to /run/keys; %s is the block of the page
	proof   string // commands that fail if the packets did not pass encrypted
}

// TestEncryptedByTheKernel runs the commands and the files of docs/over-ipsec.md, in two
// namespaces of the machine. The largest packets of the tunnel pass, and are encrypted.
//
//	a: sixfourd ── eth0 203.0.113.10 ──── 203.0.113.20 eth0 ── sixfourd: b
func TestEncryptedByTheKernel(t *testing.T) {
	page, err := os.ReadFile("../../docs/over-ipsec.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []encrypted{
		{
			section: "IPsec", mtu: 1446,
			keys: `%s
				echo "AB=$AB BA=$BA" >/run/keys`,
			// What a sends without encryption, b drops.
			proof: `
				[ $(ip netns exec b ip -s xfrm state | grep -c '[1-9][0-9]*(packets)') = 2 ]
				ip netns exec a ip xfrm policy flush
				! ip netns exec a ping -6 -c 3 -W 1 2001:db8:6::2`,
		},
		{
			section: "WireGuard", mtu: 1420,
			keys: `
				make() { %s
				}
				mkdir -p /etc/wireguard
				A_PUBLIC=$(make); mv /etc/wireguard/key /run/a.key
				B_PUBLIC=$(make); mv /etc/wireguard/key /run/b.key
				echo "A_PUBLIC=$A_PUBLIC B_PUBLIC=$B_PUBLIC" >/run/keys`,
			proof: `
				ip netns exec b wg show wg0 transfer | {
					read -r peer received sent; [ "$received" -gt 10000 ] && [ "$sent" -gt 10000 ]
				}`,
		},
	} {
		t.Run(c.section, func(t *testing.T) {
			_, text, ok := strings.Cut(string(page), "\n## "+c.section+"\n")
			if !ok {
				t.Fatalf("the page has no section %s", c.section)
			}
			text, _, _ = strings.Cut(text, "\n## ")
			blocks := map[string][]string{}
			for _, m := range block.FindAllStringSubmatch(text, -1) {
				blocks[m[1]] = append(blocks[m[1]], m[2])
			}
			if len(blocks["sh"]) != 3 || len(blocks["toml"]) != 2 {
				t.Fatalf("section %s has %d blocks of commands and %d files, not 3 and 2", c.section, len(blocks["sh"]), len(blocks["toml"]))
			}
			c.run(t, blocks["sh"], blocks["toml"])
		})
	}
}

func (c encrypted) run(t *testing.T, sh, toml []string) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if t.Failed() {
			out, _ := lab.vm.Run(ctx, "tail -n 50 /run/a.log /run/b.log")
			t.Logf("logs of the daemons:\n%s", out)
		}
		_, _ = lab.vm.Run(ctx, "for e in a b; do kill -KILL $(cat /run/$e.pid); ip netns del $e; done; rm -f /run/[ab].* /run/keys")
	})
	run(t, "set -e\n"+fmt.Sprintf(c.keys, sh[0])+`
		ip netns add a; ip netns add b
		ip -n a link add eth0 type veth peer name eth0 netns b
		for e in a b; do ip -n $e link set lo up; ip -n $e link set eth0 up; done
		ip -n a addr add 203.0.113.10/24 dev eth0; ip -n b addr add 203.0.113.20/24 dev eth0`)
	for i, e := range []string{"a", "b"} {
		// Each end has a file with its key.
		run(t, strings.NewReplacer("$END", e, "/etc/wireguard/key", "/run/"+e+".key").Replace(`set -e
cat >/run/$END.sh <<'end'
set -e
. /run/keys
`+sh[1+i]+`
end
cat >/run/$END.toml <<'end'
[control]
socket = "/run/$END.sock"
`+toml[i]+`
end
ip netns exec $END sh /run/$END.sh
ip netns exec $END sixfourd -config /run/$END.toml >/run/$END.log 2>&1 &
echo $! >/run/$END.pid
until grep -q ready /run/$END.log; do sleep 0.1; done`))
	}
	out, err := lab.vm.Run(t.Context(), fmt.Sprintf(`set -e
		ip netns exec a ping -6 -c 3 -W 10 2001:db8:6::2
		ip netns exec a ping -6 -c 3 -W 10 -s %[1]d 2001:db8:6::2
		ip netns exec b ping -6 -c 3 -W 10 -s %[1]d 2001:db8:6::1
		for e in a b; do [ $(ip netns exec $e cat /sys/class/net/six0/mtu) = %[2]d ]; done
		ip netns exec b ip -s xfrm state; ip netns exec b wg
		%[3]s`, c.mtu-48, c.mtu, c.proof))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	report(t, "IPv6 packets of %d bytes pass in both directions", c.mtu)
}
