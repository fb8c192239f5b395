package main

import (
	"context"
	"strconv"
)

func openvpnPrepare(ctx context.Context, _ string) (string, error) {
	return installed(ctx, "openvpn", "openvpn", "--version", `OpenVPN (\S+)`)
}

// openvpnUp runs OpenVPN as a plain UDP tunnel without keys: only its own packet
// processing remains.
func openvpnUp(_ context.Context, l *lab) error {
	const buffer = "4194304"
	for i := range ends {
		err := l.start(i, "openvpn", "--dev", tunnel, "--dev-type", "tun", "--proto", "udp", "--port", "1194",
			"--remote", outer[1-i].String(), "--ifconfig", inner[i].String(), inner[1-i].String(),
			"--cipher", "none", "--auth", "none", "--tun-mtu", strconv.Itoa(tunnelMTU), "--mssfix", "0",
			"--sndbuf", buffer, "--rcvbuf", buffer, "--txqueuelen", "1000", "--fast-io", "--disable-dco", "--verb", "1")
		if err != nil {
			return err
		}
	}
	return nil
}
