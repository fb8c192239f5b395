// Package usage holds what the programs and their manual pages have in common: the flags
// and signals of sixfourd, and the exit statuses of both programs.
package usage

import (
	"fmt"
	"strings"
)

// Flag is one of sixfourd's.
type Flag struct {
	Name, Value string // Value is "" if it takes none
	Meaning     string
}

// What is said of sixfourd.
const (
	DaemonShort = "carries packets through IP tunnels, in user space"
	DaemonNote  = "Tunnels are encrypted only in WireGuard or HTTPS."
)

// DaemonFlags are sixfourd's. They take one dash or two.
var DaemonFlags = []Flag{
	{"config", "PATH", "configuration file (default /etc/sixfour.toml)"},
	{"check", "", "print every problem of the configuration, change nothing"},
	{"check-start", "", "print only the problems that would stop the daemon from starting"},
	{"clean", "", "remove what a killed sixfourd left behind for [gateway]"},
	{"broker", "", "answer one request of sixfourctl broker, on the store, from standard input"},
	{"log-level", "LEVEL", "debug, info, warn or error, instead of the file's"},
	{"log-format", "FORMAT", "auto, console, json or journal, instead of the file's"},
	{"version", "", "print the version"},
	{"help", "", "print this help"},
}

// DaemonSynopsis are the arguments that count.
const DaemonSynopsis = "[-config PATH] [-check] [-check-start] [-clean] [-broker] [-log-level LEVEL] [-log-format FORMAT]"

// Daemon is the help that sixfourd prints.
func Daemon() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sixfourd %s.\n\nUsage: sixfourd %s\n\n", DaemonShort, DaemonSynopsis)
	for _, f := range DaemonFlags {
		fmt.Fprintf(&b, "  %-19s %s\n", strings.TrimSpace("-"+f.Name+" "+f.Value), f.Meaning)
	}
	b.WriteString("\nExit status: 0 after SIGTERM or SIGINT, 1 a failure at run time, 2 bad flags or\nconfiguration. " + DaemonNote + " See\nsixfourd(8), sixfour.toml(5).\n")
	return b.String()
}

// DaemonLong is what the manual page says that the help has no room for.
const DaemonLong = `It makes a TUN interface for each tunnel of its configuration. Packets that are routed into the interface are sent to the
tunnel's peers, and packets from the peers come out of it. The daemon runs in the foreground and logs to standard error. If a
supervisor has set NOTIFY_SOCKET, the daemon notifies it (READY=1) when every tunnel can carry packets, or after five seconds
with a status that names the tunnels that cannot.

When it ends, it removes the interfaces, routes and rules that it made.

` + DaemonNote

// Signal is one that sixfourd knows.
type Signal struct{ Name, Meaning string }

// DaemonSignals are all of them.
var DaemonSignals = []Signal{
	{"SIGHUP", "read the configuration again and apply it: unchanged tunnels lose no packets; a file with errors changes nothing"},
	{"SIGTERM, SIGINT", "end, and remove what the daemon made"},
}

// Exit statuses of both programs.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitMisuse  = 2
)

// ExitStatus describes an exit status.
type ExitStatus struct {
	Code              int
	Daemon, Operators string // its meaning for sixfourd and for sixfourctl
}

// ExitStatuses lists all exit statuses.
var ExitStatuses = []ExitStatus{
	{ExitOK, "ended by SIGTERM or SIGINT; what it made is removed", "success"},
	{ExitFailure, "a failure at run time", "failure: no daemon, no answer, a check that fails"},
	{ExitMisuse, "bad flags or configuration, also with `-check`", "wrong use: unknown command, flag or argument"},
}
