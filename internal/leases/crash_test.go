package leases

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sixfour/internal/store"
)

// storeVariable makes the test program a server that gives leases until it is killed.
const storeVariable = "SIXFOUR_TEST_STORE"

func TestMain(m *testing.M) {
	if path := os.Getenv(storeVariable); path != "" {
		fmt.Fprintln(os.Stderr, giveLeases(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// giveLeases prints each lease, which is a promise, after it was given.
func giveLeases(path string) error {
	s, err := store.OpenBolt(path)
	if err != nil {
		return err
	}
	c := config(s)
	c.Open = true
	b, err := open(context.Background(), c, fast)
	if err != nil {
		return err
	}
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				name := fmt.Sprint(rand.Uint64())
				l, err := b.Assign(context.Background(), name, 0)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				b.Hold(name, "json", outer)
				fmt.Println(name, l.Prefix)
			}
		})
	}
	clients.Wait()
	return nil
}

// A server that is killed at any moment has given no prefix to two clients, and the next one
// keeps all promises.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.db")
	promised, of := map[string]string{}, map[string]string{}
	for round := range 30 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), storeVariable+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		kill := func() { _ = cmd.Process.Kill() }
		if round == 0 { // while it makes the file, or soon after
			time.AfterFunc(5*time.Millisecond, kill)
		}
		for n := 0; lines.Scan(); n++ {
			name, prefix, _ := strings.Cut(lines.Text(), " ")
			if other, ok := of[prefix]; ok {
				t.Fatalf("round %d: %s and %s have %s", round, other, name, prefix)
			}
			promised[name], of[prefix] = prefix, name
			if n == 0 && round > 0 {
				time.AfterFunc(time.Duration(rand.IntN(8000))*time.Microsecond, kill)
			}
		}
		_ = cmd.Wait() // it was killed
	}
	s, err := store.OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := base(t, config(s))
	for name, prefix := range promised {
		if got := assigned(t, b, name, 0); got != prefix {
			t.Errorf("%s has %s, and was promised %s", name, got, prefix)
		}
	}
	if len(promised) < 29 {
		t.Errorf("only %d promises", len(promised))
	}
	seen := map[string]string{}
	b.Leases(func(l Lease) bool {
		if other, ok := seen[l.Prefix.String()]; ok {
			t.Errorf("%s and %s have %v", other, l.Account, l.Prefix)
		}
		seen[l.Prefix.String()] = l.Account
		return true
	})
	t.Logf("%d promises, %d leases", len(promised), len(seen))
}
