// Package importing makes a configuration file from the tunnels of other programs: commands
// of iproute2 and the scripts that contain them, and configuration files. What the result
// does not have is listed, line by line, with the reason.
//
// A reader of each format describes the tunnels with the commands and parameters of iproute2,
// from which package host makes the result.
package importing

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"sixfour/internal/importing/host"
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

// reader reads inputs into a host.
type reader struct {
	*host.Host
	options Options
	later   []func() // what is read when all links are known
	uci     []*uciSection
}

// afterwards reads something when the links of all files are known.
func (r *reader) afterwards(read func()) {
	resume := r.Resume()
	r.later = append(r.later, func() {
		resume()
		read()
	})
}

// format is a format of inputs.
type format struct {
	name  string
	meant func([]byte) bool // whether an input seems to be in this format
	read  func(*reader, File) error
}

// formats are all formats in the order in which they are tried. The last one accepts
// everything.
var formats = []format{
	{"uci", isUCI, readUCI},
	{"netplan", isNetplan, readNetplan},
	{"networkd", isNetworkd, readNetworkd},
	{"aiccu", isAICCU, readAICCU},
	{"gogoc", isGogoc, readGogoc},
	{"miredo", isMiredo, readMiredo},
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
func Import(files []File, o Options) (host.Result, error) {
	r := &reader{Host: host.New(), options: o}
	for _, f := range files {
		if len(f.Data) > maxSize {
			return host.Result{}, fmt.Errorf("%s: larger than %d MiB, too large for a configuration", f.Name, maxSize>>20)
		}
		if bytes.IndexByte(f.Data, 0) >= 0 {
			return host.Result{}, fmt.Errorf("%s: not a text", f.Name)
		}
		r.Begin(f.Name, f.Data)
		i := slices.IndexFunc(formats, func(known format) bool {
			return known.name == o.Format || o.Format == "" && known.meant(f.Data)
		})
		if i < 0 {
			return host.Result{}, fmt.Errorf("there is no format %q: choose %s", o.Format, strings.Join(Formats(), ", "))
		}
		if err := formats[i].read(r, f); err != nil {
			return host.Result{}, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	r.finishUCI()
	for _, read := range r.later {
		read()
	}
	return r.Result(), nil
}
