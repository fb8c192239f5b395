package ctl

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// screen is a terminal on which whole frames are drawn. leave restores its former content.
type screen struct {
	tty   *os.File
	paint painter
	was   *unix.Termios // settings before enter; nil: not entered, or not known
}

// Control sequences of ECMA-48; those with a question mark are xterm's.
const (
	otherScreen = "\x1b[?1049h\x1b[?25l" // alternate screen, cursor hidden
	firstScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// enter switches to the alternate screen and turns echo off.
func (s *screen) enter() {
	if t, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS); err == nil {
		s.was = t
		quiet := *t
		quiet.Lflag &^= unix.ECHO | unix.ICANON // read single keys, see untilQuit
		quiet.Cc[unix.VMIN], quiet.Cc[unix.VTIME] = 1, 0
		_ = unix.IoctlSetTermios(int(s.tty.Fd()), unix.TCSETS, &quiet) // on failure typed characters are echoed, which does no harm
	}
	_, _ = s.tty.WriteString(otherScreen)
}

// leave restores the terminal.
func (s *screen) leave() {
	_, _ = s.tty.WriteString(firstScreen)
	if s.was != nil {
		_ = unix.IoctlSetTermios(int(s.tty.Fd()), unix.TCSETSF, s.was) // discard typed characters
		s.was = nil
	}
}

// draw shows lines, each cut to the width of the terminal.
func (s *screen) draw(lines [][]cell, columns int) error {
	var b strings.Builder
	b.WriteString(home)
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(render(line, columns, s.paint) + clearLine)
	}
	b.WriteString(clearBelow)
	_, err := s.tty.WriteString(b.String())
	return err
}
