// Package importing makes a configuration file from the tunnels of other programs: commands
// of iproute2 and the scripts that contain them, and configuration files. What the result
// does not have is listed, line by line, with the reason.
//
// A reader of each format fills a host with links, which are described as Linux describes
// them. The rest is common: links become tunnels, and the result is checked.
package importing

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// File is an input with the name that messages use.
type File struct {
	Name string
	Data []byte
}

// Options change how inputs are read.
type Options struct {
	Format string            // name of a format; "": recognized by the content
	Set    map[string]string // values of a script's variables
}

// Note says why lines of the input are not in the result, or only in part.
type Note struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"` // from 1; 0: none in particular
	Text   string `json:"text,omitempty"` // of the line
	Reason string `json:"reason"`
}

// Result is a configuration file, and what it does not have of the input.
type Result struct {
	Config  string   `json:"config"`
	Tunnels []string `json:"tunnels"` // names
	Notes   []Note   `json:"notes"`
}

// format is a format of inputs.
type format struct {
	name  string
	meant func([]byte) bool // whether an input seems to be in this format
	read  func(*host, File) error
}

// formats are all formats in the order in which they are tried. The last one accepts
// everything.
var formats = []format{
	{"uci", isUCI, readUCI},
	{"netplan", isNetplan, readNetplan},
	{"networkd", isNetworkd, readNetworkd},
	{"ifupdown", isIfupdown, readIfupdown},
	{"iproute2", func([]byte) bool { return true }, readScript},
}

// Formats returns the names of all formats.
func Formats() (names []string) {
	for _, f := range formats {
		names = append(names, f.name)
	}
	return names
}

// maxSize is the size of the largest input, in bytes.
const maxSize = 4 << 20

// Import reads inputs that belong together, such as the files of a directory. An error means
// that an input cannot be read at all.
func Import(files []File, o Options) (Result, error) {
	h := &host{links: map[string]*link{}, noted: map[Note]bool{}, options: o}
	for _, f := range files {
		if len(f.Data) > maxSize {
			return Result{}, fmt.Errorf("%s: larger than %d MiB, too large for a configuration", f.Name, maxSize>>20)
		}
		if bytes.IndexByte(f.Data, 0) >= 0 {
			return Result{}, fmt.Errorf("%s: not a text", f.Name)
		}
		h.begin(f)
		i := slices.IndexFunc(formats, func(known format) bool {
			return known.name == o.Format || o.Format == "" && known.meant(f.Data)
		})
		if i < 0 {
			return Result{}, fmt.Errorf("there is no format %q: choose %s", o.Format, strings.Join(Formats(), ", "))
		}
		if err := formats[i].read(h, f); err != nil {
			return Result{}, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	h.finishUCI()
	for _, read := range h.later {
		read()
	}
	return h.result(), nil
}
