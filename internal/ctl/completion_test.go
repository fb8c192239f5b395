package ctl

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestComplete(t *testing.T) {
	f := start(t)
	for _, c := range []struct{ line, want string }{
		{"status ", "six0 hub0 hub0/pa hub0/pb hub0/pc"},
		{"status hub0/", "hub0/pa hub0/pb hub0/pc"},
		{"status six0 ", ""},
		{"watch ", "six0 hub0"},
		{"watch x", ""},
		{"ping hub0/p", "hub0/pa hub0/pb hub0/pc"},
		{"mtu s", "six0"},
		{"paths hub0/p", "hub0/pa hub0/pb hub0/pc"},
		{"capture h", "hub0"},
		{"completion ", "bash zsh fish"},
		{"sta", "status"},
		{"status --js", "--json"},
	} {
		args := strings.Split("__complete "+c.line, " ")
		if slices.Contains([]string{"status", "watch", "ping", "mtu", "paths", "capture"}, args[1]) {
			args = append([]string{args[0], args[1], "--socket", f.socket}, args[2:]...)
		}
		out, errs := new(buffer), new(buffer)
		cmd := Root()
		cmd.SetOut(out)
		cmd.SetErr(errs)
		cmd.SetArgs(args)
		must(t, cmd.ExecuteContext(t.Context()))
		var got []string
		for line := range strings.Lines(out.String()) {
			if name, _, _ := strings.Cut(strings.TrimSpace(line), "\t"); !strings.HasPrefix(name, ":") {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: %q, want %q\n%s", c.line, got, c.want, errs)
		}
	}
}

// Without a daemon there are no completions, and no message.
func TestCompleteWithoutDaemon(t *testing.T) {
	out, _, err := ctl(t.Context(), "__complete status --socket /no/such/socket six")
	if err != nil || out.String() != ":4\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// Bash completes with the script.
func TestBash(t *testing.T) {
	f := start(t)
	dir := t.TempDir()
	self, err := os.Executable()
	must(t, err)
	must(t, os.Symlink(self, filepath.Join(dir, "sixfourctl")))
	script := `_get_comp_words_by_ref() { # of the package bash-completion, as far as it is used
	words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; cur=${words[cword]}; prev=${words[cword-1]}
}
. <(sixfourctl completion bash)
COMP_WORDS=(sixfourctl status --socket "` + f.socket + `" hub0/); COMP_CWORD=4
COMP_LINE="${COMP_WORDS[*]}"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
__start_sixfourctl
printf '%s\n' "${COMPREPLY[@]%% *}"`
	cmd := exec.Command("bash", "--norc", "-c", script)
	cmd.Env = append(os.Environ(), asProgram+"=1", "PATH="+dir+":"+os.Getenv("PATH"))
	out, err := cmd.Output() // only interactive shells support compopt: ignore that message
	if want := "hub0/pa\nhub0/pb\nhub0/pc\n"; err != nil || string(out) != want {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
}

func TestCompletionScripts(t *testing.T) {
	for shell, begins := range map[string]string{"bash": "# bash completion", "zsh": "#compdef sixfourctl\n", "fish": "# fish completion for sixfourctl"} {
		out, _, err := ctl(t.Context(), "completion "+shell)
		if err != nil || !strings.HasPrefix(out.String(), begins) || !strings.Contains(out.String(), "__complete") {
			t.Errorf("%s: %v, %.100s", shell, err, out)
		}
	}
	for _, args := range []string{"completion", "completion tcsh", "completion bash zsh"} {
		if _, _, err := ctl(t.Context(), args); exitStatus(err) != 2 {
			t.Errorf("%s: %v", args, err)
		}
	}
}
