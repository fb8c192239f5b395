package firewall

import (
	"bytes"
	"slices"

	"github.com/google/nftables"
)

// find looks up a value: whether there is an element for it, and which. The element is
// nil if several are possible.
func (s *set) find(v value) (found ternary, e *nftables.SetElement) {
	if s == nil {
		return maybe, nil
	}
	if s.interval && !s.concat {
		return s.findInterval(v)
	}
	for i := range s.elements {
		switch holds(&s.elements[i], v) {
		case yes:
			return yes, &s.elements[i]
		case maybe:
			found = maybe
		}
	}
	if found == no {
		return s.findRest()
	}
	return found, nil
}

// findRest returns the catch-all element, which has no key.
func (s *set) findRest() (ternary, *nftables.SetElement) {
	for i := range s.elements {
		if len(s.elements[i].Key) == 0 && !s.elements[i].IntervalEnd {
			return yes, &s.elements[i]
		}
	}
	return no, nil
}

// findInterval looks up a value among intervals. Each element is the start of an
// interval or, if it is marked so, the end of one.
func (s *set) findInterval(v value) (ternary, *nftables.SetElement) {
	if len(s.elements) == 0 {
		return no, nil
	}
	if !v.allKnown() {
		return maybe, nil
	}
	// If an interval ends where the next one starts, only the start counts.
	bounds := slices.Clone(s.elements)
	slices.SortStableFunc(bounds, func(a, b nftables.SetElement) int {
		if c := bytes.Compare(a.Key, b.Key); c != 0 {
			return c
		}
		switch {
		case a.IntervalEnd == b.IntervalEnd:
			return 0
		case a.IntervalEnd:
			return -1
		}
		return 1
	})
	var last *nftables.SetElement
	for i := range bounds {
		if len(bounds[i].Key) != len(v.b) {
			continue
		}
		if bytes.Compare(bounds[i].Key, v.b) > 0 {
			break
		}
		last = &bounds[i]
	}
	if last == nil || last.IntervalEnd {
		return s.findRest()
	}
	return yes, last
}

// holds reports whether an element contains a value. A range of concatenated fields has
// a range for each field. Each field has a multiple of 4 bytes, and a prefix is a range
// for each 4 bytes, too.
func holds(e *nftables.SetElement, v value) ternary {
	if len(e.Key) == 0 || len(e.Key) > len(v.b) {
		return no
	}
	if len(e.KeyEnd) != len(e.Key) {
		return v.is(e.Key)
	}
	answer := yes
	for i := 0; i < len(e.Key); i += 4 {
		end := min(i+4, len(e.Key))
		part := value{v.b[i:end], v.known[i:end]}
		answer = min(answer, part.within(e.Key[i:end], e.KeyEnd[i:end]))
	}
	return answer
}
