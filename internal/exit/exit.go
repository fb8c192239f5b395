// Package exit has the exit statuses of both programs.
package exit

// Statuses of a process.
const (
	OK      = 0
	Failure = 1
	Misuse  = 2
)

// Status is what the manual says of one.
type Status struct {
	Code              int
	Daemon, Operators string // what it means from sixfourd and from sixfourctl
}

// Statuses are all there are.
var Statuses = []Status{
	{OK, "ended by SIGTERM or SIGINT; what it made is removed", "success"},
	{Failure, "a failure at run time", "failure: no daemon, no answer, a check that fails"},
	{Misuse, "bad flags or configuration, also with `-check`", "wrong use: unknown command, flag or argument"},
}
