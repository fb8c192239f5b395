package ctl

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"sixfour/internal/text"
)

// terminal returns the file of a writer, if it is a terminal.
func terminal(w any) (*os.File, bool) {
	f, ok := w.(*os.File)
	if !ok {
		return nil, false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return f, err == nil
}

// size returns the present size of a terminal.
func size(f *os.File) (columns, rows int) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return 80, 24
	}
	return int(ws.Col), int(ws.Row)
}

// style is a text style of a terminal: a parameter of ECMA-48's SGR.
type style string

const (
	none   style = ""
	bold   style = "1"
	faint  style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

// painter adds styles to texts, or does not if it is false.
type painter bool

// colours reports whether output to w may have colours: it is a terminal that supports
// them, and the user has not turned them off (no-color.org).
func colours(w io.Writer) painter {
	_, ok := terminal(w)
	return painter(ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

// paint adds a style to a text, after removing control characters from it.
func (p painter) paint(s style, what string) string {
	what = text.Clean(what)
	if !p || s == none || what == "" {
		return what
	}
	return "\x1b[" + string(s) + "m" + what + "\x1b[0m"
}
