//go:build !(amd64 || arm64 || arm || riscv64 || s390x)

package privilege

import (
	"errors"
	"runtime"
)

// restrictCalls does nothing: there are no lists of calls for this architecture.
func restrictCalls(needs) error {
	return errors.New("there is no list of system calls for " + runtime.GOARCH)
}
