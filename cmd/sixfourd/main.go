// Sixfourd is the tunnel daemon: it carries packets between TUN interfaces and
// an outer network, as its configuration says.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"sixfour/internal/config"
	"sixfour/internal/control"
	"sixfour/internal/engine"
	"sixfour/internal/logging"
	"sixfour/internal/netcfg"
	"sixfour/internal/version"
)

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1 // at run time
	exitMisuse  = 2 // bad flags or configuration
)

const usage = `sixfourd carries packets through IP tunnels, in user space.

Usage: sixfourd [-config PATH] [-check] [-log-level LEVEL] [-log-format FORMAT]

  -config PATH        configuration file (default /etc/sixfour.toml)
  -check              print every problem of the configuration, change nothing
  -log-level LEVEL    debug, info, warn or error, instead of the file's
  -log-format FORMAT  auto, console, json or journal, instead of the file's
  -version            print the version
  -help               print this

Exit status: 0 after SIGTERM or SIGINT, 1 a failure at run time, 2 bad flags or
configuration. Tunnels are not encrypted. See README.md.
`

type flags struct {
	config, logLevel, logFormat string
	check                       bool
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	f, code, done := parseFlags(args, stdout, stderr)
	if done {
		return code
	}
	cfg, err := load(f.config)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitMisuse
	}
	if f.logLevel != "" {
		cfg.Log.Level = f.logLevel
	}
	if f.logFormat != "" {
		cfg.Log.Format = f.logFormat
	}
	log, err := logging.New(stderr, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		fmt.Fprintf(stderr, "sixfourd: %v\n", err)
		return exitMisuse
	}
	defer log.Close()
	if f.check {
		if problems := unresolved(cfg); len(problems) > 0 {
			fmt.Fprintln(stderr, problems)
			return exitMisuse
		}
		return exitOK
	}
	if err := serve(cfg, log); err != nil {
		log.Last(err)
		return exitFailure
	}
	return exitOK
}

func parseFlags(args []string, stdout, stderr io.Writer) (f flags, code int, done bool) {
	fs := flag.NewFlagSet("sixfourd", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&f.config, "config", "/etc/sixfour.toml", "")
	fs.StringVar(&f.logLevel, "log-level", "", "")
	fs.StringVar(&f.logFormat, "log-format", "", "")
	fs.BoolVar(&f.check, "check", false, "")
	printVersion := fs.Bool("version", false, "")
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return f, exitOK, true
	case err == nil && fs.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if err != nil {
		fmt.Fprintf(stderr, "sixfourd: %v\nsee sixfourd -help\n", err)
		return f, exitMisuse, true
	}
	if *printVersion {
		fmt.Fprintln(stdout, "sixfourd", version.String())
		return f, exitOK, true
	}
	return f, exitOK, false
}

// load reads the configuration and adds what only the system can tell: whether
// an interface name is taken.
func load(path string) (*config.Config, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	var problems config.Problems
	for i := range cfg.Tunnels {
		t := &cfg.Tunnels[i]
		if err := netcfg.CheckName(t.Netns, t.Name); err != nil {
			key := "name"
			if errors.As(err, new(*netcfg.NamespaceError)) {
				key = "netns"
			}
			problems = append(problems, t.Problem(key, "%v", err))
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return cfg, nil
}

// serve runs the tunnels until a signal ends it.
func serve(cfg *config.Config, log *logging.Log) error {
	signal.Ignore(syscall.SIGPIPE) // whoever reads the log may go away
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for range hup {
			log.Warn("SIGHUP: this version does not reload: restart it to use a changed configuration")
		}
	}()

	eng, err := engine.New(cfg, log.Logger)
	if err != nil {
		return err
	}
	ctl, err := control.Listen(cfg.Control.Socket, eng, log.Logger)
	switch {
	case err == nil:
		defer ctl.Close()
	case cfg.Control.Explicit:
		return err
	default: // nobody asked for this place: go on without
		log.Warn("no control socket", zap.Error(err))
	}
	defer context.AfterFunc(ctx, func() {
		log.Info("stopping")
		notify(log.Logger, daemon.SdNotifyStopping)
	})()
	return eng.Run(ctx, func() {
		log.Info("ready", zap.Int("tunnels", len(cfg.Tunnels)))
		notify(log.Logger, daemon.SdNotifyReady)
	})
}

// notify tells systemd; without systemd it does nothing.
func notify(log *zap.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("notify systemd", zap.Error(err))
	}
}
