package config

import "slices"

// pos is a position in the file.
type pos struct{ line, column int }

// lineStarts are the offsets of the beginnings of all lines.
type lineStarts []int

func newLineStarts(data []byte) lineStarts {
	starts := lineStarts{0}
	for i, c := range data {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// at returns the position of an offset.
func (s lineStarts) at(offset int) pos {
	line, found := slices.BinarySearch(s, offset)
	if !found {
		line-- // the offset is in the line that begins before it
	}
	return pos{line + 1, offset - s[line] + 1}
}
