package kernel

import "github.com/cilium/ebpf"

// RunReceive runs the program that receives on a frame, and returns whether it carries the
// packet, and the frame as it leaves the program, in out.
func (p *Programs) RunReceive(frame, out []byte) (carried bool, left []byte, err error) {
	o := ebpf.RunOptions{Data: frame, DataOut: out}
	verdict, err := p.objects.Receive.Run(&o)
	const next = 1<<32 - 1 // TCX_NEXT
	return verdict != next, o.DataOut, err
}
