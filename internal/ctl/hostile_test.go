package ctl

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"sixfour/internal/api"
)

// evil is a text that affects a terminal: it clears the screen, ends the line, sets the title,
// hides text and writes from right to left. It also has 8-bit control characters (C1) and
// bytes that are not UTF-8.
const evil = "e\x1b[2J\x1b]0;title\a\x07\x08\x7f\r\u009b31m\u0085\u202e\u2066\u200b\x9b2J\xff\xc2vil"

// hostileDaemon answers everything with evil texts: answers has, by path, a status code and
// the body. Strings in the JSON are not escaped more than necessary, as another program might
// write them.
func hostileDaemon(t *testing.T, answers map[string]string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	must(t, err)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := answers[r.URL.Path]
		switch {
		case r.URL.Path == "/v1/version":
			fmt.Fprint(w, `{"version":"1","api":1}`)
		case !ok:
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprintf(w, `{"error":%s}`, raw(evil+"\nsecond line"))
		default:
			fmt.Fprint(w, body)
		}
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-ended })
	return socket
}

// raw formats a text as JSON with only the required escapes (RFC 8259, section 7).
func raw(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c == '"' || c == '\\':
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteByte(c)
		}
	}
	return `"` + b.String() + `"`
}

// everywhere replaces each text in a JSON value by an evil one.
func everywhere(v any) string {
	switch v := v.(type) {
	case map[string]any:
		var fields []string
		for name, value := range v {
			fields = append(fields, raw(name)+":"+everywhere(value))
		}
		return "{" + strings.Join(fields, ",") + "}"
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, everywhere(item))
		}
		return "[" + strings.Join(items, ",") + "]"
	case string:
		if _, err := fmt.Sscanf(v, "%d-", new(int)); err == nil { // a time
			return raw(v)
		}
		return raw(evil)
	}
	b, _ := json.Marshal(v)
	return string(b)
}

// evilly returns a value of one of our types with evil texts.
func evilly(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	var all any
	must(t, json.Unmarshal(b, &all))
	return everywhere(all)
}

func evilAnswers(t *testing.T) map[string]string {
	t.Helper()
	f := start(t)
	st := f.Status()
	st.Tunnels[0].Repairs = map[string]uint64{evil: 1}
	st.Tunnels[0].AddressUpdate = &api.AddressUpdate{State: evil, Server: evil, Host: evil, Answer: evil, Error: evil}
	st.Tunnels[0].Neighbours = []api.Neighbour{{Address: evil, Outer: evil, State: evil, Age: 1}}
	st.Tunnels[0].Paths = []api.PathStatus{{Why: evil, State: api.State{Encap: evil, Detail: evil, Local: evil, Remote: evil}}}
	st.Tunnels[0].In.Drops = map[string]uint64{evil: 1}
	st.Stray.Drops = map[string]uint64{evil: 1}
	st.Tunnels[1].Peers[0].Out.Drops = map[string]uint64{evil: 2}
	plan, err := f.Reload(t.Context())
	must(t, err)
	event := `{"at":"2026-03-01T12:00:00Z","tunnel":` + raw(evil) + `,"peer":` + raw(evil) + `,"kind":` + raw(evil) + `,"text":` + raw(evil) + "}\n"
	failed := `{"error":` + raw(evil) + "}\n"
	return map[string]string{
		"/v1/status": evilly(t, st),
		"/v1/reload": evilly(t, plan),
		"/v1/events": event + failed,
		"/v1/ping":   `{"seq":1,"lost":true,"detail":` + raw(evil) + "}\n" + failed,
		"/v1/mtu":    `{"size":1280,"answered":true}` + "\n" + `{"path_mtu":1280,"mtu":1240,"by":` + raw(evil) + "}\n",
	}
}

// ours are the control sequences that sixfourctl itself writes to a terminal.
var ours = regexp.MustCompile("\x1b\\[(0|1|2|31|32|33)m|\x1b\\[\\?1049[hl]|\x1b\\[\\?25[hl]|\x1b\\[[HKJ]")

// clean reports whether an output contains nothing that affects a terminal.
func clean(s string) bool {
	for _, r := range s {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return false
		}
	}
	return utf8.ValidString(s)
}

// Whatever a daemon answers, none of it affects the terminal, and JSON remains JSON.
func TestHostileDaemon(t *testing.T) {
	good, bad := hostileDaemon(t, evilAnswers(t)), hostileDaemon(t, map[string]string{})
	for _, socket := range []string{good, bad} {
		for _, args := range []string{"status", "status x", "status x/y", "paths", "watch", "reload", "ping x -c 1", "mtu x", "capture x -w " + filepath.Join(t.TempDir(), "f"), "doctor --config /no/such/file", "doctor",
			"status --json", "paths --json", "reload --json", "watch --json", "ping x -c 1 --json", "mtu x --json", "doctor --json --config /no/such/file", "doctor --json"} {
			said, _ := program(t, socket, false, strings.Fields(args)...)
			if !clean(said) {
				t.Errorf("%s: %q", args, said)
			}
			if !strings.Contains(args, "--json") {
				continue
			}
			for d := json.NewDecoder(strings.NewReader(cutErrors(said))); ; {
				var v any
				if err := d.Decode(&v); err == io.EOF {
					break
				} else if err != nil {
					t.Errorf("%s: %v: %q", args, err, said)
					break
				}
			}
		}
	}
}

// cutErrors removes what was written to standard error.
func cutErrors(s string) string {
	return regexp.MustCompile(`(?ms)^sixfourctl: .*`).ReplaceAllString(s, "")
}

// The same on a terminal, with colours.
func TestHostileDaemonOnATerminal(t *testing.T) {
	socket := hostileDaemon(t, evilAnswers(t))
	for _, args := range [][]string{{"status"}, {"paths"}, {"reload"}, {"watch"}, {"ping", "x", "-c", "1"}} {
		p := openPTY(t)
		cmd := p.run(t, &fake{socket: socket}, "", args...)
		_ = cmd.Wait() // watch ends with the error that ends the events
		p.see(t, "\uFFFD")
		seen := regexp.MustCompile("\r+\n").ReplaceAllString(ours.ReplaceAllString(p.seen.String(), ""), "\n")
		if !clean(seen) {
			t.Errorf("%v: %q", args, seen)
		}
	}
}

// Names that would change the command line are not completed.
func TestHostileCompletion(t *testing.T) {
	socket := hostileDaemon(t, evilAnswers(t))
	out, _, err := ctl(context.Background(), "__complete status --socket "+socket+" ")
	must(t, err)
	if !clean(out.String()) {
		t.Errorf("%q", out)
	}
}

// A capture file from elsewhere is treated in the same way.
func TestHostileCaptureFile(t *testing.T) {
	f := start(t)
	cmd, out, _ := running(t, "capture", "six0", "-c", "1", "--socket", f.socket)
	b, err := io.ReadAll(bufio.NewReader(out))
	must(t, err)
	must(t, cmd.Wait())
	changed := strings.ReplaceAll(string(b), "sixfourd", "six\x1b[2J\x7f")
	for _, args := range []string{"decode", "decode --json"} {
		said, errs := new(buffer), new(buffer)
		c := Root()
		c.SetIn(strings.NewReader(changed))
		c.SetOut(said)
		c.SetErr(errs)
		c.SetArgs(strings.Fields(args))
		_ = c.ExecuteContext(t.Context()) // the file may not be a capture any more
		if !clean(said.String()) {
			t.Errorf("%s: %q", args, said)
		}
	}
}

// Any status, plan or event that a daemon answers can be shown.
func FuzzShow(f *testing.F) {
	for _, v := range []any{api.Status{Tunnels: []api.TunnelStatus{one(), hub(3)}}, api.Plan{Added: []string{"a"}}, api.Event{Text: evil}} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, 80, 24)
	}
	f.Fuzz(func(t *testing.T, answer []byte, columns, rows int) {
		columns, rows = max(1, columns%300), max(1, rows%300)
		var out strings.Builder
		var s api.Status
		if json.Unmarshal(answer, &s) == nil {
			must(t, writeLines(&out, true, report(s, began)))
			for i := range s.Tunnels {
				must(t, writeLines(&out, true, pathsReport(pathsOf(s.Tunnels[i].Name, &s.Tunnels[i].PeerStatus), began)))
			}
			v := view{now: began, status: s, statusAt: began, before: s, beforeAt: began.Add(-time.Second)}
			for _, line := range v.frame(columns, rows) {
				out.WriteString(render(line, columns, true))
			}
		}
		var p api.Plan
		if json.Unmarshal(answer, &p) == nil {
			must(t, writeLines(&out, true, planLines(p)))
		}
		var ev api.Event
		if json.Unmarshal(answer, &ev) == nil {
			out.WriteString(eventLine(ev, time.RFC3339))
		}
		if shown := ours.ReplaceAllString(out.String(), ""); !clean(shown) {
			t.Errorf("%q", shown)
		}
	})
}
