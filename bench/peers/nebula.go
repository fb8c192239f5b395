package main

import (
	"context"
	"fmt"
)

func nebulaPrepare(ctx context.Context, _ string) (string, error) {
	if _, err := installed(ctx, "nebula", "nebula-cert", "-version", `Version: (\S+)`); err != nil {
		return "", err
	}
	return installed(ctx, "nebula", "nebula", "-version", `Version: (\S+)`)
}

// nebulaConfig has parameters for the directory, the end's name, the other end's inner
// and outer address, and the MTU.
const nebulaConfig = `
pki: {ca: %[1]s/ca.crt, cert: %[1]s/%[2]s.crt, key: %[1]s/%[2]s.key}
static_host_map: {"%[3]v": ["%[4]v:4242"]}
lighthouse: {am_lighthouse: false}
listen: {host: 0.0.0.0, port: 4242, batch: 64, read_buffer: 8388608, write_buffer: 8388608}
tun: {dev: t0, mtu: %[5]d, tx_queue: 500}
logging: {level: error}
firewall:
  outbound: [{port: any, proto: any, host: any}]
  inbound: [{port: any, proto: any, host: any}]
`

func nebulaUp(ctx context.Context, l *lab) error {
	cert := func(args ...string) error {
		_, err := run(ctx, nil, "nebula-cert", args...)
		return err
	}
	if err := cert("ca", "-name", "bench", "-out-crt", l.path("ca.crt"), "-out-key", l.path("ca.key")); err != nil {
		return err
	}
	for i, name := range ends {
		err := cert("sign", "-name", name, "-ip", fmt.Sprintf("%v/%d", inner[i], innerBits), "-ca-crt", l.path("ca.crt"), "-ca-key", l.path("ca.key"),
			"-out-crt", l.path(name+".crt"), "-out-key", l.path(name+".key"))
		if err != nil {
			return err
		}
		config, err := l.write(name+".yml", fmt.Sprintf(nebulaConfig, l.dir, name, inner[1-i], outer[1-i], tunnelMTU))
		if err != nil {
			return err
		}
		if err := l.start(i, "nebula", "-config", config); err != nil {
			return err
		}
	}
	return nil
}
