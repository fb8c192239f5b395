package probing

import (
	"testing"

	"sixfour/encap/header"
	"sixfour/internal/api"
)

// One mark that arrives shows that marks are kept; several answers without it in a row that
// they are removed. Answers that were not asked for, and those of a host that does not copy
// the field, show nothing.
func TestMarks(t *testing.T) {
	var e Echo
	for i, step := range []struct {
		sent int
		ecn  byte
		want api.Marks
	}{
		{0, header.CE, api.MarksUnknown},
		{1, header.NotECT, api.MarksUnknown},
		{1, header.ECT0, api.MarksUnknown},
		{1, header.ECT0, api.MarksUnknown},
		{1, header.CE, api.MarksKept},
		{1, header.ECT0, api.MarksKept},
		{1, header.ECT0, api.MarksKept},
		{0, header.ECT0, api.MarksKept},
		{1, header.ECT0, api.MarksRemoved},
		{1, header.NotECT, api.MarksRemoved},
		{1, header.CE, api.MarksKept},
	} {
		e.marks.expected.Add(int64(step.sent))
		e.marks.answered(step.ecn)
		if got := e.Marks(); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	e.ForgetMarks()
	if e.Marks() != api.MarksUnknown {
		t.Error("it remembers the marks of another path")
	}
}
