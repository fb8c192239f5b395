package value

import (
	"strings"
	"testing"
)

func TestIsDNSName(t *testing.T) {
	label := strings.Repeat("a", 63)
	for name, want := range map[string]bool{
		"a": true, "b.example.com": true, "b.example.com.": true, "_x.example": true, "x-1.example": true, "1.2.3.4a": true, "1a": true, label + ".example": true,
		strings.Repeat(label+".", 3) + strings.Repeat("a", 61): true,

		"": false, ".": false, "a..b": false, ".a": false, "a..": false, "-a": false, "a-": false, "a-.b": false, "a.b-": false, "a.-b": false, "a b": false, "é.example": false, "192.0.2.1": false, "a.1": false, "1": false,
		"a/b": false, "a:b": false, label + "a": false, strings.Repeat(label+".", 3) + strings.Repeat("a", 62): false,
	} {
		if got := IsDNSName(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}
