package metrics

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sixfour/encap/drop"
)

const dist = "../../cmd/sixfourd/dist/"

var (
	metricUse = regexp.MustCompile(`\b((?:sixfour|go|process)_[a-z_]+|up)\b(?:\{([^}]*)\})?`)
	matcher   = regexp.MustCompile(`([a-z_]+) *(=~|!~|!=|=) *"([^"]*)"`)
	grouping  = regexp.MustCompile(`\bby *\(([^)]*)\)`)
	legend    = regexp.MustCompile(`\{\{ *(?:\$labels\.)?([a-z_]+) *\}\}`)
)

// vocabulary holds the metrics and labels that expressions may use.
type vocabulary struct {
	labels map[string][]string // of each metric
	values map[string][]string // of the labels whose values are all known
	used   map[string]bool     // metrics that were used
}

func newVocabulary(t *testing.T) *vocabulary {
	v := &vocabulary{labels: map[string][]string{"up": nil}, used: make(map[string]bool)}
	for name, f := range exposed(t, busy()) {
		v.labels[name] = nil
		for _, l := range f.GetMetric()[0].GetLabel() {
			v.labels[name] = append(v.labels[name], l.GetName())
		}
	}
	v.values = map[string][]string{labelDirection: {"in", "out"}, labelResult: {"success", "failure"}}
	for r := drop.None + 1; r < drop.Count; r++ {
		v.values[labelReason] = append(v.values[labelReason], r.String())
	}
	for _, s := range states {
		v.values[labelState] = append(v.values[labelState], string(s))
	}
	return v
}

// target are the labels that Prometheus adds to every metric.
var target = []string{"instance", "job"}

// check checks an expression, and the texts that show its labels, against the exposed
// metrics.
func (v *vocabulary) check(t *testing.T, where, expr string, texts ...string) {
	t.Helper()
	has := slices.Clone(target)
	uses := metricUse.FindAllStringSubmatch(grouping.ReplaceAllString(expr, ""), -1)
	if len(uses) == 0 {
		t.Errorf("%s: no metric in %q", where, expr)
	}
	for _, use := range uses {
		name, matchers := use[1], use[2]
		labels, ok := v.labels[name]
		if !ok {
			t.Errorf("%s: there is no metric %s", where, name)
		}
		v.used[name] = true
		has = append(has, labels...)
		for _, m := range matcher.FindAllStringSubmatch(matchers, -1) {
			if !slices.Contains(labels, m[1]) && !slices.Contains(target, m[1]) {
				t.Errorf("%s: %s has no label %s", where, name, m[1])
			}
			for value := range strings.SplitSeq(m[3], "|") {
				if known := v.values[m[1]]; known != nil && !slices.Contains(known, value) {
					t.Errorf("%s: %s is never %q", where, m[1], value)
				}
			}
		}
	}
	shown := slices.Clone(texts)
	if by := grouping.FindAllStringSubmatch(expr, -1); by != nil {
		grouped := strings.FieldsFunc(by[0][1], func(r rune) bool { return r == ',' || r == ' ' })
		for _, l := range grouped {
			if !slices.Contains(has, l) {
				t.Errorf("%s: there is no label %s to group by", where, l)
			}
		}
		has = grouped
	}
	for _, text := range shown {
		for _, m := range legend.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(has, m[1]) {
				t.Errorf("%s: %q has no label %s", where, expr, m[1])
			}
		}
	}
}

func TestAlerts(t *testing.T) {
	b, err := os.ReadFile(dist + "sixfour-alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil {
		t.Fatal(err)
	}
	v := newVocabulary(t)
	seen := make(map[string]bool)
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || seen[r.Alert] || r.Annotations["summary"] == "" || !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) {
				t.Errorf("rule %q has no name of its own, no summary or no severity", r.Alert)
			}
			seen[r.Alert] = true
			v.check(t, r.Alert, r.Expr, slices.Collect(maps.Values(r.Annotations))...)
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d rules", len(seen))
	}
}

// panel is the part of a dashboard's panel that is checked against the metrics.
type panel struct {
	ID      int
	Title   string
	Type    string
	GridPos struct{ X, Y, W, H int }
	Targets []struct{ Expr, LegendFormat string }
}

func TestDashboard(t *testing.T) {
	b, err := os.ReadFile(dist + "sixfour-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Title      string
		Panels     []panel
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	v := newVocabulary(t)
	variables := map[string]bool{"__rate_interval": true, "__all": true}
	for _, l := range file.Templating.List {
		variables[l.Name] = true
		if l.Type == "query" {
			v.check(t, "variable "+l.Name, l.Definition)
		}
	}
	ids := make(map[int]bool)
	for _, p := range file.Panels {
		if ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %s has the number or the place of another", p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			v.check(t, p.Title, target.Expr, target.LegendFormat)
		}
	}
	for _, m := range regexp.MustCompile(`\$\{?([a-z_]+)`).FindAllStringSubmatch(string(b), -1) {
		if !variables[m[1]] {
			t.Errorf("there is no variable %s", m[1])
		}
	}
	for _, f := range families {
		if !v.used[f.name] && f != reloadedAt && f != reloadedOK && f != up { // up is a panel's variable at least
			t.Errorf("the dashboard does not show %s", f.name)
		}
	}
}
