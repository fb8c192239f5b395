package ctl

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// width is the width of a screen, in columns.
const width = 80

// setUsage makes the help of sixfourctl and of its commands fit the width of a screen.
// It uses no templates: with text/template in a program, the linker keeps the exported
// methods of all types.
func setUsage(root *cobra.Command) {
	wrapLong(root)
	root.SetUsageFunc(func(c *cobra.Command) error {
		switch {
		case c == root:
			return printRootUsage(c.OutOrStderr(), c)
		case c.HasSubCommands():
			return printGroupUsage(c.OutOrStderr(), c)
		}
		return printUsage(c.OutOrStderr(), c)
	})
}

// wrapLong fills the explanations of a command and of all below it.
func wrapLong(c *cobra.Command) {
	c.Long = wrap(c.Long)
	for _, sub := range c.Commands() {
		wrapLong(sub)
	}
}

func printRootUsage(w io.Writer, root *cobra.Command) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s COMMAND [ARGUMENT...]\n\n", root.Name())
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			fmt.Fprintf(&b, "  %-*s %s\n", c.NamePadding(), c.Name(), c.Short)
		}
	}
	fmt.Fprintf(&b, "\n%s COMMAND --help explains a command; --version prints the version.\n", root.Name())
	_, err := io.WriteString(w, b.String())
	return err
}

// printGroupUsage lists all commands below one.
func printGroupUsage(w io.Writer, group *cobra.Command) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s COMMAND [ARGUMENT...]\n\n", group.CommandPath())
	for _, c := range Leaves(group) {
		fmt.Fprintf(&b, "  %-22s %s\n", strings.TrimPrefix(call(c), group.CommandPath()+" "), c.Short)
	}
	fmt.Fprintf(&b, "\n%s COMMAND --help explains a command.\n", group.CommandPath())
	_, err := io.WriteString(w, b.String())
	return err
}

// call is how a command is called, without its flags.
func call(c *cobra.Command) string {
	parent := "sixfourctl"
	if c.HasParent() {
		parent = c.Parent().CommandPath()
	}
	return parent + " " + c.Use
}

// Leaves returns the commands below one that have none below them.
func Leaves(group *cobra.Command) (all []*cobra.Command) {
	for _, c := range group.Commands() {
		switch {
		case !c.IsAvailableCommand():
		case c.HasSubCommands():
			all = append(all, Leaves(c)...)
		default:
			all = append(all, c)
		}
	}
	return all
}

func printUsage(w io.Writer, c *cobra.Command) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n  %s\n", c.UseLine())
	if c.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", c.Example)
	}
	fmt.Fprintf(&b, "\nFlags:\n%s", c.Flags().FlagUsagesWrapped(width))
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap fills paragraphs. Lines that begin with a space are not changed.
func wrap(s string) string {
	var b strings.Builder
	column := 0
	for line := range strings.SplitSeq(s, "\n") {
		if line == "" || strings.HasPrefix(line, " ") {
			if column > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(line + "\n")
			column = 0
			continue
		}
		for word := range strings.FieldsSeq(line) {
			n := utf8.RuneCountInString(word)
			switch {
			case column > 0 && column+1+n > width:
				b.WriteByte('\n')
				column = 0
			case column > 0:
				b.WriteByte(' ')
				column++
			}
			b.WriteString(word)
			column += n
		}
	}
	return strings.TrimRight(b.String(), "\n")
}
