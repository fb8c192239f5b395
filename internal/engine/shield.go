package engine

import (
	"errors"
	"os"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sixfour/encap/header"
	"sixfour/internal/nft"
)

// modules is where the kernel lists its modules.
var modules = os.DirFS("/sys/module")

// shield suppresses the kernel's own ICMP errors to our peers. The control loop owns it.
type shield struct {
	up       *nft.Suppressor // nil: not active
	complain string          // why it could not be set, as last logged
}

// updateShield updates the shield to where packets are received, and to whether the kernel
// would answer them. The latter changes with the loaded modules, so every full evaluation
// checks it.
func (e *Engine) updateShield() {
	ends := e.shieldedEnds()
	why := nft.KernelAnswers(modules, ends)
	if why == "" || len(ends) == 0 {
		if e.shield.up != nil {
			e.log.Info("the kernel's ICMP errors to our peers are no longer suppressed, because that is no longer necessary", zap.String("nftables_table", e.shield.up.Name()))
		}
		e.dropShield()
		return
	}
	var err error
	fresh := e.shield.up == nil
	if fresh {
		e.shield.up, err = nft.OpenSuppressor()
	}
	if err == nil {
		err = e.shield.up.Suppress(ends)
	}
	switch {
	case err != nil && err.Error() != e.shield.complain:
		e.shield.complain = err.Error()
		way := "unload them, or run: " + nft.SuppressCommand(ends)
		if errors.Is(err, unix.EPERM) { // no shield existed when the daemon dropped its privileges
			way += `; or restart the daemon, which gave up the right to use nftables; packet_filter = "on" in [security] keeps it`
		}
		e.log.Warn("the kernel answers our peers' packets with ICMP errors (port unreachable), after which peers may stop sending, and nftables cannot suppress these errors: "+way,
			zap.String("because_of", why), zap.Error(err))
	case err == nil && fresh:
		e.shield.complain = ""
		e.log.Info("the kernel would answer our peers' packets with ICMP errors (port unreachable): these errors are suppressed",
			zap.String("because_of", why), zap.String("nftables_table", e.shield.up.Name()))
	}
	if err != nil {
		e.dropShield()
	}
}

// shieldedEnds returns the ends at which the kernel must not answer.
func (e *Engine) shieldedEnds() []nft.Endpoint {
	var ends []nft.Endpoint
	for _, k := range e.sockets.Open() {
		icmp, _ := icmpPort(k.Local.Addr())
		if !k.Local.Addr().IsMulticast() && k.Protocol != icmp.Protocol && k.Protocol != header.UDP { // the kernel knows its own sockets
			ends = append(ends, nft.Endpoint{Local: k.Local.Addr(), Protocol: k.Protocol})
		}
	}
	return ends
}

// dropShield removes the shield.
func (e *Engine) dropShield() {
	if e.shield.up == nil {
		return
	}
	if err := e.shield.up.Close(); err != nil {
		e.log.Warn("cannot remove the nftables table that suppresses ICMP errors", zap.Error(err))
	}
	e.shield.up = nil
}
