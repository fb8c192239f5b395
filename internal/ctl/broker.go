package ctl

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sixfour/internal/ctl/accounts"
)

func brokerCommand() *cobra.Command {
	return accounts.Tool{Takes: takes, Unknown: unknownCommand, Fail: fail, JSON: printJSON, Print: printPage, Daemon: findDaemon, Socket: defaultSocket}.Command()
}

func printPage(w io.Writer, p accounts.Page) error {
	var lines [][]cell
	for _, f := range p.Fields {
		if f[1] == "" {
			lines = append(lines, []cell{{plain(f[0]), bold}})
			continue
		}
		lines = append(lines, []cell{{fmt.Sprintf("%-18s ", f[0]), faint}, {plain(f[1]), none}})
	}
	if p.Heading != nil {
		t := &table{heading: p.Heading, numbers: p.Numbers}
		for _, texts := range p.Rows {
			var r row
			for _, text := range texts {
				r.cells = append(r.cells, cell{plain(text), none})
			}
			t.rows = append(t.rows, r)
		}
		lines = append(lines, t.lines(0)...)
	}
	return writeLines(w, colours(w), lines)
}
