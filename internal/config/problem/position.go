package problem

import "slices"

// Pos is a position in the file.
type Pos struct{ Line, Column int }

// LineStarts are the offsets of the beginnings of all lines.
type LineStarts []int

func NewLineStarts(data []byte) LineStarts {
	starts := LineStarts{0}
	for i, c := range data {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// At returns the position of an offset.
func (s LineStarts) At(offset int) Pos {
	line, found := slices.BinarySearch(s, offset)
	if !found {
		line-- // the offset is in the line that begins before it
	}
	return Pos{line + 1, offset - s[line] + 1}
}
