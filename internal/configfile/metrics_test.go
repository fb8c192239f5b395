package configfile

import "testing"

func TestMetrics(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "",
		"[metrics]\n":                            "127.0.0.1:9640",
		"[metrics]\nlisten = '127.0.0.1:9641'\n": "127.0.0.1:9641",
		"[metrics]\nlisten = '[::]:9640'\n":      "[::]:9640",
		"[metrics]\nlisten = '[fe80::1%e0]:1'\n": "[fe80::1%e0]:1",
		"[metrics]\nlisten = ':65535'\n":         ":65535",
		"[metrics]\nlisten = 'localhost:9640'\n": "localhost:9640",
	} {
		c, err := Parse("f", []byte(text+single))
		if err != nil || c.Metrics.Listen != want {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
	const must = `it must be an address and a port, such as "127.0.0.1:9640" or "[::]:9640"`
	checkProblems(t, []problemRow{
		{"metrics = 1\n" + single, "1:11: metrics is an integer: it must be a table, which begins with [metrics]"},
		{"[metrics]\nlisten = 9640\n" + single, "2:10: listen is an integer: it must be a string, an address and a port, such as \"127.0.0.1:9640\" or \"[::]:9640\""},
		{"[metrics]\nlisten = ''\n" + single, `2:10: listen is "": ` + must},
		{"[metrics]\nlisten = '127.0.0.1'\n" + single, `2:10: listen is "127.0.0.1": ` + must},
		{"[metrics]\nlisten = '::1:9640'\n" + single, `2:10: listen is "::1:9640": ` + must},
		{"[metrics]\nlisten = '300.1.1.1:9640'\n" + single, `2:10: listen is "300.1.1.1:9640": ` + must},
		{"[metrics]\nlisten = '/run/metrics.sock'\n" + single, `2:10: listen is "/run/metrics.sock": ` + must},
		{"[metrics]\nlisten = '127.0.0.1:0'\n" + single, `2:10: listen has the port "0": it must be a number from 1 to 65535`},
		{"[metrics]\nlisten = '127.0.0.1:http'\n" + single, `2:10: listen has the port "http": it must be a number from 1 to 65535`},
		{"[metrics]\nlisten = '127.0.0.1:65536'\n" + single, `2:10: listen has the port "65536": it must be a number from 1 to 65535`},
		{"[metrics]\nlitsen = '127.0.0.1:65536'\n" + single, `2:1: unknown key "litsen" in [metrics]: did you mean "listen"?`},
	})
}
