package importing

import (
	"path"
	"sixfour/internal/importing/host"
	"slices"

	"mvdan.cc/sh/v3/syntax"
)

// binary reads A && B, A || B and A | B.
func (s *script) binary(c *syntax.BinaryCmd) {
	switch c.Op {
	case syntax.AndStmt:
		if known, yes := s.test(c.X); known && !yes {
			s.skip(c.Y, "its condition does not hold")
			return
		} else if !known {
			s.statement(c.X)
		}
		s.statement(c.Y)
	case syntax.OrStmt:
		if known, yes := s.test(c.X); known && yes {
			s.skip(c.Y, "its condition does not hold")
			return
		} else if known {
			s.statement(c.Y)
			return
		}
		if s.shows(c.X) { // such as ip link show six0 || ip link add six0 …
			s.statement(c.Y)
			return
		}
		s.statement(c.X) // and not what is done if that fails
	default:
		s.skip(c, "commands with a pipe are not read")
	}
}

// shows reports whether a command only asks for something.
func (s *script) shows(stmt *syntax.Stmt) bool {
	call, ok := stmt.Cmd.(*syntax.CallExpr)
	if !ok {
		_, ok = stmt.Cmd.(*syntax.TestClause)
		return ok
	}
	fields, _ := s.fields(call.Args)
	if len(fields) == 0 {
		return false
	}
	switch path.Base(fields[0]) {
	case "ip":
		return slices.ContainsFunc(fields[1:], func(f string) bool {
			return host.IsWord(f, "show", 2) || host.IsWord(f, "list", 2) || f == "ls" || f == "get"
		})
	case "[", "test", "lsmod", "grep", "command", "which":
		return true
	}
	return false
}

// condition reads the branch of an if whose condition holds, or the first one if that is
// not known.
func (s *script) condition(c *syntax.IfClause) {
	for ; c != nil; c = c.Else {
		known, yes := true, true
		if len(c.Cond) > 0 { // not of else
			known, yes = false, false
			if len(c.Cond) == 1 {
				known, yes = s.test(c.Cond[0])
			}
		}
		if known && !yes {
			for _, stmt := range c.Then {
				s.skip(stmt, "its condition does not hold")
			}
			continue
		}
		before := s.r.Commands()
		s.statements(c.Then)
		if !known && s.r.Commands() > before {
			s.r.Skip(s.line(c), "whether this condition holds is not known: the commands after it are read as if it did")
		}
		for c = c.Else; c != nil; c = c.Else {
			for _, stmt := range c.Then {
				s.skip(stmt, reasonBranch)
			}
		}
		return
	}
}

// test returns the result of a condition with known values.
func (s *script) test(stmt *syntax.Stmt) (known, yes bool) {
	defer func() {
		if known && stmt.Negated {
			yes = !yes
		}
	}()
	call, ok := stmt.Cmd.(*syntax.CallExpr)
	if !ok || len(call.Args) == 0 {
		return false, false
	}
	switch call.Args[0].Lit() {
	case "true", ":":
		return true, true
	case "false":
		return true, false
	case "[", "test":
	default:
		return false, false
	}
	fields, reason := s.fields(call.Args[1:])
	if reason != "" {
		return false, false
	}
	if n := len(fields); n > 0 && fields[n-1] == "]" {
		fields = fields[:n-1]
	}
	switch {
	case len(fields) == 3 && (fields[1] == "=" || fields[1] == "=="):
		return true, fields[0] == fields[2]
	case len(fields) == 3 && fields[1] == "!=":
		return true, fields[0] != fields[2]
	case len(fields) == 2 && fields[0] == "-n":
		return true, fields[1] != ""
	case len(fields) == 2 && fields[0] == "-z":
		return true, fields[1] == ""
	}
	return false, false
}

// starting are the arguments with which scripts are called to make their tunnels.
var starting = []string{"start", "up", "add", "create", "on", "ifup", "post-up", "enable"}

// cases reads the branch of a case that its word chooses, or else the one that makes
// tunnels.
func (s *script) cases(c *syntax.CaseClause) {
	word, reason := s.fields([]*syntax.Word{c.Word})
	taken := false
	for _, item := range c.Items {
		wanted := starting
		if reason == "" {
			wanted = word
		}
		matches := slices.ContainsFunc(item.Patterns, func(p *syntax.Word) bool {
			return slices.Contains(wanted, p.Lit()) || reason == "" && p.Lit() == "*"
		})
		if matches && !taken {
			taken = true
			s.statements(item.Stmts)
			continue
		}
		for _, stmt := range item.Stmts {
			s.skip(stmt, reasonBranch)
		}
	}
}

// loop reads a loop over words that are known.
func (s *script) loop(c *syntax.ForClause) {
	words, ok := c.Loop.(*syntax.WordIter)
	if !ok || c.Select {
		s.skip(c, "how often a loop runs is not known before it runs: write its commands out")
		return
	}
	items, reason := s.fields(words.Items)
	if reason != "" {
		s.skip(c, "a loop whose words are not known: "+reason)
		return
	}
	for _, item := range items {
		if s.commands++; s.commands > maxCommands {
			return
		}
		s.set(words.Name.Value, item)
		s.statements(c.Do)
	}
}
