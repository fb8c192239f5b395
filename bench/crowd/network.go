package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"sixfour/encap/ayiya"
	"sixfour/internal/leases"
	"sixfour/internal/rig"
	"sixfour/internal/store"
)

var (
	server   = netip.MustParseAddrPort("198.18.255.1:14629")
	beyond   = netip.MustParseAddr("2001:db8:f00d::80") // a host behind the broker
	pool     = netip.MustParsePrefix("2001:db8:100::/40")
	ends     = netip.MustParsePrefix("2001:db8:ff0::/44")
	password = "f3d47c2de40fb698e1ab15d757a09bfc"
)

// sources is how many addresses the clients have.
const sources = 64

// network is the two namespaces, and the daemon in one of them.
type network struct {
	server, client *rig.Namespace
	dir            string
	daemon         *exec.Cmd
	log            *os.File
}

func newNetwork(dir string) (n *network, err error) {
	n = &network{dir: dir}
	if n.server, err = rig.New("crowd-server"); err != nil {
		return nil, err
	}
	if n.client, err = rig.New("crowd-client"); err != nil {
		n.server.Close()
		return nil, err
	}
	if n.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	errs := []error{
		rig.Veth(n.server, "eth0", n.client, "eth0", 1500),
		n.server.AddAddr("eth0", netip.PrefixFrom(server.Addr(), 16)),
		n.server.AddAddr("lo", netip.PrefixFrom(beyond, 128)),
		n.server.Forward(),
	}
	for i := range sources {
		errs = append(errs, n.client.AddAddr("eth0", netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, 0, byte(i + 1)}), 16)))
	}
	config := fmt.Sprintf("[control]\nsocket = %q\n[broker]\nstore = %q\npool = [%q]\nendpoints = %q\nopen = true\n", filepath.Join(dir, "control.sock"), filepath.Join(dir, "broker.db"), pool, ends)
	for _, protocol := range []string{"json", "ayiya"} {
		config += fmt.Sprintf("[[broker.listen]]\nprotocol = %q\naddress = %q\n", protocol, server.Addr())
	}
	errs = append(errs, os.WriteFile(filepath.Join(dir, "sixfour.toml"), []byte(config), 0o600))
	return n, errors.Join(errs...)
}

func (n *network) close() {
	n.kill()
	n.client.Close()
	n.server.Close()
}

// start starts the daemon, and returns when it accepts connections.
func (n *network) start() error {
	n.daemon = exec.Command(*program, "-config", filepath.Join(n.dir, "sixfour.toml"))
	n.daemon.Stderr = n.log
	if err := n.server.Start(n.daemon); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		text, _ := os.ReadFile(n.log.Name())
		if at := strings.LastIndex(string(text), "the broker serves clients"); at >= 0 {
			if strings.Contains(string(text), `protocol`) {
				return n.log.Truncate(0)
			}
		}
	}
	text, _ := os.ReadFile(n.log.Name())
	return fmt.Errorf("the daemon does not start:\n%s", text)
}

func (n *network) kill() {
	if n.daemon != nil {
		_ = n.daemon.Process.Signal(syscall.SIGKILL)
		_ = n.daemon.Wait()
		n.daemon = nil
	}
}

// memory returns the resident memory of the daemon in bytes, without files.
func (n *network) memory() float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.daemon.Process.Pid))
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kb * 1024
}

// cpu returns the processor time of all threads of the daemon.
func (n *network) cpu() (sum time.Duration) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", n.daemon.Process.Pid))
	for _, path := range tasks {
		text, _ := os.ReadFile(path)
		if f := strings.Fields(string(text)); len(f) > 0 {
			ns, _ := strconv.ParseInt(f[0], 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}

// member is a client.
type member struct {
	name   string
	from   netip.Addr // outer
	prefix netip.Prefix
	number uint32

	key      *ayiya.Key // nil: JSON
	identity [ayiya.IdentityLen]byte
	socket   *net.UDPConn

	mu   sync.Mutex
	conn net.Conn // JSON
	once sync.Once
}

// fill makes a store with leases, and returns the members of the crowd: first those of AYIYA, and
// then those of JSON.
func fill(ctx context.Context, path string, clients, leased int) ([]*member, error) {
	fast, err := os.MkdirTemp("/dev/shm", "crowd") // where fsync is free
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(fast)
	file, err := store.OpenBolt(filepath.Join(fast, "broker.db"))
	if err != nil {
		return nil, err
	}
	base, err := leases.Open(ctx, leases.Config{Store: file, Server: "fill", Pool: []netip.Prefix{pool}, PrefixLength: 64, MaxPrefixLength: 64, Endpoints: ends, MTU: 1280, Open: true, Notify: func(leases.Event) {}})
	if err != nil {
		return nil, err
	}
	key := ayiya.NewKey(ayiya.SHA1, password)
	var members []*member
	for i := range clients / 2 {
		m := &member{name: fmt.Sprintf("ayiya-%05d", i), key: &key}
		a, err := base.Add(ctx, leases.Account{Name: m.name, Secret: password, Type: "ayiya", Enabled: true})
		if err != nil {
			return nil, err
		}
		m.identity = base.Endpoint(a.Number).Client.As16()
		members = append(members, m)
	}
	for i := range clients - clients/2 {
		members = append(members, &member{name: fmt.Sprintf("json-%05d", i)})
	}
	names := make(chan int)
	errs := make(chan error, 1)
	var running sync.WaitGroup
	for range 2000 {
		running.Go(func() {
			for i := range names {
				name := fmt.Sprintf("idle-%06d", i)
				if i < len(members) {
					name = members[i].name
				}
				l, err := base.Assign(ctx, name, 64)
				if err != nil {
					select {
					case errs <- err:
					default:
					}
				} else if i < len(members) {
					members[i].prefix = l.Prefix
				}
			}
		})
	}
	for i := range max(leased, clients) {
		names <- i
	}
	close(names)
	running.Wait()
	select {
	case err := <-errs:
		return nil, err
	default:
	}
	if err := errors.Join(base.Close(), file.Close()); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(fast, "broker.db"))
	if err != nil {
		return nil, err
	}
	for i, m := range members {
		m.from = netip.AddrFrom4([4]byte{198, 18, 0, byte(i%sources + 1)})
	}
	return members, os.WriteFile(path, b, 0o600)
}
