//go:build interop

package interop

import "testing"

// A gateway in the machine, where connection tracking and address translation are modules:
// it reports what is missing while the kernel cannot load them, and works as soon as it
// can.
func TestGatewayWithoutModules(t *testing.T) {
	run(t, `modprobe nf_tables; echo /nowhere >/proc/sys/kernel/modprobe; echo 1 >/proc/sys/net/ipv4/ip_forward`)
	t.Cleanup(func() {
		run(t, `echo /sbin/modprobe >/proc/sys/kernel/modprobe; echo 0 >/proc/sys/net/ipv4/ip_forward
			rmmod nft_masq nft_chain_nat nft_ct nf_nat nf_conntrack || :`) // other tests need nf_tables to be absent
	})
	startInMachine(t, `mode = "4in6in4"
local = "`+theirs+`"
remote = "`+ours+`"
local6 = "fc00::1"
remote6 = "fc00::2"
address = ["10.9.0.1/30", "fc00::1/64"]
[gateway]
masquerade = "eth0"
default_route = true
`)
	waitLog(t, "load nf_conntrack and nft_ct")
	waitLog(t, "the kernel lacks modules: load nf_tables, nf_conntrack")
	// Within five seconds of the start "ready" waits for the gateway. After that the
	// gateway is named as waiting, and another line follows.
	const carries = `ready {"tunnels": 1}\|every tunnel can carry`
	run(t, "! grep -q '"+carries+"' /run/inside.log")
	run(t, "ip rule | grep -q 'from "+theirs+" goto 30003\\|from "+theirs+" '") // the parts without modules work

	run(t, `echo /sbin/modprobe >/proc/sys/kernel/modprobe; ip link set lo txqueuelen 998`)
	waitLog(t, "gateway: works again")
	waitLog(t, carries)
	run(t, "kill -TERM $(cat /run/inside.pid)")
	run(t, "while [ -e /sys/class/net/six0 ]; do sleep 0.1; done; ! ip rule | grep -q 30003")
}
