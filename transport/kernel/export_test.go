package kernel

import (
	"time"

	"github.com/cilium/ebpf"

	"sixfour/encap"
)

// RunReceive runs the program that receives on a frame, and returns whether it carries the
// packet, and the frame as it leaves the program, in out.
func (p *Programs) RunReceive(frame, out []byte) (carried bool, left []byte, err error) {
	o := ebpf.RunOptions{Data: frame, DataOut: out}
	verdict, err := p.objects.Receive.Run(&o)
	const next = 1<<32 - 1 // TCX_NEXT
	return verdict != next, o.DataOut, err
}

// Spoil changes a part of the entry that Receive has made, as if another entry had its memory.
func (p *Programs) Spoil(layers []encap.Layer) error {
	table, key, _, err := p.end(0, 0, layers)
	if err != nil {
		return err
	}
	var e programsEnd
	if err := table.Lookup(key, &e); err != nil {
		return err
	}
	e.Tunnel++
	return table.Put(key, e)
}

// TimeReceive runs the program that receives on a frame, and returns how long that takes.
func (p *Programs) TimeReceive(frame []byte) (time.Duration, error) {
	_, d, err := p.objects.Receive.Benchmark(frame, 1, nil)
	return d, err
}

// Entries returns how many entries the tables have.
func (p *Programs) Entries() (n int, err error) {
	o := &p.objects
	for _, table := range []*ebpf.Map{o.Paths, o.Ends4, o.Ends6, o.Behind4, o.Behind6, o.Counts} {
		var key, value []byte
		entries := table.Iterate()
		for entries.Next(&key, &value) {
			n++
		}
		if err := entries.Err(); err != nil {
			return n, err
		}
	}
	return n, nil
}
