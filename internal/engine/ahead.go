package engine

import (
	"sixfour/transport"
)

// ahead are receivers that are opened while something else is done, by where they
// listen: to open one takes as long as to make an interface, and mostly by waiting
// (transport.ListenRaw). At a restart nothing arrives until both are there.
type ahead map[listener]chan []transport.Receiver

// listenAhead opens the receivers at the addresses of the configuration, but for those
// that were kept.
func (e *Engine) listenAhead() {
	e.ahead = make(ahead)
	needed := make(map[listener]int)
	for _, t := range e.tunnels {
		outermost := len(t.cfg.Layers) - 1
		if local := t.cfg.Layers[outermost].Local; local.IsValid() && local.Zone() == "" {
			l := listener{local: local, protocol: t.cfg.Mode.Layers[outermost].Protocol()}
			needed[l] = e.shardsFor(needed[l], t.cfg.Layers[outermost].GRE.Sequence)
		}
	}
	for l, shards := range needed {
		if len(e.kept.passed[receiverName(l, transport.Shard{Index: 0, Count: shards})]) > 0 {
			continue
		}
		done := make(chan []transport.Receiver, 1)
		e.ahead[l] = done
		go func() { done <- e.openAll(l, shards) }()
	}
}

// openAll opens the receivers of a place; nil: it cannot be done, which who tries it
// the next time says.
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

// takeAhead are the receivers of a place that were opened, if there are so many.
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

// closeAhead closes those that nobody took.
func (e *Engine) closeAhead() {
	for l, done := range e.ahead {
		closeAll(<-done)
		delete(e.ahead, l)
	}
}
