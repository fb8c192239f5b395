package main

import (
	"io"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/config"
	"sixfour/internal/configfile"
	"sixfour/internal/logging"
)

// TestSettings: what takes effect only after a restart is reported until the restart, or
// until the file has the current values again.
func TestSettings(t *testing.T) {
	parsed := func(text string) *config.Config {
		cfg, err := configfile.Parse("f", []byte(text+"[[tunnel]]\nname = 'six0'\nmode = '6in4'\nlocal = '192.0.2.1'\nremote = '192.0.2.2'\n"))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	log, err := logging.New(io.Discard, "info", "console")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := &process{cfg: parsed("[log]\nformat = 'console'\n"), log: log}
	for _, c := range []struct {
		file              string
		settings, restart []string
	}{
		{"[log]\nformat = 'console'\nlevel = 'debug'\n", []string{"log"}, nil},
		{"[log]\nformat = 'json'\nlevel = 'warn'\n[metrics]\nlisten = '127.0.0.1:9464'\n", nil, []string{"log", "metrics"}},
		{"[log]\nformat = 'json'\nlevel = 'warn'\n[metrics]\nlisten = '127.0.0.1:9464'\n", nil, []string{"log", "metrics"}},
		{"[log]\nformat = 'console'\nlevel = 'warn'\n", []string{"log"}, nil},
		{"[log]\nformat = 'console'\nlevel = 'warn'\n", nil, nil},
	} {
		var plan api.Plan
		p.applySettings(&plan, parsed(c.file))
		if slices.Sort(plan.Restart); !slices.Equal(plan.Settings, c.settings) || !slices.Equal(plan.Restart, c.restart) {
			t.Errorf("%s: now %v, then %v", c.file, plan.Settings, plan.Restart)
		}
	}
}

// TestSIGHUPDuringStart: a SIGHUP during the start does not end the daemon, and is not
// lost.
func TestSIGHUPDuringStart(t *testing.T) {
	hup := notifyHangup()
	for range 3 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-hup:
	case <-time.After(10 * time.Second):
		t.Error("it was forgotten")
	}
}
