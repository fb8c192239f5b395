// Package accounts has the commands of sixfourctl that show and change accounts and leases of a
// broker.
package accounts

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"sixfour/internal/api"
	"sixfour/internal/trusted"
)

// Tool is what the commands use of sixfourctl.
type Tool struct {
	Takes   func(least, most int) cobra.PositionalArgs
	Unknown func(group *cobra.Command, name string) error // the error for a command that is not known
	Fail    func(error) error                             // marks an error as a failure, not wrong use
	JSON    func(io.Writer, any) error
	Print   func(io.Writer, Page) error
	Daemon  func() (path string, err error) // finds the program sixfourd
	Socket  string                          // default of --socket
}

// Page is what a command prints: fields, or a table with a heading.
type Page struct {
	Fields  [][2]string // name and value; without a value it is a title
	Heading []string
	Numbers []bool // columns with numbers
	Rows    [][]string
}

// Command returns the command "broker".
func (t Tool) Command() *cobra.Command {
	cmd := t.group("broker", "Show and change accounts and leases of the broker",
		`Shows and changes accounts and leases of the broker. If no daemon answers at the control socket, the command uses the store that
[broker] of the configuration names (--config PATH), by means of sixfourd. An account serves all protocols.`)
	account := t.group("account", "Show and change accounts", "Shows and changes accounts. Each has a name, a password, and a number that is never used again.")
	account.AddCommand(
		t.account(api.AccountAdd, "add", "Make an account, and print its password", true),
		t.account(api.AccountSet, "set", "Change limits, type or prefix of an account", true),
		t.account(api.AccountShow, "show", "Show an account and its lease", false),
		t.list(api.AccountList, "Show all accounts"),
		t.account(api.AccountEnable, "enable", "Let the client of an account connect again", false),
		t.account(api.AccountDisable, "disable", "Disconnect the client of an account; the lease stays", false),
		t.account(api.AccountRemove, "remove", "Remove an account with its lease", false),
	)
	lease := t.group("lease", "Show and release leases", "Shows and releases leases. A lease has no end: an account keeps its prefix until it is released.")
	lease.AddCommand(
		t.list(api.LeaseList, "Show all leases"),
		t.account(api.LeaseShow, "show", "Show the lease of an account", false),
		t.account(api.LeaseRelease, "release", "Release the prefix of an account: others can get it", false),
	)
	cmd.AddCommand(account, lease, t.password())
	return cmd
}

// group returns a command that has only commands of its own.
func (t Tool) group(name, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: name + " COMMAND", Short: short, Long: long,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return t.Unknown(cmd, args[0])
		},
	}
}

// account returns a command about one account. With withSettings it has flags for them.
func (t Tool) account(do api.BrokerDo, name, short string, withSettings bool) *cobra.Command {
	cmd := &cobra.Command{Use: name + " NAME", Short: short, Long: short + ".", Args: t.Takes(1, 1), ValidArgsFunction: cobra.NoFileCompletions}
	b := t.flags(cmd)
	var s settings
	if withSettings {
		s.flags(cmd)
	}
	var password *string
	if do == api.AccountAdd {
		password = passwordFlag(cmd)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		q := api.BrokerRequest{Do: do, Account: args[0]}
		if err := s.set(cmd, &q); err != nil {
			return err
		}
		if q.Password, err = readPassword(password); err != nil {
			return t.Fail(err)
		}
		return b.run(cmd, q)
	}
	return cmd
}

func (t Tool) list(do api.BrokerDo, short string) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: short, Long: short + ".", Args: t.Takes(0, 0)}
	b := t.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return b.run(cmd, api.BrokerRequest{Do: do}) }
	return cmd
}

func (t Tool) password() *cobra.Command {
	cmd := &cobra.Command{
		Use: "password NAME", Short: "Give an account another password, and print it once",
		Long: "Gives an account another password, and prints it once. A client that is connected is disconnected.",
		Args: t.Takes(1, 1), ValidArgsFunction: cobra.NoFileCompletions,
	}
	b, password := t.flags(cmd), passwordFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		secret, err := readPassword(password)
		if err != nil {
			return t.Fail(err)
		}
		return b.run(cmd, api.BrokerRequest{Do: api.NewPassword, Account: args[0], Password: secret})
	}
	return cmd
}

func passwordFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("password-file", "", "`PATH` of a file (0600) with the password; otherwise one is made")
}

func readPassword(path *string) (string, error) {
	if path == nil || *path == "" {
		return "", nil
	}
	secret, err := trusted.ReadSecret(*path)
	if err == nil && secret == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", *path, err)
	}
	return secret, nil
}

// settings are flags with what an account may use.
type settings struct{ kind, prefix, longest, mtu, rate string }

func (s *settings) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.kind, "type", "", "what TIC offers the client: `TYPE` is ayiya, heartbeat or 6in4 (default ayiya)")
	f.StringVar(&s.prefix, "prefix", "", "give always this `PREFIX`, or \"none\": one of the pool")
	f.StringVar(&s.longest, "max-prefix-length", "", "`LENGTH` of the shortest prefix that the client may ask for; 0: the broker's")
	f.StringVar(&s.mtu, "mtu", "", "MTU of the tunnel, in `BYTES`; 0: the broker's")
	f.StringVar(&s.rate, "rate", "", "most `BITS` per second in each direction, such as 500k or 20M; 0: any")
}

// set sets what was given in a request.
func (s *settings) set(cmd *cobra.Command, q *api.BrokerRequest) error {
	if cmd.Flags().Changed("type") {
		q.Type = &s.kind
	}
	if cmd.Flags().Changed("prefix") {
		if s.prefix == "none" {
			s.prefix = ""
		}
		q.Prefix = &s.prefix
	}
	for _, f := range []struct {
		name, text string
		to         **int
	}{{"max-prefix-length", s.longest, &q.MaxPrefixLength}, {"mtu", s.mtu, &q.MTU}} {
		if !cmd.Flags().Changed(f.name) {
			continue
		}
		n, err := strconv.ParseUint(f.text, 10, 16)
		if err != nil {
			return fmt.Errorf("--%s %q: give a whole number", f.name, f.text)
		}
		value := int(n)
		*f.to = &value
	}
	if cmd.Flags().Changed("rate") {
		rate, err := parseRate(s.rate)
		if err != nil {
			return err
		}
		q.Rate = &rate
	}
	return nil
}

// parseRate parses a rate in bits per second, with an optional metric prefix.
func parseRate(s string) (uint64, error) {
	digits, factor := s, uint64(1)
	for i, unit := range []string{"k", "M", "G"} {
		if rest, ok := strings.CutSuffix(s, unit); ok {
			digits = rest
			for range i + 1 {
				factor *= 1000
			}
		}
	}
	n, err := strconv.ParseUint(digits, 10, 40)
	if err != nil {
		return 0, fmt.Errorf("--rate %q: give bits per second, such as 500k or 20M", s)
	}
	return n * factor, nil
}

// call is how a command reaches the accounts and leases.
type call struct {
	Tool
	socket, config *string
	asJSON         *bool
}

func (t Tool) flags(cmd *cobra.Command) call {
	return call{
		Tool:   t,
		socket: cmd.Flags().String("socket", t.Socket, "`PATH` of the daemon's control socket"),
		config: cmd.Flags().String("config", "/etc/sixfour.toml", "`PATH` of the configuration, if no daemon answers"),
		asJSON: cmd.Flags().Bool("json", false, "print JSON"),
	}
}

// run carries out a request, and prints the answer.
func (c *call) run(cmd *cobra.Command, q api.BrokerRequest) error {
	if !utf8.ValidString(q.Account) {
		return fmt.Errorf("the name %q is not text in UTF-8, as each name of an account is", q.Account)
	}
	a := answerTo(q.Do)
	if err := c.ask(cmd.Context(), q, a.add); err != nil {
		return c.Fail(err)
	}
	if *c.asJSON {
		return c.Fail(c.JSON(cmd.OutOrStdout(), a.json()))
	}
	return c.Fail(c.Print(cmd.OutOrStdout(), a.page()))
}

// shown returns the name of an account as it is printed: one with characters that are not
// printed would look like another.
func shown(name string) string {
	if quoted := strconv.Quote(name); quoted[1:len(quoted)-1] != name {
		return quoted
	}
	return name
}
