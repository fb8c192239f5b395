// Peers compares sixfourd with other tunnels on this machine, in two network namespaces
// that it makes: make bench-peers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// options are the command line flags.
type options struct {
	peers    string
	rounds   int
	duration time.Duration
	wait     time.Duration
	out      string
}

func main() {
	var o options
	seconds := 0.0
	flag.StringVar(&o.peers, "peers", "", "measure these only, a comma-separated list of "+strings.Join(peerNames(peers()), ", ")+"; then bench/results.md stays as it is")
	flag.IntVar(&o.rounds, "rounds", 3, "number of runs of each peer")
	flag.Float64Var(&seconds, "seconds", 3, "how long each load runs")
	flag.DurationVar(&o.wait, "wait", time.Minute, "how long a turn waits for other programs to do little; 0: not at all, and disturbed turns are not repeated")
	flag.StringVar(&o.out, "out", "dist/peers", "directory for the figures of each turn, as JSON lines")
	flag.Parse()
	o.duration = time.Duration(seconds * float64(time.Second))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := compare(ctx, o)
	stop()
	if err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func compare(ctx context.Context, o options) error {
	switch {
	case flag.NArg() > 0:
		return fmt.Errorf("unexpected argument %q: see -help", flag.Arg(0))
	case o.rounds < 1 || o.duration <= 0:
		return errors.New("-rounds and -seconds must be positive")
	case os.Getuid() != 0:
		return errors.New("namespaces and raw sockets need root: run as root")
	}
	chosen, err := choose(peers(), o.peers)
	if err != nil {
		return err
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	// The threads of the loads block in system calls. There must be more of them than
	// processors, so that none waits for the scheduler when it returns.
	runtime.GOMAXPROCS(runtime.NumCPU() + 16)
	programs, err := os.MkdirTemp("", "sixfour-peers-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(programs) }()

	r, err := rounds(ctx, o, chosen, programs)
	if err != nil {
		return err
	}
	text := r.markdown()
	fmt.Print(text)
	if o.peers != "" {
		say("not all peers were measured: bench/results.md and bench/peers.svg stay as they are")
		return nil
	}
	return errors.Join(
		os.WriteFile(filepath.Join(root, "bench", "results.md"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(root, "bench", "peers.svg"), []byte(r.svg()), 0o644))
}

// rounds runs all rounds. In each round, each peer has one turn.
func rounds(ctx context.Context, o options, chosen []peer, programs string) (*report, error) {
	m, err := thisMachine(ctx)
	if err != nil {
		return nil, err
	}
	r := &report{machine: m, date: time.Now(), rounds: o.rounds, seconds: o.duration.Seconds()}
	for _, p := range chosen {
		res := &result{peer: p}
		r.results = append(r.results, res)
		if res.version, err = p.prepare(ctx, programs); err != nil {
			res.failed = append(res.failed, err.Error())
			say("%s is left out: %v", p.name, err)
		}
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return nil, err
	}
	raw, err := os.Create(filepath.Join(o.out, r.date.Format("20060102-150405")+".jsonl"))
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	for round := 1; round <= o.rounds; round++ {
		for _, res := range r.results {
			if res.version == "" {
				continue
			}
			rec, err := undisturbed(ctx, res.peer, programs, o)
			if err != nil {
				return nil, err
			}
			rec.Round = round
			if rec.Error != "" {
				res.failed = append(res.failed, fmt.Sprintf("round %d: %s", round, rec.Error))
			}
			if rec.disturbed() {
				r.noisy++
			}
			if len(rec.Figures) > 0 {
				res.turns = append(res.turns, rec.Figures)
			}
			say("round %d, %s: %s", round, res.name, rec.summary())
			if err := rec.writeTo(raw); err != nil {
				return nil, err
			}
		}
	}
	say("the figures of each turn: %s", raw.Name())
	return r, nil
}

// undisturbed returns a turn during which other programs did little, or the least
// disturbed one of several attempts. It returns an error only if ctx ended.
func undisturbed(ctx context.Context, p peer, programs string, o options) (best record, err error) {
	for attempt := 1; attempt <= attempts; attempt++ {
		rec := record{Peer: p.name}
		if rec.Busy, err = quiet(ctx, o.wait); err != nil {
			return rec, err
		}
		rec.Time = time.Now()
		rec.Figures, err = turn(ctx, p, programs, o.duration)
		if ctx.Err() != nil {
			return rec, ctx.Err()
		}
		if err != nil {
			rec.Error = err.Error()
		}
		if attempt == 1 || rec.Figures["others"] < best.Figures["others"] {
			best = rec
		}
		if !rec.disturbed() || o.wait == 0 {
			break
		}
		say("%s: other programs took %.0f %% of the machine's time meanwhile (attempt %d of %d)", p.name, 100*rec.Figures["others"], attempt, attempts)
	}
	return best, nil
}

// disturbed reports whether other programs have affected the figures.
func (r record) disturbed() bool { return r.Figures["others"] > quietShare/2 }

// summary returns a turn as one line.
func (r record) summary() string {
	var parts []string
	for _, m := range metrics {
		if v, ok := r.Figures[m.key]; ok && (v != 0 || !m.worst) {
			parts = append(parts, fmt.Sprintf("%s %s %s", m.title, r.Figures.number(m), m.unit))
		}
	}
	if r.Error != "" {
		parts = append(parts, r.Error)
	}
	return strings.Join(parts, ", ")
}

// moduleRoot returns the directory of this module's go.mod.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sixfour").Output()
	if err != nil {
		return "", fmt.Errorf("go list -m sixfour: %w: run it inside the repository, with go run ./bench/peers", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "peers: "+format+"\n", args...) }
