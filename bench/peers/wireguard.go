package main

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	wireguardModule  = "golang.zx2c4.com/wireguard"
	wireguardSockets = "/var/run/wireguard"
	wireguardPort    = 51820
)

// wireguardPrepare builds wireguard-go from the commit in go.mod, because distributions
// have much older versions.
func wireguardPrepare(ctx context.Context, programs string) (string, error) {
	version, err := run(ctx, nil, "go", "list", "-m", "-f", "{{.Version}}", wireguardModule)
	if err != nil {
		return "", err
	}
	version = strings.TrimSpace(version)
	_, err = run(ctx, []string{"GOBIN=" + programs}, "go", "install", wireguardModule+"@"+version)
	return version, err
}

func wireguardUp(ctx context.Context, l *lab) error {
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return err
		}
	}
	// The control socket has the interface's name, and is not in a namespace, so the name
	// must be unique on the host.
	var devs [2]string
	for i, name := range ends {
		devs[i] = fmt.Sprintf("wg%d%s", os.Getpid(), name)
		control := filepath.Join(wireguardSockets, devs[i]+".sock")
		l.undo = append(l.undo, func() { _ = os.Remove(control) })
		if err := l.start(i, filepath.Join(l.programs, "wireguard"), "-f", devs[i]); err != nil {
			return err
		}
		if err := l.retry(ctx, func() error { return wireguardSet(control, keys[i], keys[1-i].PublicKey(), 1-i) }); err != nil {
			return err
		}
	}
	return l.configure(ctx, devs)
}

// wireguardSet uses the protocol of wg(8): https://www.wireguard.com/xplatform/
func wireguardSet(control string, own *ecdh.PrivateKey, other *ecdh.PublicKey, remote int) error {
	c, err := net.Dial("unix", control)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c, "set=1\nprivate_key=%x\nlisten_port=%d\nreplace_peers=true\npublic_key=%x\nendpoint=%v:%d\nallowed_ip=0.0.0.0/0\n\n",
		own.Bytes(), wireguardPort, other.Bytes(), outer[remote], wireguardPort)
	if err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if answer = strings.TrimSpace(answer); answer != "errno=0" {
		return fmt.Errorf("wireguard-go refuses its configuration: %s", answer)
	}
	return nil
}
