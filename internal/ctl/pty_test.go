package ctl

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sixfour/internal/api"
)

// pty is a terminal with its user's end.
type pty struct {
	user, terminal *os.File
	seen           *buffer
}

func openPTY(t *testing.T) *pty {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	must(t, err)
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	p := &pty{user, terminal, new(buffer)}
	p.resize(t, 100, 20)
	read := make(chan struct{})
	go func() { // ends when the terminal is no longer open
		defer close(read)
		b := make([]byte, 4096)
		for {
			n, err := user.Read(b)
			_, _ = p.seen.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		terminal.Close()
		<-read
		user.Close()
	})
	return p
}

func (p *pty) resize(t *testing.T, columns, rows uint16) {
	t.Helper()
	must(t, unix.IoctlSetWinsize(int(p.user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}))
}

func (p *pty) settings(t *testing.T) unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(p.terminal.Fd()), unix.TCGETS)
	must(t, err)
	return *s
}

func (p *pty) see(t *testing.T, what string) {
	t.Helper()
	waitFor(t, what+" on the terminal", func() bool { return strings.Contains(p.seen.String(), what) })
}

func (p *pty) forget() {
	p.seen.mu.Lock()
	defer p.seen.mu.Unlock()
	p.seen.b.Reset()
}

// run starts sixfourctl in the foreground of the terminal.
func (p *pty) run(t *testing.T, f *fake, env string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append(args, "--socket", f.socket)...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "TERM=xterm", env)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.terminal, p.terminal, p.terminal
	return p.start(t, cmd, 0)
}

// runWith is run with standard input from the terminal or from /dev/null.
func (p *pty) runWith(t *testing.T, f *fake, input bool, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append(args, "--socket", f.socket)...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "TERM=xterm")
	cmd.Stdout, cmd.Stderr = p.terminal, p.terminal
	if input {
		cmd.Stdin = p.terminal
	}
	return p.start(t, cmd, 1)
}

// start starts a program with one of its descriptors as controlling terminal.
func (p *pty) start(t *testing.T, cmd *exec.Cmd, terminal int) *exec.Cmd {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: terminal}
	must(t, cmd.Start())
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

func TestWatchOnATerminal(t *testing.T) {
	f, p := start(t), openPTY(t)
	before := p.settings(t)
	cmd := p.run(t, f, "", "watch")
	p.see(t, otherScreen)
	p.see(t, "hub0")
	p.see(t, "\x1b[32mup\x1b[0m")
	if p.settings(t).Lflag&unix.ECHO != 0 {
		t.Error("what is typed would be shown")
	}
	f.events <- api.Event{At: began, Tunnel: "six0", Kind: "state", Text: "something happened"}
	p.see(t, "six0 state: something happened")
	p.forget()
	p.resize(t, 100, 60) // the kernel sends SIGWINCH
	p.see(t, "something happened")
	f.server.Close()
	p.see(t, "no sixfourd answers")
	p.forget()
	f.listen(t)
	p.see(t, "sixfourd 1.2.3")
	_, err := p.user.Write([]byte{3}) // Ctrl-C
	must(t, err)
	must(t, cmd.Wait())
	p.see(t, firstScreen)
	if after := p.settings(t); after != before {
		t.Errorf("the terminal was %+v, is %+v", before, after)
	}
}

func TestNoColour(t *testing.T) {
	f := start(t)
	for _, c := range []struct {
		env     string
		colours bool
	}{{"X=", true}, {"NO_COLOR=1", false}, {"NO_COLOR=", true}, {"TERM=dumb", false}} {
		p := openPTY(t)
		must(t, p.run(t, f, c.env, "status").Wait())
		p.see(t, "packets of no tunnel")
		if got := strings.Contains(p.seen.String(), "\x1b["); got != c.colours {
			t.Errorf("%s: %q", c.env, p.seen.String())
		}
	}
}

// The live view ends when q is typed, even if standard input is not the terminal.
func TestQuit(t *testing.T) {
	f := start(t)
	for _, input := range []bool{true, false} {
		p := openPTY(t)
		before := p.settings(t)
		cmd := p.runWith(t, f, input, "watch")
		p.see(t, "hub0")
		p.see(t, "q quits")
		_, err := p.user.WriteString("xq")
		must(t, err)
		must(t, cmd.Wait())
		p.see(t, firstScreen)
		if after := p.settings(t); after != before {
			t.Errorf("the terminal was %+v, is %+v", before, after)
		}
	}
}
