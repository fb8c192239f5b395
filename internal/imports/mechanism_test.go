package imports

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mechanismFiles are the files outside the packages of the mechanisms that may name the
// type of a mechanism: the row that reads its keys, and what computes addresses for users.
var mechanismFiles = map[string][]string{
	"internal/config/mechanism/mechanism.go": {"PMT", "SixOverFour", "SixToFour", "V4Compat"}, // the table itself
	"internal/config/mechanism/6to4.go":      {"PMT", "SixToFour"},
	"internal/config/mechanism/6rd.go":       {"SixRD"},
	"internal/config/mechanism/6over4.go":    {"SixOverFour"},
	"internal/config/mechanism/isatap.go":    {"ISATAP"},
	"internal/config/mechanism/broker.go":    {"Clients"},
	"internal/address/address.go":            {"SixRD"},
}

// Code that works with every mechanism asks for what it needs through an interface of
// package resolve, and never for the type of a mechanism.
func TestMechanismsAreNotNamed(t *testing.T) {
	files := sources(t)
	types := make(map[string]bool)
	for path, f := range files {
		if strings.HasPrefix(path, "encap/resolve/") {
			for _, d := range f.Decls {
				if name, ok := receiver(d, "Resolver"); ok {
					types[name] = true
				}
			}
		}
	}
	if len(types) < 6 {
		t.Fatalf("only %d types with a method Resolver found", len(types))
	}
	for path, f := range files {
		if strings.HasPrefix(path, "encap/resolve/") {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok || !types[s.Sel.Name] {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "resolve" && !slices.Contains(mechanismFiles[path], s.Sel.Name) {
				t.Errorf("%s names resolve.%s: ask for what it can do through an interface of package resolve", path, s.Sel.Name)
			}
			return true
		})
	}
}

// receiver returns the type whose method with a name a declaration is.
func receiver(d ast.Decl, method string) (string, bool) {
	f, ok := d.(*ast.FuncDecl)
	if !ok || f.Recv == nil || f.Name.Name != method {
		return "", false
	}
	of := f.Recv.List[0].Type
	if p, ok := of.(*ast.StarExpr); ok {
		of = p.X
	}
	id, ok := of.(*ast.Ident)
	return id.Name, ok
}

// sources returns the syntax of the Go files of the module that are not tests, by their
// paths in it.
func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	files, set := make(map[string]*ast.File), token.NewFileSet()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != root) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		files[filepath.ToSlash(rel)] = f
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
