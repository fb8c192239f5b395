package ctl

import (
	"strings"
	"testing"
)

// Errors in a command line are reported in our own words, with the remedy and a pointer to
// further help.
func TestMisuse(t *testing.T) {
	for _, c := range []struct{ args, want, see string }{
		{"frob", `there is no command "frob": choose status, watch, doctor, reload, ping, mtu, paths, broker, capture, decode, demo, address, import, completion`, ""},
		{"statsu", `there is no command "statsu": did you mean "status"?`, ""},
		{"Status", `there is no command "Status": did you mean "status"?`, ""},
		{"help frob", `there is no command "frob": choose`, ""},
		{"--json status", "there is no flag --json before a command: flags of a command come after it, such as sixfourctl status --json", ""},
		{"status --jsno", "status has no flag --jsno: did you mean --json?", " status"},
		{"status -j", "status has no flag -j: it has --", " status"},
		{"status --json=maybe", `--json "maybe": give true or false`, " status"},
		{"status --socket", "--socket needs a value: --socket PATH", " status"},
		{"ping six0 -i 5", `--interval "5": give a time with a unit, such as 500ms or 2s`, " ping"},
		{"ping six0 six1", `ping: argument "six1" is one too many: sixfourctl ping TUNNEL|TUNNEL/PEER|PEER`, " ping"},
		{"capture six0 -c -1", `--count "-1": give a whole number that is not negative`, " capture"},
		{"reload now", `reload takes no arguments, but "now" was given: sixfourctl reload`, " reload"},
		{"completion tcsh", `there is no completion for "tcsh": choose bash, zsh, fish`, " completion"},
		{"completion", "completion: an argument is missing: sixfourctl completion bash|zsh|fish", " completion"},
	} {
		cmd := Root()
		cmd.SetArgs(strings.Fields(c.args))
		cmd.SetOut(new(buffer))
		cmd.SetErr(new(buffer))
		at, err := cmd.ExecuteContextC(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || exitStatus(err) != 2 {
			t.Errorf("%s: %v, want %s", c.args, err, c.want)
		}
		if at.CommandPath() != "sixfourctl"+c.see {
			t.Errorf("%s: see %s", c.args, at.CommandPath())
		}
	}
}

func TestHelpCommand(t *testing.T) {
	for args, want := range map[string]string{"help": "Usage: sixfourctl COMMAND", "help ping": "Sends probes of the tunnel layer", "ping --help": "Sends probes of the tunnel layer"} {
		out, _, err := ctl(t.Context(), args)
		if err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
}
