package ctl

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
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

func (p painter) paint(s style, text string) string {
	if !p || s == none || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}
