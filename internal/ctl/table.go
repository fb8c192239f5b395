package ctl

import (
	"io"
	"strings"
	"unicode/utf8"

	"sixfour/internal/text"
)

// cell is a text in a table or line.
type cell struct {
	text  string
	style style
}

// row is a line of a table; its last cell may have any width.
type row struct {
	cells []cell
	under string // text on a line below the row; "": none
}

// table is a heading with rows below it.
type table struct {
	heading []string
	numbers []bool // columns that are aligned to the right
	rows    []row
}

// lines returns the lines of the table, with its columns aligned.
func (t *table) lines(indent int) [][]cell {
	widths := make([]int, len(t.heading))
	for i, h := range t.heading {
		widths[i] = len(h)
	}
	for _, r := range t.rows {
		for i, c := range r.cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	heading := row{}
	for _, h := range t.heading {
		heading.cells = append(heading.cells, cell{h, faint})
	}
	margin := strings.Repeat(" ", indent)
	all := [][]cell{t.line(heading, margin, widths)}
	for _, r := range t.rows {
		all = append(all, t.line(r, margin, widths))
		if r.under != "" {
			all = append(all, []cell{{margin + "    " + r.under, none}})
		}
	}
	return all
}

func (t *table) line(r row, margin string, widths []int) []cell {
	line := []cell{{margin, none}}
	for i, c := range r.cells {
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text))
		switch {
		case t.numbers[i]:
			line = append(line, cell{pad, none}, c)
		case i < len(r.cells)-1:
			line = append(line, c, cell{pad, none})
		default:
			line = append(line, c)
		}
		if i < len(r.cells)-1 {
			line = append(line, cell{"  ", none})
		}
	}
	return line
}

// render returns a line as it is written, cut to a number of columns; 0: not cut. It
// contains no control characters except those of its styles.
func render(line []cell, columns int, p painter) string {
	var b strings.Builder
	left := columns
	for _, c := range line {
		c.text = text.Clean(c.text)
		if columns > 0 {
			if n := utf8.RuneCountInString(c.text); n > left {
				c.text = string([]rune(c.text)[:left])
			}
			left -= utf8.RuneCountInString(c.text)
		}
		b.WriteString(p.paint(c.style, c.text))
	}
	if !p {
		return strings.TrimRight(b.String(), " ")
	}
	return b.String()
}

// writeLines writes rendered lines, not cut.
func writeLines(w io.Writer, p painter, lines [][]cell) error {
	for _, line := range lines {
		if _, err := io.WriteString(w, render(line, 0, p)+"\n"); err != nil {
			return err
		}
	}
	return nil
}
