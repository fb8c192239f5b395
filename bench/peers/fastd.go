package main

import (
	"context"
	"fmt"
	"regexp"
)

const fastdPort = 10000

func fastdPrepare(ctx context.Context, _ string) (string, error) {
	return installed(ctx, "fastd", "fastd", "--version", `fastd v(\S+)`)
}

// fastdConfig has parameters for the interface, our outer address, the MTU, our secret key,
// and the other end's public key and outer address. The port is the same at both ends.
const fastdConfig = `
log level warn;
mode tun;
interface "%s";
bind %v:%[7]d;
mtu %[3]d;
method "null";
secret "%[4]s";
peer "other" {
	key "%[5]s";
	remote %[6]v:%[7]d;
}
`

var fastdKeys = regexp.MustCompile(`Secret: (\S+)\s+Public: (\S+)`)

// fastdUp runs fastd with its method without encryption and authentication. The keys are for
// its handshake.
func fastdUp(ctx context.Context, l *lab) error {
	var secret, public [2]string
	for i := range ends {
		out, err := run(ctx, nil, "fastd", "--generate-key")
		if err != nil {
			return err
		}
		keys := fastdKeys.FindStringSubmatch(out)
		if keys == nil {
			return fmt.Errorf("fastd --generate-key: no keys in its output")
		}
		secret[i], public[i] = keys[1], keys[2]
	}
	for i, name := range ends {
		config, err := l.write(name+".conf", fmt.Sprintf(fastdConfig, tunnel, outer[i], tunnelMTU, secret[i], public[1-i], outer[1-i], fastdPort))
		if err != nil {
			return err
		}
		if err := l.start(i, "fastd", "--config", config); err != nil {
			return err
		}
	}
	return l.configure(ctx, [2]string{tunnel, tunnel})
}
