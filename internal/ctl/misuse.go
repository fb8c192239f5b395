package ctl

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sixfour/internal/text"
)

// takes accepts least to most arguments, and otherwise returns an error with the usage.
func takes(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		call := call(cmd)
		switch {
		case len(args) < least:
			return fmt.Errorf("%s: an argument is missing: %s", cmd.Name(), call)
		case len(args) > most && most == 0:
			return fmt.Errorf("%s takes no arguments, but %q was given: %s", cmd.Name(), args[0], call)
		case len(args) > most:
			return fmt.Errorf("%s: argument %q is one too many: %s", cmd.Name(), args[most], call)
		}
		return nil
	}
}

// unknownCommand returns an error that lists the commands, or the most similar one.
func unknownCommand(root *cobra.Command, name string) error {
	var names []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	if meant := text.Nearest(name, names); meant != "" {
		return fmt.Errorf("there is no command %q: did you mean %q?", name, meant)
	}
	return fmt.Errorf("there is no command %q: choose %s", name, strings.Join(names, ", "))
}

// explainFlag returns an error with the problem of a flag, and its valid values.
func explainFlag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var empty *pflag.ValueRequiredError
	var wrong *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		return unknownFlag(cmd, unknown)
	case errors.As(err, &empty):
		value, _ := pflag.UnquoteUsage(empty.GetFlag())
		return fmt.Errorf("--%s needs a value: --%[1]s %[2]s", empty.GetFlag().Name, value)
	case errors.As(err, &wrong):
		return fmt.Errorf("--%s %q: give %s", wrong.GetFlag().Name, wrong.GetValue(), values(wrong.GetFlag()))
	}
	return err
}

func unknownFlag(cmd *cobra.Command, unknown *pflag.NotExistError) error {
	name := "--" + unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() != "" {
		name = "-" + unknown.GetSpecifiedName()
	}
	if !cmd.HasParent() {
		return fmt.Errorf("there is no flag %s before a command: flags of a command come after it, such as sixfourctl status --json", name)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	if meant := text.Nearest(name, names); meant != "" {
		return fmt.Errorf("%s has no flag %s: did you mean %s?", cmd.Name(), name, meant)
	}
	return fmt.Errorf("%s has no flag %s: it has %s", cmd.Name(), name, strings.Join(names, ", "))
}

// values describes the valid values of a flag.
func values(f *pflag.Flag) string {
	switch kind := f.Value.Type(); {
	case kind == "duration":
		return "a time with a unit, such as 500ms or 2s"
	case kind == "bool":
		return "true or false"
	case strings.HasPrefix(kind, "uint"):
		return "a whole number that is not negative"
	case strings.HasPrefix(kind, "int"):
		return "a whole number"
	default:
		return "a " + kind
	}
}
