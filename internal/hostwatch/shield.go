package hostwatch

import (
	"errors"
	"os"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/internal/nft"
)

// modules is where the kernel lists its modules.
var modules = os.DirFS("/sys/module")

// Shield suppresses the kernel's own ICMP errors to our peers. Log must be set before Update
// is called. One goroutine owns a Shield.
type Shield struct {
	Log *zap.Logger

	up       *nft.Suppressor // nil: not active
	complain string          // why it could not be set, as last logged
}

// Update updates the shield to the ends where packets are received, and to whether the kernel
// would answer them. The latter changes with the loaded modules, so every full evaluation
// checks it.
func (s *Shield) Update(ends []nft.Endpoint) {
	why := nft.KernelAnswers(modules, ends)
	if why == "" || len(ends) == 0 {
		if s.up != nil {
			s.Log.Info("the kernel's ICMP errors to our peers are no longer suppressed, because that is no longer necessary", zap.String("nftables_table", s.up.Name()))
		}
		s.Close()
		return
	}
	var err error
	fresh := s.up == nil
	if fresh {
		s.up, err = nft.OpenSuppressor()
	}
	if err == nil {
		err = s.up.Suppress(ends)
	}
	switch {
	case err != nil && err.Error() != s.complain:
		s.complain = err.Error()
		way := "unload them, or run: " + nft.SuppressCommand(ends)
		if errors.Is(err, unix.EPERM) { // no shield existed when the daemon dropped its privileges
			way += `; or restart the daemon, which gave up the right to use nftables; packet_filter = "on" in [security] keeps it`
		}
		s.Log.Warn("the kernel answers our peers' packets with ICMP errors (port unreachable), after which peers may stop sending, and nftables cannot suppress these errors: "+way,
			zap.String("because_of", why), zap.Error(err))
	case err == nil && fresh:
		s.complain = ""
		s.Log.Info("the kernel would answer our peers' packets with ICMP errors (port unreachable): these errors are suppressed",
			zap.String("because_of", why), zap.String("nftables_table", s.up.Name()))
	}
	if err != nil {
		s.Close()
	}
}

// Close removes the shield.
func (s *Shield) Close() {
	if s.up == nil {
		return
	}
	if err := s.up.Close(); err != nil {
		s.Log.Warn("cannot remove the nftables table that suppresses ICMP errors", zap.Error(err))
	}
	s.up = nil
}
