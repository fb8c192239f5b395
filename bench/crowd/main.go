// Crowd measures one daemon with very many clients of its broker: how much memory a client
// takes, what a packet and a sign of life cost with one client and with all, and how long it
// takes until all are served again after the daemon was killed.
//
// It makes two network namespaces, and needs root:
//
//	go run ./bench/crowd -clients 20000 -leases 100000
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// The main thread is for the main goroutine: its namespace is the process's.
func init() { runtime.LockOSThread() }

var (
	clients = flag.Int("clients", 20000, "how many clients are connected, half with AYIYA and half with JSON")
	leased  = flag.Int("leases", 100000, "how many leases the store has")
	rounds  = flag.Int("packets", 60000, "how many packets each measurement sends")
	program = flag.String("program", "", "the daemon; left out: it is built")
	profile = flag.Duration("wait", 0, "how long to wait with all clients connected")
)

func main() {
	log.SetFlags(log.Ltime)
	flag.Parse()
	dir, err := os.MkdirTemp("/var/tmp", "crowd")
	if err == nil {
		err = run(dir)
	}
	os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
}

func run(dir string) error {
	var files unix.Rlimit // Go has raised it as far as it may
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	if need := *clients/2 + 500; int(files.Cur) < need {
		return fmt.Errorf("this process may have %d open files, and %d are needed: raise the limit (ulimit -n)", files.Cur, need)
	}
	if *program == "" {
		*program = filepath.Join(dir, "sixfourd")
		if out, err := exec.Command("go", "build", "-o", *program, "sixfour/cmd/sixfourd").CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
	}
	ctx := context.Background()
	start := time.Now()
	members, err := fill(ctx, filepath.Join(dir, "broker.db"), *clients, *leased)
	if err != nil {
		return err
	}
	log.Printf("%d leases in the store, after %.1f s", *leased, time.Since(start).Seconds())
	n, err := newNetwork(dir)
	if err != nil {
		return err
	}
	defer n.close()
	if err := n.start(); err != nil {
		return err
	}
	c, err := newCrowd(n, members)
	if err != nil {
		return err
	}
	return c.measure()
}

// measure does all measurements, and prints them.
func (c *crowd) measure() error {
	n := c.net
	half := len(c.members) / 2
	ayiya, json := c.members[:half], c.members[half:]
	empty := n.memory()
	log.Printf("memory without clients: %.1f MB", empty/1e6)

	if err := c.connect(ayiya[:1], json[:1]); err != nil {
		return err
	}
	one := map[string][]float64{}
	kinds := []struct {
		name string
		all  []*member
	}{{"AYIYA", ayiya}, {"JSON", json}}
	for _, k := range kinds {
		v, err := c.costs(k.all[:1])
		if err != nil {
			return err
		}
		one[k.name] = v
	}
	before := n.memory()
	if err := c.connect(ayiya, nil); err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	between := n.memory()
	if err := c.connect(nil, json); err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	all := n.memory()
	log.Printf("memory with all clients: %.1f MB", all/1e6)
	log.Printf("memory of a client: AYIYA %.1f KB, JSON %.1f KB, on average %.1f KB", (between-before)/float64(half)/1e3, (all-between)/float64(half)/1e3, (all-empty)/float64(len(c.members))/1e3)
	idle := n.cpu()
	time.Sleep(5 * time.Second)
	log.Printf("processor time without packets: %.2f %%", (n.cpu()-idle).Seconds()/5*100)
	for _, k := range kinds {
		same, err := c.costs(k.all[:1])
		if err != nil {
			return err
		}
		spread, err := c.costs(k.all)
		if err != nil {
			return err
		}
		for i, what := range []string{"a packet there and its answer back, one at a time", "the same, 64 at a time", "a sign of life with its answer, one at a time", "the same, 64 at a time"} {
			a, b, d := one[k.name][i], same[i], spread[i]
			if a == 0 {
				continue
			}
			log.Printf("%s: %s: µs of processor time: %.2f with one client connected; with all: %.2f for one of them (%.2f), %.2f for all in turn (%.2f)", k.name, what, a, b, b/a, d, d/a)
		}
	}
	log.Printf("memory after all packets: %.1f MB", n.memory()/1e6)
	time.Sleep(*profile)
	return c.restart()
}

// costs returns the processor time of the daemon, in microseconds, for a packet of the clients in
// turn: one at a time, 64 at a time, and for a sign of life, if the protocol has one.
func (c *crowd) costs(of []*member) (all []float64, err error) {
	measure := func(send func(*member) error, window int) {
		start := c.net.cpu()
		if err == nil {
			err = c.ping(of, send, *rounds, window)
		}
		all = append(all, float64((c.net.cpu()-start).Nanoseconds())/1e3/float64(*rounds))
	}
	measure(c.send, 1)
	measure(c.send, 64)
	if of[0].key == nil {
		return append(all, 0, 0), err
	}
	measure(c.beat, 1)
	measure(c.beat, 64)
	return all, err
}

// restart kills the daemon, starts it again, and waits until all clients are served.
func (c *crowd) restart() error {
	c.net.kill()
	start := time.Now()
	if err := c.net.start(); err != nil {
		return err
	}
	log.Printf("after a kill, the daemon serves clients after %.1f s", time.Since(start).Seconds())
	if err := c.reach(c.members); err != nil {
		return err
	}
	log.Printf("after a kill, all %d clients have got an answer to a packet, at their prefixes of before, after %.1f s", len(c.members), time.Since(start).Seconds())
	return nil
}
