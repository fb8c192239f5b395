package firewall

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// set is a set or a map.
type set struct {
	length   int // of the keys, in bytes
	elements []element
	others   *element // for what no element contains (nft: *); nil: there is none
}

// element is a range of keys.
type element struct {
	from, to []byte        // the first and the last key
	fields   bool          // the ranges of fields of 4 bytes each are concatenated
	verdict  *expr.Verdict // of a verdict map
}

// newSet makes a set of the kernel's elements. An interval is an element where it begins,
// and another one, marked as an end, behind its last key; where the next interval begins
// there, or there is no greater key, the end may be missing.
func newSet(interval bool, list []nftables.SetElement) *set {
	s := new(set)
	if slices.ContainsFunc(list, func(e nftables.SetElement) bool { return len(e.KeyEnd) > 0 }) {
		interval = false // concatenations have both ends in one element
	}
	slices.SortStableFunc(list, func(x, y nftables.SetElement) int {
		return cmp.Or(bytes.Compare(x.Key, y.Key), cmp.Compare(len(x.KeyEnd), len(y.KeyEnd)))
	})
	for i, e := range list {
		if e.IntervalEnd {
			continue
		}
		one := element{from: e.Key, to: e.Key, verdict: parseVerdict(e.Val)}
		switch {
		case len(e.Key) == 0:
			s.others = &one
			continue
		case len(e.KeyEnd) == len(e.Key): // of a concatenation; a prefix is a range, too
			one.to, one.fields = e.KeyEnd, true
		case interval:
			one.to = before(list[i+1:], e.Key)
		}
		s.length = max(s.length, len(e.Key))
		s.elements = append(s.elements, one)
	}
	return s
}

// before returns the key before the first one of a sorted list that is greater than key;
// without one it is the greatest key.
func before(list []nftables.SetElement, key []byte) []byte {
	last := bytes.Repeat([]byte{0xff}, len(key))
	for _, e := range list {
		if len(e.Key) == len(key) && bytes.Compare(e.Key, key) > 0 {
			last = bytes.Clone(e.Key)
			for i := len(last) - 1; ; i-- { // minus 1
				last[i]--
				if last[i] != 0xff {
					return last
				}
			}
		}
	}
	return last
}

// find looks up a value: whether there is an element for it, and which. The element is nil
// if several are possible. A set that was not read may contain anything.
func (s *set) find(v value) (found ternary, e *element) {
	if s == nil {
		return maybe, nil
	}
	for i := range s.elements {
		switch s.elements[i].contains(v) {
		case yes:
			return yes, &s.elements[i]
		case maybe:
			found = maybe
		}
	}
	if found == no && s.others != nil {
		return yes, s.others
	}
	return found, nil
}

func (e *element) contains(v value) ternary {
	if len(e.from) > len(v.b) {
		return no
	}
	v = v.part(0, len(e.from))
	if !e.fields {
		return v.within(e.from, e.to)
	}
	result := yes
	for i := 0; i < len(e.from); i += 4 {
		end := min(i+4, len(e.from))
		result = min(result, v.part(i, end).within(e.from[i:end], e.to[i:end]))
	}
	return result
}
