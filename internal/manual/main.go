// Manual writes the manual pages of both programs and of the configuration, and
// sixfourctl's completions for shells, in directories as below /usr/share:
//
//	go run ./internal/manual DIR
//
// With -reference it writes the page docs/reference.md instead:
//
//	go run ./internal/manual -reference FILE
//
// All of this is generated from the programs' own tables and help texts.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"sixfour/internal/usage"
)

func main() {
	reference := flag.String("reference", "", "write docs/reference.md to `FILE`")
	flag.Usage = func() { fmt.Fprintln(os.Stderr, "usage: manual DIR | -reference FILE") }
	flag.Parse()
	var err error
	switch {
	case *reference != "" && flag.NArg() == 0:
		err = os.WriteFile(*reference, referencePage(), 0o644)
	case *reference == "" && flag.NArg() == 1:
		err = write(flag.Arg(0))
	default:
		flag.Usage()
		os.Exit(usage.ExitMisuse)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "manual: %v\n", err)
		os.Exit(usage.ExitFailure)
	}
}

// write writes every file below a directory.
func write(dir string) error {
	all, err := files()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for name, content := range all {
		if err := replace(root, name, content); err != nil {
			return err
		}
	}
	return nil
}

// replace makes a file anew, below dir whatever links are there: root installs manuals,
// and other users may write to /usr/local/share on some systems.
func replace(root *os.Root, name string, content []byte) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// files are all files, by their paths below the directory.
func files() (map[string][]byte, error) {
	all := map[string][]byte{
		"man/man8/sixfourd.8":     daemonPage(),
		"man/man5/sixfour.toml.5": configPage(),
	}
	commandPages(all)
	return all, completions(all)
}
