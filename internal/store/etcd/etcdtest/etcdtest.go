// Package etcdtest runs clusters of etcd for tests, each member in a network namespace of its
// own.
package etcdtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
)

// Cluster is a cluster of three members, which clients reach by TLS with certificates on both
// sides:
//
//	member 0  10.0.0.2 -- eth0  hub  host0 -- 10.1.0.2  host 0
//	member 1  10.0.1.2 -- eth1       host1 -- 10.1.1.2  host 1
//	member 2  10.0.2.2 -- eth2
type Cluster struct {
	hub     *rig.Namespace
	members [size]*exec.Cmd
	hosts   [hosts]*rig.Namespace

	CA, Cert, Key string // files for clients
}

const size, hosts = 3, 2

const program = "/usr/bin/etcd"

// New starts a cluster, and returns when it answers. It ends with the test.
func New(t testing.TB) *Cluster {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("%v: apt-get install etcd-server", err)
	}
	c := &Cluster{hub: rigtest.Namespace(t, "hub")}
	rigtest.Must(t, c.hub.Forward())
	rigtest.Must(t, c.hub.DropUnreachable()) // what is cut off hears nothing at all
	c.certify(t)
	var all []string
	for i := range size {
		all = append(all, fmt.Sprintf("m%d=http://10.0.%d.2:2380", i, i))
	}
	for i := range c.members {
		ns := c.connect(t, fmt.Sprintf("eth%d", i), fmt.Sprintf("10.0.%d", i))
		client, peer := fmt.Sprintf("https://10.0.%d.2:2379", i), fmt.Sprintf("http://10.0.%d.2:2380", i)
		cmd := exec.Command(program, "--name", fmt.Sprintf("m%d", i), "--data-dir", filepath.Join(t.TempDir(), "data"),
			"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--cert-file", c.Cert, "--key-file", c.Key, "--trusted-ca-file", c.CA, "--client-cert-auth",
			"--initial-cluster", strings.Join(all, ","), "--heartbeat-interval", "50", "--election-timeout", "500", "--logger", "zap", "--log-level", "error")
		out := &rig.Log{}
		cmd.Stdout, cmd.Stderr = out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		rigtest.Must(t, ns.Start(cmd))
		c.members[i] = cmd
		t.Cleanup(func() {
			c.Kill(i)
			if t.Failed() {
				t.Logf("member %d: %s", i, bytes.TrimSpace([]byte(out.String())))
			}
		})
	}
	for i := range c.hosts {
		c.hosts[i] = c.connect(t, fmt.Sprintf("host%d", i), fmt.Sprintf("10.1.%d", i))
	}
	return c
}

// certify makes a certificate for all members, which is that of clients, too.
func (c *Cluster) certify(t testing.TB) {
	made, err := rig.NewCertificate("10.0.0.2", "10.0.1.2", "10.0.2.2")
	rigtest.Must(t, err)
	dir := t.TempDir()
	for _, f := range []struct {
		path *string
		name string
		pem  []byte
	}{{&c.CA, "ca", made.CA}, {&c.Cert, "cert", made.Cert}, {&c.Key, "key", made.Key}} {
		*f.path = filepath.Join(dir, f.name)
		rigtest.Must(t, os.WriteFile(*f.path, f.pem, 0o600))
	}
}

// connect makes a namespace with the address net.2, behind a device of the hub.
func (c *Cluster) connect(t testing.TB, dev, net string) *rig.Namespace {
	ns := rigtest.Namespace(t, dev)
	rigtest.Must(t, rig.Veth(c.hub, dev, ns, "eth0", 1500))
	rigtest.Must(t, c.hub.AddAddr(dev, netip.MustParsePrefix(net+".1/24")))
	rigtest.Must(t, ns.AddAddr("eth0", netip.MustParsePrefix(net+".2/24")))
	rigtest.Must(t, ns.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr(net+".1"), "eth0"))
	return ns
}

// Endpoints are the URLs of the members.
func (c *Cluster) Endpoints() (all []string) {
	for i := range size {
		all = append(all, fmt.Sprintf("https://10.0.%d.2:2379", i))
	}
	return all
}

// Host returns a host. Its address is 10.1.HOST.2, and that of the hub in the same network
// 10.1.HOST.1.
func (c *Cluster) Host(host int) *rig.Namespace { return c.hosts[host] }

// Hub returns the hub.
func (c *Cluster) Hub() *rig.Namespace { return c.hub }

// Dial returns a function that connects from a host.
func (c *Cluster) Dial(host int) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		return c.hosts[host].DialTCP(ctx, at)
	}
}

// Kill kills a member.
func (c *Cluster) Kill(member int) {
	if cmd := c.members[member]; cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		c.members[member] = nil
	}
}

// Stop stops all members, as if their machines were frozen, or lets them go on.
func (c *Cluster) Stop(t testing.TB, stop bool) {
	t.Helper()
	for _, cmd := range c.members {
		if cmd == nil {
			continue
		}
		signal := syscall.SIGCONT
		if stop {
			signal = syscall.SIGSTOP
		}
		rigtest.Must(t, cmd.Process.Signal(signal))
	}
}

// CutMember cuts a member off from all others, without a sign to either side, or connects
// it again.
func (c *Cluster) CutMember(t testing.TB, member int, cut bool) {
	t.Helper()
	c.cut(t, fmt.Sprintf("eth%d", member), cut)
}

// CutHost does the same with a host.
func (c *Cluster) CutHost(t testing.TB, host int, cut bool) {
	t.Helper()
	c.cut(t, fmt.Sprintf("host%d", host), cut)
}

func (c *Cluster) cut(t testing.TB, dev string, cut bool) {
	t.Helper()
	if cut {
		rigtest.Must(t, c.hub.LinkDown(dev))
		return
	}
	rigtest.Must(t, c.hub.LinkUp(dev))
}

// Until waits until a condition holds, and fails the test if that takes too long.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}
