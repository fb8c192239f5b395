package importing

import (
	"bytes"
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

// Limits of what is read of a script, which could otherwise need any amount of time and
// memory.
const (
	maxCommands   = 20_000
	maxCallDepth  = 20
	maxValue      = 4 << 10 // bytes of a variable
	maxExpansions = 200     // of variables in a command
)

// Reasons for parts of scripts.
const (
	reasonHost   = "it is a setting of the host: keep it"
	reasonModule = "sixfourd needs no module of the kernel but tun"
	reasonFilter = "it is a rule of the packet filter: keep it, if it allows what the tunnel needs"
	reasonOther  = "it is about no tunnel"
	reasonBranch = "the other branch is read"
)

// script is a shell script that is being read. Its commands are not run: those of tunnels
// are taken from it, with the values that its variables have in the text.
type script struct {
	r         *reader
	variables map[string]expand.Variable
	unknown   map[string]string // variables without a value, with the reason
	functions map[string]*syntax.FuncDecl
	called    map[string]bool
	before    int // lines before the first one
	commands  int
	depth     int
}

func newScript(r *reader) *script {
	s := &script{r: r, variables: map[string]expand.Variable{}, unknown: map[string]string{}, functions: map[string]*syntax.FuncDecl{}, called: map[string]bool{}}
	for name, value := range r.options.Set {
		s.set(name, value)
	}
	return s
}

// readCommands reads commands that stand in a line of another format, with the values of
// some variables.
func (r *reader) readCommands(text string, line int, variables map[string]string) {
	s := newScript(r)
	for name, value := range variables {
		s.set(name, value)
	}
	s.before = line - 1
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	if err != nil {
		r.Skip(line, "the shell would not understand this")
		return
	}
	s.statements(file.Stmts)
}

// line returns the line of the input at which a node begins.
func (s *script) line(n syntax.Node) int { return s.before + int(n.Pos().Line()) }

// readScript reads a shell script, or lines that could stand in one.
func readScript(r *reader, f File) error {
	s := newScript(r)
	text := bytes.ReplaceAll(prompts(f.Data), []byte("\r\n"), []byte("\n"))
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(bytes.NewReader(text), "")
	if err != nil {
		var wrong syntax.ParseError
		if !errors.As(err, &wrong) {
			return err
		}
		r.Skip(int(wrong.Pos.Line()), "the shell would not understand this: "+wrong.Text)
		s.lineByLine(text)
		return nil
	}
	s.declare(file.Stmts)
	s.statements(file.Stmts)
	for name, f := range s.functions {
		if !s.called[name] {
			r.Skip(s.line(f), "this function is not called, so that its commands are not taken over")
		}
	}
	return nil
}

// prompts removes the prompt of a shell before commands that were copied with it.
func prompts(text []byte) []byte {
	lines := bytes.Split(text, []byte("\n"))
	for i, line := range lines {
		trimmed := bytes.TrimLeft(line, " \t")
		for _, prompt := range []string{"# ip ", "$ ip ", "$ sudo "} {
			if bytes.HasPrefix(trimmed, []byte(prompt)) && prompt[0] == '$' {
				lines[i] = trimmed[2:]
			}
		}
	}
	return bytes.Join(lines, []byte("\n"))
}

// lineByLine reads the lines of a text that is no script as a whole.
func (s *script) lineByLine(text []byte) {
	for i, line := range strings.Split(string(text), "\n") {
		file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(strings.Repeat("\n", min(i, 1))+line), "")
		if err != nil || len(file.Stmts) == 0 {
			if trimmed := strings.TrimSpace(line); trimmed != "" && trimmed[0] != '#' {
				s.r.Skip(i+1, "it cannot be read by itself")
			}
			continue
		}
		for _, stmt := range file.Stmts {
			if call, ok := stmt.Cmd.(*syntax.CallExpr); ok {
				s.call(call, stmt, i+1)
			} else {
				s.r.Skip(i+1, "it cannot be read by itself")
			}
		}
	}
}

// declare stores the functions of a script, which may be called before they stand.
func (s *script) declare(stmts []*syntax.Stmt) {
	for _, stmt := range stmts {
		if f, ok := stmt.Cmd.(*syntax.FuncDecl); ok && f.Name != nil {
			s.functions[f.Name.Value] = f
		}
	}
}

func (s *script) statements(stmts []*syntax.Stmt) {
	for _, stmt := range stmts {
		if s.commands > maxCommands {
			return
		}
		s.statement(stmt)
	}
}

// skip records each line of a node.
func (s *script) skip(n syntax.Node, reason string) {
	from, to := s.line(n), s.before+int(n.End().Line())
	for line := from; line <= min(to, from+maxLinesOfNode); line++ {
		if line > len(s.r.Lines()) || strings.TrimSpace(s.r.Lines()[line-1]) != "" {
			s.r.Skip(line, reason)
		}
	}
}

// maxLinesOfNode limits how many lines of a loop or branch are listed.
const maxLinesOfNode = 200

func (s *script) statement(stmt *syntax.Stmt) {
	switch c := stmt.Cmd.(type) {
	case nil:
	case *syntax.CallExpr:
		s.call(c, stmt, s.line(stmt))
	case *syntax.DeclClause:
		s.assign(c.Args)
	case *syntax.Block:
		s.statements(c.Stmts)
	case *syntax.Subshell:
		s.statements(c.Stmts)
	case *syntax.FuncDecl:
		if c.Name != nil {
			s.functions[c.Name.Value] = c
		}
	case *syntax.BinaryCmd:
		s.binary(c)
	case *syntax.IfClause:
		s.condition(c)
	case *syntax.CaseClause:
		s.cases(c)
	case *syntax.ForClause:
		s.loop(c)
	case *syntax.WhileClause:
		s.skip(stmt, "how often a loop runs is not known before it runs: write its commands out")
	case *syntax.TestClause, *syntax.ArithmCmd, *syntax.LetClause:
		s.skip(stmt, reasonOther)
	default:
		s.skip(stmt, "this command of the shell is not read")
	}
}

// call reads a simple command.
func (s *script) call(c *syntax.CallExpr, stmt *syntax.Stmt, line int) {
	if s.commands++; s.commands > maxCommands {
		s.r.Skip(line, "the script runs too many commands: the rest is not read")
		return
	}
	if len(c.Args) == 0 {
		s.assign(c.Assigns)
		return
	}
	fields, reason := s.fields(c.Args)
	if reason != "" {
		if name := path.Base(c.Args[0].Lit()); slices.Contains([]string{"echo", "printf", "log", "exit", "return", "sleep"}, name) {
			reason = reasonOther
		}
		s.r.Skip(line, reason)
		return
	}
	for len(fields) > 0 && (fields[0] == "sudo" || fields[0] == "command" || fields[0] == "exec" || fields[0] == "nohup" || fields[0] == "busybox" || strings.HasPrefix(fields[0], "-")) {
		fields = fields[1:]
	}
	if len(fields) == 0 {
		return
	}
	if f := s.functions[fields[0]]; f != nil {
		s.enter(f, fields[1:], line)
		return
	}
	if batch := heredoc(stmt); batch != nil && path.Base(fields[0]) == "ip" {
		s.batch(batch, line)
		return
	}
	s.r.readCommand(fields, line)
}

// heredoc returns the text that a command reads from a here document, if it has no
// variables.
func heredoc(stmt *syntax.Stmt) *syntax.Word {
	for _, r := range stmt.Redirs {
		if r.Hdoc != nil {
			return r.Hdoc
		}
	}
	return nil
}

// batch reads the commands of ip -batch from a here document.
func (s *script) batch(text *syntax.Word, line int) {
	expanded, err := expand.Document(s.config(), text)
	if err != nil {
		s.r.Skip(line, s.reason(err))
		return
	}
	for i, l := range strings.Split(expanded, "\n") {
		if fields := strings.Fields(l); len(fields) > 0 && !strings.HasPrefix(fields[0], "#") {
			s.r.ReadIP(fields, line+1+i)
		}
	}
}

// enter reads the body of a function with its arguments.
func (s *script) enter(f *syntax.FuncDecl, args []string, line int) {
	if s.depth >= maxCallDepth {
		s.r.Skip(line, "a function that calls itself is not read")
		return
	}
	s.called[f.Name.Value] = true
	before := map[string]expand.Variable{}
	for i := range 10 {
		name := strconv.Itoa(i)
		before[name] = s.variables[name]
		delete(s.variables, name)
		if i > 0 && i <= len(args) {
			s.set(name, args[i-1])
		}
	}
	for _, name := range []string{"@", "*", "#"} {
		before[name] = s.variables[name]
	}
	s.variables["@"] = expand.Variable{Set: true, Kind: expand.Indexed, List: args}
	s.variables["*"] = s.variables["@"]
	s.set("#", strconv.Itoa(len(args)))
	s.depth++
	s.statement(f.Body)
	s.depth--
	for name, v := range before {
		if s.variables[name] = v; !v.Set {
			delete(s.variables, name)
		}
	}
}

// readCommand reads a command of a script, or of a line of another format.
func (r *reader) readCommand(fields []string, line int) {
	switch name := path.Base(fields[0]); name {
	case "ip":
		r.ReadIP(fields[1:], line)
	case "ifconfig":
		r.ReadIfconfig(fields[1:], line)
	case "route":
		r.ReadRoute(fields[1:], line)
	case "modprobe", "insmod", "rmmod":
		r.Skip(line, reasonModule)
	case "sysctl":
		r.Skip(line, reasonHost)
	case "iptables", "ip6tables":
		reason := reasonFilter
		if slices.Contains(fields, "MASQUERADE") {
			reason = "keep it, or let sixfourd do it: [gateway] has masquerade (docs/gateway.md)"
		}
		r.Skip(line, reason)
	case "nft", "ufw", "firewall-cmd", "iptables-restore", "ip6tables-restore":
		r.Skip(line, reasonFilter)
	case "uci":
		r.readUCICommand(fields[1:], line)
	case "source", ".":
		r.Skip(line, "other files are not read: give them to this command, too")
	case "set", "shift", "local", "export", "true", ":", "exit", "return", "[", "test", "break", "continue", "trap":
	default:
		if strings.HasPrefix(fields[0], "network.") && strings.Contains(fields[0], "=") { // as uci show prints it
			r.readUCICommand([]string{"set", strings.Join(fields, " ")}, line)
			return
		}
		r.Skip(line, reasonOther)
	}
}
