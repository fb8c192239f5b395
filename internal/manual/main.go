// Manual writes the manual pages of both programs and of the configuration, and
// sixfourctl's completions for shells, as they lie below /usr/share:
//
//	go run ./internal/manual DIR
//
// All of it is made from what the programs themselves say.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: manual DIR")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "manual: %v\n", err)
		os.Exit(1)
	}
}

// write writes every file below a directory.
func write(dir string) error {
	all, err := files()
	if err != nil {
		return err
	}
	for name, content := range all {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil { //nolint:gosec // a manual is for everybody
			return err
		}
	}
	return nil
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
