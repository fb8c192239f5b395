package text

import "testing"

func TestCut(t *testing.T) {
	for _, c := range []struct {
		s    string
		most int
		want string
	}{
		{"", 3, ""}, {"abc", 3, "abc"}, {"abcd", 3, "abc…"}, {"aü", 3, "aü"}, {"abü", 3, "ab…"}, {"ü", 0, "…"},
	} {
		if got := Cut(c.s, c.most); got != c.want {
			t.Errorf("%q, %d: %q, want %q", c.s, c.most, got, c.want)
		}
	}
}
