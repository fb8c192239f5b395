package engine

import (
	"sixfour/transport"
)

// ahead holds receivers, by listener, that are opened in the background at the start.
// Opening one takes as long as making an interface, most of it waiting
// (transport.ListenRaw). At a restart no packets arrive until both are ready.
type ahead map[listener]chan []transport.Receiver

// listenAhead starts to open the receivers for the configured addresses, except those that
// were inherited.
func (e *Engine) listenAhead() {
	e.ahead = make(ahead)
	needed := make(map[listener]int)
	for _, t := range e.tunnels {
		outermost := len(t.cfg.Layers) - 1
		for _, local := range t.cfg.Locals() {
			if local.IsValid() && local.Zone() == "" {
				l := listener{local: local, protocol: t.cfg.Mode.Layers[outermost].Protocol()}
				needed[l] = e.shardsFor(needed[l], t.cfg.Kind(outermost).Properties().Ordered)
			}
		}
	}
	for l, shards := range needed {
		if len(e.handover.passed[receiverName(l, transport.Shard{Index: 0, Count: shards})]) > 0 {
			continue
		}
		done := make(chan []transport.Receiver, 1)
		e.ahead[l] = done
		go func() { done <- e.openAll(l, shards) }()
	}
}

// openAll opens the receivers of a listener. It returns nil if that fails; the later
// regular attempt reports the error.
func (e *Engine) openAll(l listener, shards int) (all []transport.Receiver) {
	for i := range shards {
		rx, err := transport.ListenRaw(l.local, int(l.protocol), transport.Shard{Index: i, Count: shards}, transport.Options{Segments: e.segments})
		if err != nil {
			closeAll(all)
			return nil
		}
		all = append(all, rx)
	}
	return all
}

func closeAll(all []transport.Receiver) {
	for _, rx := range all {
		rx.Close()
	}
}

// takeAhead returns the receivers opened for a listener if their number is right.
func (e *Engine) takeAhead(l listener, shards int) []transport.Receiver {
	done := e.ahead[l]
	if done == nil || l.at.IsValid() {
		return nil
	}
	delete(e.ahead, l)
	all := <-done
	if len(all) != shards {
		closeAll(all)
		return nil
	}
	return all
}

// closeAhead closes receivers that were not taken.
func (e *Engine) closeAhead() {
	for l, done := range e.ahead {
		closeAll(<-done)
		delete(e.ahead, l)
	}
}
