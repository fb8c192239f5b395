// Package filter makes the programs with which the kernel chooses packets for the sockets of
// package transport (classic BPF).
package filter

import "golang.org/x/net/bpf"

// program builds a classic BPF program. Jumps go to labels further on.
type program struct {
	code  []bpf.Instruction
	jumps map[int][]int // by label: indexes of the instructions that jump there
}

func (p *program) add(ins ...bpf.Instruction) { p.code = append(p.code, ins...) }

// jump jumps to a label if A fulfils the condition.
func (p *program) jump(cond bpf.JumpTest, val uint32, label int) {
	p.jumpBy(bpf.JumpIf{Cond: cond, Val: val}, label)
}

// always jumps to a label.
func (p *program) always(label int) { p.jumpBy(bpf.Jump{}, label) }

func (p *program) jumpBy(ins bpf.Instruction, label int) {
	if p.jumps == nil {
		p.jumps = make(map[int][]int)
	}
	p.jumps[label] = append(p.jumps[label], len(p.code))
	p.add(ins)
}

// label defines a label at the current position.
func (p *program) label(label int) {
	for _, at := range p.jumps[label] {
		skip := len(p.code) - at - 1
		switch ins := p.code[at].(type) {
		case bpf.Jump:
			ins.Skip = uint32(skip)
			p.code[at] = ins
		case bpf.JumpIf:
			if skip > 255 {
				panic("a program has a conditional jump that is too long")
			}
			ins.SkipTrue = uint8(skip)
			p.code[at] = ins
		}
	}
}
