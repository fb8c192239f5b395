// Sixfourd is the tunnel daemon: it carries packets between TUN interfaces and an outer
// network, as its configuration says.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
	"sixfour/internal/configfile"
	"sixfour/internal/control"
	"sixfour/internal/engine"
	"sixfour/internal/gateway"
	"sixfour/internal/logging"
	"sixfour/internal/ports"
	"sixfour/internal/privilege"
	"sixfour/internal/systemd"
	"sixfour/internal/text"
	"sixfour/internal/trusted"
	"sixfour/internal/usage"
	"sixfour/internal/version"
)

type flags struct {
	config, logLevel, logFormat string
	check, checkStart, clean    bool
	broker                      bool
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	f, code, done := parseFlags(args, stdout, stderr)
	if done {
		return code
	}
	if f.clean {
		if err := gateway.Clean(); err != nil {
			fmt.Fprintf(stderr, "sixfourd: %v\n", err)
			return usage.ExitFailure
		}
		return usage.ExitOK
	}
	var warnings problem.List
	cfg, err := load(f, func(path string) (cfg *config.Config, err error) {
		if f.check {
			return configfile.Load(path)
		}
		cfg, warnings, err = configfile.LoadLenient(path)
		return cfg, err
	})
	if err != nil {
		fmt.Fprintln(text.NewWriter(stderr), err)
		return usage.ExitMisuse
	}
	if f.broker {
		if err := answerBroker(f.config, &cfg.Broker, os.Stdin, stdout); err != nil {
			fmt.Fprintf(text.NewWriter(stderr), "sixfourd: %v\n", err)
			return usage.ExitFailure
		}
		return usage.ExitOK
	}
	log, err := logging.New(stderr, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		fmt.Fprintf(stderr, "sixfourd: %v\n", err)
		return usage.ExitMisuse
	}
	defer log.Close()
	if f.check {
		if problems := append(hostProblems(cfg, nil), unresolved(cfg)...).Sorted(); len(problems) > 0 {
			fmt.Fprintln(text.NewWriter(stderr), problems)
			return usage.ExitMisuse
		}
		return usage.ExitOK
	}
	if f.checkStart {
		return usage.ExitOK
	}
	for _, d := range warnings {
		log.Warn("the configuration is in use, but some of the traffic cannot pass: " + d.String())
	}
	if err := serve(cfg, f, log); err != nil {
		log.Last(err)
		return usage.ExitFailure
	}
	return usage.ExitOK
}

func parseFlags(args []string, stdout, stderr io.Writer) (f flags, code int, done bool) {
	fs := flag.NewFlagSet("sixfourd", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&f.config, "config", "/etc/sixfour.toml", "")
	fs.StringVar(&f.logLevel, "log-level", "", "")
	fs.StringVar(&f.logFormat, "log-format", "", "")
	fs.BoolVar(&f.check, "check", false, "")
	fs.BoolVar(&f.checkStart, "check-start", false, "")
	fs.BoolVar(&f.clean, "clean", false, "")
	fs.BoolVar(&f.broker, "broker", false, "")
	printVersion := fs.Bool("version", false, "")
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage.Daemon())
		return f, usage.ExitOK, true
	case err == nil && fs.NArg() > 0:
		err = fmt.Errorf("argument %q is one too many: sixfourd takes only flags, such as -config PATH", fs.Arg(0))
	}
	if err != nil {
		fmt.Fprintf(text.NewWriter(stderr), "sixfourd: %s\nsee sixfourd -help\n", misuse(err))
		return f, usage.ExitMisuse, true
	}
	if *printVersion {
		fmt.Fprintln(stdout, "sixfourd", version.String())
		return f, usage.ExitOK, true
	}
	return f, usage.ExitOK, false
}

// misuse returns an error of package flag with advice.
func misuse(err error) string {
	what := err.Error()
	if name, unknown := strings.CutPrefix(what, "flag provided but not defined: -"); unknown {
		if meant := text.Nearest(name, flagNames); meant != "" {
			return fmt.Sprintf("there is no flag -%s: did you mean -%s?", name, meant)
		}
		return fmt.Sprintf("there is no flag -%s: choose -%s", name, strings.Join(flagNames, ", -"))
	}
	if name, empty := strings.CutPrefix(what, "flag needs an argument: "); empty {
		return fmt.Sprintf("%s needs a value: %[1]s VALUE", name)
	}
	return what
}

var flagNames = []string{"config", "check", "check-start", "clean", "broker", "log-level", "log-format", "help", "version"}

// load reads the configuration with read, and applies the flags to it.
func load(f flags, read func(path string) (*config.Config, error)) (*config.Config, error) {
	cfg, err := read(f.config)
	if err != nil {
		return nil, err
	}
	if f.logLevel != "" {
		cfg.Log.Level = f.logLevel
	}
	if f.logFormat != "" {
		cfg.Log.Format = f.logFormat
	}
	return cfg, nil
}

// serve runs the tunnels of a configuration until a signal ends it.
func serve(cfg *config.Config, f flags, log *logging.Log) error {
	if err := privilege.Check(cfg); err != nil {
		return err
	}
	served, err := openBroker(cfg, log.Logger) // its store may be in a directory that only root may make
	if err != nil {
		return err
	}
	mapServer, err := openMapServer(cfg, log.Logger)
	if err != nil {
		return err
	}
	counters := openCounters(cfg, log.Logger)
	defer counters.Close()
	who, err := privilege.Become(cfg, f.config)
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE) // the reader of the log may end
	// A panic that nobody recovers from ends the process by SIGABRT. Go's usual exit
	// status 2 is that of a wrong configuration, after which the unit does not restart it.
	debug.SetTraceback("crash")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hup := notifyHangup()
	p := &process{flags: f, log: log, cfg: cfg, manager: systemd.Find(), watchdog: systemd.Watchdog(), lastBeat: time.Now(), user: who, servers: servers{served, mapServer}}
	p.grants = p.newSessions()
	first := p.grants.Apply(cfg)
	if p.Engine, err = engine.New(first.Config, log.Logger); err != nil {
		return err
	}
	p.Counters = counters
	first.Done(nil, true)
	passed, err := systemd.Passed()
	if err != nil {
		log.Warn("cannot take over the descriptors of the previous process: packets were lost", zap.Error(err))
	}
	var store ports.Store
	if p.manager.Keeps() {
		store = p.manager
	}
	p.Keep(store, passed)
	p.OnBeat(p.heartbeat, p.watchdog > 0)
	ctl, err := control.Open(cfg.Control.Socket, p, log.Logger)
	switch {
	case err == nil:
		defer ctl.Close()
	case cfg.Control.Explicit && !errors.As(err, new(*trusted.Untrusted)):
		return err
	default: // the path is the default one, or another user can prevent the socket
		log.Warn("cannot open the control socket: sixfourctl cannot reach this daemon", zap.Error(err))
	}
	if err := gateway.Clean(); err != nil { // later the process may not use the packet filter
		log.Warn("cannot remove what a killed process left behind", zap.Error(err))
	}
	if err := p.restrict(); err != nil {
		return err
	}
	if ctl != nil {
		ctl.Serve() // only now: a reload needs the sandbox
	}
	if cfg.Metrics.Listen != "" {
		ctx, stop := context.WithCancel(ctx) // stop is called however Run ends
		wait := p.offerMetrics(ctx, cfg.Metrics.Listen)
		defer func() { stop(); wait() }()
	}
	defer context.AfterFunc(ctx, func() {
		log.Info("stopping")
		p.notify(systemd.Stopping)
	})()
	defer p.runBroker(ctx)()
	defer p.runMapServer(ctx)()
	go p.reloadOnSignal(ctx, hup)
	sessions, end := context.WithCancel(ctx) // end is called however Run ends
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.grants.Run(sessions, p.applyGrants)
	}()
	defer func() { end(); <-ended }()
	return p.Run(ctx, p.reportState)
}
