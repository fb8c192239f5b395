package ctl

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// screen is a terminal on which whole pictures are drawn. What was on it is there
// again after leave.
type screen struct {
	tty   *os.File
	paint painter
	was   *unix.Termios // before enter; nil: not entered, or it has no settings
}

// Control sequences of ECMA-48, and of xterm those with a question mark.
const (
	otherScreen = "\x1b[?1049h\x1b[?25l" // and no cursor
	firstScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// enter takes the terminal; what is typed is not shown.
func (s *screen) enter() {
	if t, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS); err == nil {
		s.was = t
		quiet := *t
		quiet.Lflag &^= unix.ECHO | unix.ICANON // keys come one by one, see keys
		quiet.Cc[unix.VMIN], quiet.Cc[unix.VTIME] = 1, 0
		_ = unix.IoctlSetTermios(int(s.tty.Fd()), unix.TCSETS, &quiet) // typed characters are seen: no harm
	}
	_, _ = s.tty.WriteString(otherScreen)
}

// leave gives it back as it was.
func (s *screen) leave() {
	_, _ = s.tty.WriteString(firstScreen)
	if s.was != nil {
		_ = unix.IoctlSetTermios(int(s.tty.Fd()), unix.TCSETSF, s.was) // what was typed meanwhile was for nobody
		s.was = nil
	}
}

// draw shows lines, each cut to the width.
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
