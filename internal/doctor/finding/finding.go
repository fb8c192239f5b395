// Package finding has the outcome of a check of doctor: a verdict, a sentence and a
// remedy.
package finding

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"sixfour/internal/netns"
)

// Verdict is the result of a check.
type Verdict string

// The verdicts. A check is skipped if it is not possible or not relevant.
const (
	Pass Verdict = "PASS"
	Fail Verdict = "FAIL"
	Skip Verdict = "SKIP"
)

// Finding is the outcome of a check: one sentence and, if something is wrong, the command
// or configuration line that corrects it.
type Finding struct {
	Verdict Verdict
	Text    string
	Remedy  string
}

// Passed returns the finding of a check that passed.
func Passed(format string, args ...any) Finding {
	return Finding{Pass, fmt.Sprintf(format, args...), ""}
}

// Skipped returns the finding of a check that is not possible or not relevant.
func Skipped(format string, args ...any) Finding {
	return Finding{Skip, fmt.Sprintf(format, args...), ""}
}

// Failed returns the finding of a check that failed, with the remedy.
func Failed(remedy, format string, args ...any) Finding {
	return Finding{Fail, fmt.Sprintf(format, args...), remedy}
}

// WithRemedy returns a copy of the finding with a remedy.
func (f Finding) WithRemedy(remedy string) Finding {
	f.Remedy = remedy
	return f
}

// AsRoot is the remedy for a missing permission of this program.
const AsRoot = "sudo sixfourctl doctor"

// Plural returns a number of things, such as "1 tunnel" or "2 tunnels".
func Plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Addresses lists addresses in a sentence.
func Addresses(addrs []netip.Addr) string {
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}

// OfError returns the finding for an error that prevented a check.
func OfError(err error) Finding {
	var ns *netns.Error
	switch {
	case errors.Is(err, unix.EPERM):
		return Skipped("%v", err).WithRemedy(AsRoot)
	case errors.As(err, &ns):
		return Failed(ns.Hint, "network namespace %s: %v", ns.Namespace, ns.Err)
	}
	return Skipped("%v", err)
}
