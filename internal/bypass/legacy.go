package bypass

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// legacy is the tables of iptables, or of ip6tables, before nftables.
type legacy struct {
	v6     bool
	socket int
	file   *os.File // the names of the tables; nil: there is no such file yet
	tables []legacyTable
}

// legacyTable is a table as the kernel returns it.
type legacyTable struct {
	name    string
	info    legacyInfo
	entries []byte
}

// legacyInfo is struct ipt_getinfo, and struct ip6t_getinfo.
type legacyInfo struct {
	Name       [32]byte
	ValidHooks uint32
	HookEntry  [5]uint32
	Underflow  [5]uint32
	Entries    uint32
	Size       uint32
}

// Options of getsockopt(2), the same for both families (linux/netfilter_ipv4/ip_tables.h).
const (
	getInfo    = 64
	getEntries = 65
)

func openLegacy(v6 bool) (*legacy, error) {
	l := &legacy{v6: v6}
	domain := unix.AF_INET
	if v6 {
		domain = unix.AF_INET6
	}
	var err error
	if l.socket, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		if errors.Is(err, unix.EAFNOSUPPORT) {
			l.socket = -1
			return l, nil
		}
		return nil, fmt.Errorf("open a socket for the tables of iptables: %w", err)
	}
	return l, l.open()
}

func (l *legacy) close() {
	if l == nil {
		return
	}
	if l.socket >= 0 {
		unix.Close(l.socket)
	}
	if l.file != nil {
		l.file.Close()
	}
}

// open opens the list of tables, if there is one. Only root may open it, so it stays open.
func (l *legacy) open() (err error) {
	if l.file != nil || l.socket < 0 {
		return nil
	}
	name, module := "/proc/thread-self/net/ip_tables_names", "/sys/module/ip_tables"
	if l.v6 {
		name, module = "/proc/thread-self/net/ip6_tables_names", "/sys/module/ip6_tables"
	}
	switch l.file, err = os.Open(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, fs.ErrPermission):
		if _, err := os.Stat(module); errors.Is(err, fs.ErrNotExist) {
			return nil // the module was not loaded when there was the right to open the file
		}
	}
	if err != nil {
		return fmt.Errorf("the tables of iptables are not known: %w", err)
	}
	return nil
}

// names returns the tables that exist. To ask for another one would make it.
func (l *legacy) names() ([]string, error) {
	if err := l.open(); err != nil || l.file == nil {
		return nil, err
	}
	b, err := io.ReadAll(io.NewSectionReader(l.file, 0, 1<<12))
	if err != nil {
		return nil, fmt.Errorf("the tables of iptables are not known: %w", err)
	}
	return strings.Fields(string(b)), nil
}

// read reads the tables.
func (l *legacy) read() error {
	tables, err := l.load()
	if err == nil {
		l.tables = tables
	}
	return err
}

// differs reports whether the tables are not those that were read. Counters do not count.
func (l *legacy) differs() bool {
	now, err := l.load()
	return err != nil || !slices.EqualFunc(now, l.tables, func(a, b legacyTable) bool {
		return a.info == b.info && bytes.Equal(a.entries, b.entries)
	})
}

func (l *legacy) load() (tables []legacyTable, err error) {
	names, err := l.names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		t, err := l.table(name)
		if err != nil {
			return nil, fmt.Errorf("table %s of %s is not known: %w", name, l.command(), err)
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// table reads a table, with counters of 0.
func (l *legacy) table(name string) (t legacyTable, err error) {
	t.name = name
	b := make([]byte, unsafe.Sizeof(t.info))
	copy(b[:31], name)
	if err := l.get(getInfo, b); err != nil {
		return t, err
	}
	if _, err := binary.Decode(b, binary.NativeEndian, &t.info); err != nil {
		return t, err
	}
	// struct ipt_get_entries: the name, the size, and the entries, at a multiple of 8 bytes.
	const begin = 40
	b = make([]byte, begin+int(t.info.Size))
	copy(b[:31], name)
	binary.NativeEndian.PutUint32(b[32:], t.info.Size)
	if err := l.get(getEntries, b); err != nil {
		return t, err
	}
	t.entries = b[begin:]
	for e := range l.each(t.entries) {
		clear(e.counters())
	}
	return t, nil
}

// get is getsockopt(2).
func (l *legacy) get(option int, b []byte) error {
	level, n := unix.IPPROTO_IP, uint32(len(b))
	if l.v6 {
		level = unix.IPPROTO_IPV6
	}
	if _, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(l.socket), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0); e != 0 {
		return e
	}
	return nil
}

// command returns the name of the command for the tables.
func (l *legacy) command() string {
	if l.v6 {
		return "ip6tables-legacy"
	}
	return "iptables-legacy"
}
