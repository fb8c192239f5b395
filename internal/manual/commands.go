package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sixfour/internal/ctl"
	"sixfour/internal/usage"
)

const operators = "Operating sixfour"

// commandPages makes a page of sixfourctl, and one of each command.
func commandPages(all map[string][]byte) {
	root := ctl.Root()
	p := newPage(root.Name(), "1", operators)
	p.section("NAME")
	p.lines(root.Name() + " - " + lower(root.Short))
	p.section("SYNOPSIS")
	fmt.Fprintf(&p.b, "%s %s [%s...]\n", strong(root.Name()), slanted("COMMAND"), slanted("ARGUMENT"))
	p.section("DESCRIPTION")
	p.text(root.Long)
	p.section("COMMANDS")
	for _, c := range commands(root) {
		p.item(strong(root.Name()+" "+c.Use), c.Short+". See sixfourctl-"+c.Name()+"(1).")
		all["man/man1/sixfourctl-"+c.Name()+".1"] = commandPage(c)
	}
	exitStatus(p)
	p.section("SEE ALSO")
	p.lines("sixfourd(8), sixfour.toml(5)")
	all["man/man1/sixfourctl.1"] = []byte(p.b.String())
}

func commands(root *cobra.Command) (all []*cobra.Command) {
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			all = append(all, c)
		}
	}
	return all
}

func commandPage(c *cobra.Command) []byte {
	name := "sixfourctl-" + c.Name()
	p := newPage(name, "1", operators)
	p.section("NAME")
	p.lines(name + " - " + lower(c.Short))
	p.section("SYNOPSIS")
	_, args, _ := strings.Cut(c.Use, " ")
	fmt.Fprintf(&p.b, "%s %s\n", strong("sixfourctl "+c.Name()), strings.TrimSpace(slanted("[OPTION...]")+" "+plain(args)))
	p.section("DESCRIPTION")
	long := c.Long
	if long == "" {
		long = c.Short + "."
	}
	p.text(long)
	leaves := []*cobra.Command{c}
	if c.HasSubCommands() {
		leaves = ctl.Leaves(c)
		p.section("COMMANDS")
		for _, leaf := range leaves {
			p.item(strong(leaf.Parent().CommandPath()+" "+leaf.Use), leaf.Long)
		}
	}
	p.section("OPTIONS")
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError) // a flag of the same name means the same in all commands
	for _, leaf := range leaves {
		leaf.InitDefaultHelpFlag()
		flags.AddFlagSet(leaf.Flags())
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			p.item(flagTerm(f), meaning(f))
		}
	})
	if c.Example != "" {
		p.section("EXAMPLES")
		p.verbatim(c.Example)
	}
	exitStatus(p)
	p.section("SEE ALSO")
	p.lines("sixfourctl(1), sixfourd(8)")
	return []byte(p.b.String())
}

// flagTerm is a flag as it is typed.
func flagTerm(f *pflag.Flag) string {
	term := strong("--" + f.Name)
	if f.Shorthand != "" {
		term = strong("-"+f.Shorthand) + ", " + term
	}
	if value, _ := pflag.UnquoteUsage(f); value != "" {
		term += " " + slanted(value)
	}
	return term
}

func meaning(f *pflag.Flag) string {
	_, text := pflag.UnquoteUsage(f)
	switch f.DefValue {
	case "", "false", "0", "[]", "0s":
		return text
	}
	return fmt.Sprintf("%s (default %s)", text, f.DefValue)
}

func exitStatus(p *page) {
	p.section("EXIT STATUS")
	for _, s := range usage.ExitStatuses {
		p.item(strong(fmt.Sprint(s.Code)), s.Operators)
	}
}

// lower returns a sentence with a lower-case first letter, for the place after a dash.
func lower(s string) string {
	if len(s) > 1 && s[1] >= 'a' && s[1] <= 'z' {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

// completions makes those for shells, where each looks for them.
func completions(all map[string][]byte) error {
	for shell, path := range map[string]string{
		"bash": "bash-completion/completions/sixfourctl",
		"zsh":  "zsh/vendor-completions/_sixfourctl",
		"fish": "fish/vendor_completions.d/sixfourctl.fish",
	} {
		var b bytes.Buffer
		if err := ctl.Completion(&b, shell); err != nil {
			return err
		}
		all[path] = b.Bytes()
	}
	return nil
}
