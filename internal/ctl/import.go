package ctl

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/spf13/cobra"

	"sixfour/internal/importing"
)

// importCommand makes a configuration; it does not need a daemon.
func importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import [FILE|-]...",
		Short: "Make a configuration from the tunnels of another program",
		Long: `Prints a valid configuration. FILE is a file, a directory or "-", standard input; without it the tunnels of the kernel are read. What the configuration does
not have is in comments, line by line, with the reason. Formats: ` + strings.Join(importing.Formats(), ", ") + `. It needs no daemon.`,
		Args: takes(0, math.MaxInt),
	}
	var o importing.Options
	cmd.Flags().StringVar(&o.Format, "format", "", "`FORMAT` of the input; left out: recognized")
	cmd.Flags().StringToStringVar(&o.Set, "set", nil, "a variable of a script and its value")
	apply := cmd.Flags().Bool("apply", false, "write the configuration to its place; a file there is kept as .bak")
	path := cmd.Flags().String("config", "/etc/sixfour.toml", "with --apply: `PATH` of the configuration")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		files, err := importing.ReadFiles(cmd.InOrStdin(), args)
		if err != nil {
			return fail(err)
		}
		r, err := importing.Import(files, o)
		if err == nil && *apply && len(r.Tunnels) > 0 {
			err = importing.Apply(*path, r)
		}
		switch {
		case err != nil:
			return fail(err)
		case *asJSON:
			return fail(printJSON(cmd.OutOrStdout(), r))
		}
		fmt.Fprint(output(cmd), r.Config)
		if len(r.Tunnels) == 0 {
			return fail(errors.New("no tunnel of the input can be taken over"))
		}
		return nil
	}
	return cmd
}
