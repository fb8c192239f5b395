package importing

import (
	"regexp"
	"sixfour/internal/importing/host"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

var networkOfNetplan = regexp.MustCompile(`(?m)^["']?network["']?[ \t]*:`)

func isNetplan(data []byte) bool { return networkOfNetplan.Match(data) }

// entry is a key of a YAML mapping with its value.
type entry struct {
	key   string
	line  int
	value *yaml.Node
}

// entries returns the entries of a mapping; none of another node.
func entries(n *yaml.Node) (all []entry) {
	n = target(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		all = append(all, entry{n.Content[i].Value, n.Content[i].Line, target(n.Content[i+1])})
	}
	return all
}

// target returns the node that an alias stands for.
func target(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// items returns the items of a sequence, or a single node.
func items(n *yaml.Node) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return []*yaml.Node{n}
	}
	all := slices.Clone(n.Content)
	for i := range all {
		all[i] = target(all[i])
	}
	return all
}

// readNetplan reads the tunnels of a netplan file.
func readNetplan(r *reader, f File) error {
	var document yaml.Node
	if err := yaml.Unmarshal(f.Data, &document); err != nil {
		return err
	}
	if len(document.Content) == 0 {
		return nil
	}
	for _, top := range entries(document.Content[0]) {
		if top.key != "network" {
			r.Skip(top.line, reasonOther)
			continue
		}
		for _, e := range entries(top.value) {
			switch e.key {
			case "version", "renderer":
			case "tunnels":
				for _, t := range entries(e.value) {
					r.readNetplanTunnel(t)
				}
			default:
				r.Skip(e.line, "interfaces that are no tunnels: keep them")
			}
		}
	}
	return nil
}

// parametersOfNetplan are the keys of tunnels with the parameters of ip tunnel.
var parametersOfNetplan = map[string]string{"local": "local", "remote": "remote", "ttl": "ttl"}

func (r *reader) readNetplanTunnel(t entry) {
	var mode string
	args := []string{}
	for _, e := range entries(t.value) {
		switch {
		case e.key == "mode":
			mode = e.value.Value
		case parametersOfNetplan[e.key] != "":
			args = append(args, parametersOfNetplan[e.key], e.value.Value)
		case e.key == "key" || e.key == "keys":
			args = append(args, keysOfNetplan(e.value)...)
		}
	}
	var l *host.Link
	if _, ok := host.Kinds[mode]; ok {
		l = r.Add(t.line, append([]string{"tunnel", "add", "name", t.key, "mode", mode}, args...)...)
	} else {
		l = r.Add(t.line, "link", "add", "name", t.key, "type", mode)
	}
	if l == nil {
		return
	}
	for _, e := range entries(t.value) {
		switch {
		case e.key == "mode" || e.key == "key" || e.key == "keys" || parametersOfNetplan[e.key] != "" || !l.Supported():
		case e.key == "addresses":
			for _, a := range items(e.value) {
				if inner := entries(a); len(inner) > 0 { // an address with options
					a = &yaml.Node{Value: inner[0].key, Line: inner[0].line}
				}
				r.ReadIP([]string{"addr", "add", a.Value, "dev", l.Name}, a.Line)
			}
		case e.key == "gateway4" || e.key == "gateway6":
			r.ReadIP([]string{"route", "add", "default", "via", e.value.Value, "dev", l.Name}, e.line)
		case e.key == "mtu":
			r.ReadIP([]string{"link", "set", l.Name, "mtu", e.value.Value}, e.line)
		case e.key == "routes":
			for _, route := range items(e.value) {
				r.routeOfNetplan(l, route)
			}
		default:
			r.Skip(e.line, "there is no such setting here")
		}
	}
}

// keysOfNetplan returns the keys of GRE: one for both directions, or one for each.
func keysOfNetplan(n *yaml.Node) (args []string) {
	if n.Kind == yaml.ScalarNode {
		return []string{"key", n.Value}
	}
	for _, e := range entries(n) {
		switch e.key {
		case "input":
			args = append(args, "ikey", e.value.Value)
		case "output":
			args = append(args, "okey", e.value.Value)
		}
	}
	return args
}

func (r *reader) routeOfNetplan(l *host.Link, n *yaml.Node) {
	args := []string{"route", "add"}
	var to, via string
	for _, e := range entries(n) {
		switch e.key {
		case "to":
			to = e.value.Value
		case "via":
			via = e.value.Value
			args = append(args, "via", via)
		case "metric", "table", "mtu":
			args = append(args, e.key, e.value.Value)
		case "on-link", "scope":
		default:
			r.Skip(e.line, "there is no such setting here")
		}
	}
	if strings.Contains(via, ":") {
		args = append([]string{"-6"}, args...)
	}
	r.ReadIP(append(args, "to", to, "dev", l.Name), n.Line)
}
