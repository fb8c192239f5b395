package importing

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// ReadFiles reads files, and those of directories; "-" is standard input. Without a path it
// returns the tunnels of the running kernel.
func ReadFiles(stdin io.Reader, paths []string) (files []File, err error) {
	if len(paths) == 0 {
		f, err := Kernel()
		return []File{f}, err
	}
	for _, path := range paths {
		if path == "-" {
			if files, err = appendFile(files, path, stdin); err != nil {
				return nil, err
			}
			continue
		}
		inside := []string{path}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			if inside, err = filesOf(path); err != nil {
				return nil, err
			}
		}
		for _, name := range inside {
			f, err := os.Open(name)
			if err != nil {
				return nil, err
			}
			files, err = appendFile(files, name, f)
			f.Close()
			if err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

func appendFile(files []File, name string, from io.Reader) ([]File, error) {
	data, err := io.ReadAll(io.LimitReader(from, maxSize+1)) // Import refuses what is larger
	return append(files, File{name, data}), err
}

// filesOf returns the paths of the files of a directory without hidden ones.
func filesOf(dir string) (paths []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%s has no files", dir)
	}
	return paths, nil
}
