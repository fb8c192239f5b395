package main

import (
	"context"
	"fmt"
)

const socatPort = 9999

func socatPrepare(ctx context.Context, _ string) (string, error) {
	return installed(ctx, "socat", "socat", "-V", `socat version (\S+)`)
}

// socatUp makes the simplest user-space tunnel: a packet that is read at one end is a
// datagram that is written at the other.
func socatUp(ctx context.Context, l *lab) error {
	for i := range ends {
		err := l.start(i, "socat", "-b", "2000",
			fmt.Sprintf("TUN,tun-name=%s,iff-no-pi", tunnel),
			fmt.Sprintf("UDP:%v:%d,bind=%v:%d", outer[1-i], socatPort, outer[i], socatPort))
		if err != nil {
			return err
		}
	}
	return l.configure(ctx, [2]string{tunnel, tunnel})
}
