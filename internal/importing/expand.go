package importing

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

// set gives a variable a value.
func (s *script) set(name, value string) {
	if len(value) > maxValue {
		s.forget(name, "the value of $"+name+" is too long")
		return
	}
	delete(s.unknown, name)
	s.variables[name] = expand.Variable{Set: true, Kind: expand.String, Str: value}
}

func (s *script) forget(name, reason string) {
	delete(s.variables, name)
	s.unknown[name] = reason
}

// Get implements expand.Environ.
func (s *script) Get(name string) expand.Variable { return s.variables[name] }

// Each implements expand.Environ.
func (s *script) Each(func(string, expand.Variable) bool) {}

// Set implements expand.WriteEnviron, for ${NAME:=VALUE}.
func (s *script) Set(name string, v expand.Variable) error {
	s.set(name, v.String())
	return nil
}

var errCommand = errors.New("the output of a command is not known before it runs")

func (s *script) config() *expand.Config {
	return &expand.Config{Env: s, NoUnset: true, CmdSubst: func(io.Writer, *syntax.CmdSubst) error { return errCommand }}
}

// fields expands words.
func (s *script) fields(words []*syntax.Word) (fields []string, reason string) {
	expansions, braces := 0, false
	for _, w := range words {
		syntax.Walk(w, func(n syntax.Node) bool {
			switch n := n.(type) {
			case *syntax.ParamExp:
				expansions++
			case *syntax.Lit:
				braces = braces || strings.Contains(n.Value, "{") && strings.Contains(n.Value, "..")
			}
			return true
		})
	}
	switch {
	case expansions > maxExpansions:
		return nil, "it has too many variables"
	case braces:
		return nil, "a range in braces cannot be read: write its words out"
	}
	fields, err := expand.Fields(s.config(), words...)
	if err != nil {
		return nil, s.reason(err)
	}
	return fields, ""
}

// reason explains why words cannot be expanded.
func (s *script) reason(err error) string {
	var unset expand.UnsetParameterError
	if errors.As(err, &unset) && unset.Node != nil && unset.Node.Param != nil {
		name := unset.Node.Param.Value
		if why := s.unknown[name]; why != "" {
			return fmt.Sprintf("$%s is not known here (%s): give it with --set %s=VALUE", name, why, name)
		}
		return fmt.Sprintf("$%s has no value in this input: give it with --set %s=VALUE", name, name)
	}
	if errors.Is(err, errCommand) {
		return errCommand.Error()
	}
	return "it cannot be read: " + err.Error()
}

// assign reads assignments of variables.
func (s *script) assign(all []*syntax.Assign) {
	for _, a := range all {
		if a.Name == nil {
			continue
		}
		name := a.Name.Value
		if _, given := s.r.options.Set[name]; given {
			continue
		}
		switch {
		case a.Array != nil || a.Index != nil:
			s.forget(name, "it is an array")
		case a.Value == nil:
			if !a.Naked {
				s.set(name, "")
			}
		default:
			s.assignValue(name, a)
		}
	}
}

func (s *script) assignValue(name string, a *syntax.Assign) {
	before := ""
	if a.Append {
		before = s.variables[name].Str
	}
	value, err := expand.Literal(s.config(), a.Value)
	switch {
	case errors.Is(err, errCommand):
		s.forget(name, fmt.Sprintf("it is the output of a command in line %d", s.line(a)))
	case err != nil:
		s.forget(name, s.reason(err))
	default:
		s.set(name, before+value)
	}
}
