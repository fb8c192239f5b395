package imports

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// The comment of each package begins with "Package" and its name, as godoc expects. That
// of a program describes the program instead.
func TestPackageComments(t *testing.T) {
	const root = "../.."
	fset, begins := token.NewFileSet(), map[string]bool{} // by directory
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil || f.Name.Name == "main" || ast.IsGenerated(f) {
			return err
		}
		dir := filepath.Dir(path)
		begins[dir] = begins[dir]
		if f.Doc == nil {
			return nil
		}
		begins[dir] = true
		if want := "Package " + f.Name.Name + " "; !strings.HasPrefix(f.Doc.Text(), want) {
			t.Errorf("%s: the comment of the package does not begin with %q", path, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, ok := range begins {
		if !ok {
			t.Errorf("%s: the package has no comment", dir)
		}
	}
}
