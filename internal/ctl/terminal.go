package ctl

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"sixfour/internal/text"
)

// terminal is the file behind a writer, if that is a terminal.
func terminal(w any) (*os.File, bool) {
	f, ok := w.(*os.File)
	if !ok {
		return nil, false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return f, err == nil
}

// size is how many columns and rows a terminal has now.
func size(f *os.File) (columns, rows int) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return 80, 24
	}
	return int(ws.Col), int(ws.Row)
}

// style is how a text looks on a terminal, a parameter of ECMA-48's SGR.
type style string

const (
	none   style = ""
	bold   style = "1"
	faint  style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

// painter gives texts their styles, or leaves them as they are.
type painter bool

// colours says whether what is written there may have colours: on a terminal that
// has them, whose user has nothing against it (no-color.org).
func colours(w io.Writer) painter {
	_, ok := terminal(w)
	return painter(ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

// paint adds the control sequences of a style to a text that has none of its own.
func (p painter) paint(s style, what string) string {
	what = text.Clean(what)
	if !p || s == none || what == "" {
		return what
	}
	return "\x1b[" + string(s) + "m" + what + "\x1b[0m"
}
