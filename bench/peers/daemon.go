package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sixfour/internal/rig"
)

// daemon is a program that runs in a namespace.
type daemon struct {
	name string
	cmd  *exec.Cmd
	log  string // path
	done chan struct{}
	err  error // valid once done is closed
}

func startDaemon(ns *rig.Namespace, log, program string, args ...string) (*daemon, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	d := &daemon{name: filepath.Base(program), cmd: exec.Command(program, args...), log: log, done: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = out, out
	// Ctrl-C reaches the whole foreground process group, but this program must stop the
	// daemons.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := ns.Start(d.cmd); err != nil {
		return nil, err
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	return d, nil
}

func (d *daemon) terminate() { _ = d.cmd.Process.Signal(syscall.SIGTERM) }

// wait waits for the end of a terminated daemon, for a limited time.
func (d *daemon) wait() {
	select {
	case <-d.done:
	case <-time.After(3 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.done
	}
}

// ended returns an error if the daemon no longer runs.
func (d *daemon) ended() error {
	select {
	case <-d.done:
		err := d.err
		if err == nil {
			err = errors.New("exit status 0")
		}
		return fmt.Errorf("%s ended (%w): %s", d.name, err, d.tail())
	default:
		return nil
	}
}

// tail returns the end of the daemon's output, on one line.
func (d *daemon) tail() string {
	b, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	const most = 300
	s := strings.Join(strings.Fields(string(b)), " ")
	return s[max(0, len(s)-most):]
}

// clockTick is the unit of times in /proc (USER_HZ), the same on every platform.
const clockTick = time.Second / 100

// cpu returns the processor time that the daemons have used, in the kernel and in user
// space. It does not include the kernel's work for them in interrupts.
func (l *lab) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, d := range l.daemons {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
		if err != nil {
			return 0, errors.Join(err, d.ended())
		}
		t, err := parseCPU(b)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", d.name, err)
		}
		sum += t
	}
	return sum, nil
}

// parseCPU reads utime and stime, fields 14 and 15 of proc_pid_stat(5). The
// second field, a name in parentheses, may hold anything.
func parseCPU(stat []byte) (time.Duration, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("%q is no process's stat", stat)
	}
	user, err := strconv.Atoi(string(fields[11]))
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(string(fields[12]))
	return time.Duration(user+system) * clockTick, err
}

// resident returns the memory of the largest daemon, in bytes.
func (l *lab) resident() (int64, error) {
	var largest int64
	for _, d := range l.daemons {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", d.cmd.Process.Pid))
		if err != nil {
			return 0, errors.Join(err, d.ended())
		}
		fields := strings.Fields(string(b))
		if len(fields) < 2 {
			return 0, fmt.Errorf("%s: %q is no process's statm", d.name, b)
		}
		pages, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, err
		}
		largest = max(largest, pages*int64(os.Getpagesize()))
	}
	return largest, nil
}

// run runs a program to its end, and returns its output.
func run(ctx context.Context, env []string, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), nil
}
