package privilege

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Rights to files, as landlock(7) has them.
const (
	look   = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir)
	device = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSIoctlDev)
	tidy   = landlock.AccessFSSet(ll.AccessFSReadDir | ll.AccessFSRemoveFile)
)

// dns is the port of name servers, for answers that a datagram does not hold.
const dns = 53

// system is where the daemon reads what is not its own: name servers and time
// zones, settings of the kernel and devices. Files there are replaced, not
// changed, so that it is directories that matter.
var system = []string{"/etc", "/proc", "/sys", "/usr/share/zoneinfo"}

// followed are files of system that are often links to somewhere else.
var followed = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/localtime"}

// restrictFiles leaves of the file system what is needed, and of TCP connections
// those to name servers. It returns the version of the kernel's interface that does
// so. A Unix socket that has a name in the file system can be reached as before:
// systemd's and the journal's are such.
func restrictFiles(n needs) (string, error) {
	version, err := ll.LandlockGetABIVersion()
	if err != nil || version == 0 {
		return "", errors.New("the kernel has it not, or it is off: see CONFIG_SECURITY_LANDLOCK and the boot option lsm=")
	}
	handled := landlock.Config{
		HandledAccessFS:  landlock.V5.HandledAccessFS,
		HandledAccessNet: landlock.AccessNetSet(ll.AccessNetConnectTCP),
		Scoped:           landlock.ScopedSet(ll.ScopeAbstractUnixSocket),
	}
	if strings.HasPrefix(os.Getenv("NOTIFY_SOCKET"), "@") { // who supervises us is behind one
		handled.Scoped = 0
	}
	rules := []landlock.Rule{landlock.ConnectTCP(dns)}
	files := map[landlock.AccessFSSet][]string{look: readable(n), device: {"/dev/net"}}
	if dir := filepath.Dir(n.socket); dir != "/" { // else it could remove every file; the socket stays, as after a crash
		files[tidy] = []string{dir}
	}
	for access, paths := range files {
		rules = append(rules, landlock.PathAccess(access, paths...).IgnoreIfMissing())
	}
	if err := handled.BestEffort().Restrict(rules...); err != nil {
		return "", err
	}
	return fmt.Sprintf("ABI %d", version), nil
}

// readable are the places to read.
func readable(n needs) []string {
	all := append([]string{}, system...)
	for _, dir := range n.names {
		all = append(all, there(dir))
	}
	for _, file := range append([]string{n.config}, followed...) {
		all = append(all, around(file)...)
	}
	return unique(all)
}

// there is a directory, or of one that is not there yet, such as that of the first named
// namespace, the nearest one above it that is.
func there(dir string) string {
	for up := dir; up != "/"; up = filepath.Dir(up) {
		if _, err := os.Stat(up); err == nil {
			return up
		}
	}
	return dir
}

// around are the directories in which a file lies, under its name and as what the
// name leads to, so that a file which takes its place can be read as well. A file in
// the root directory stands alone: that directory is everything.
func around(file string) []string {
	var all []string
	for _, path := range []string{file, target(file)} {
		path, err := filepath.Abs(path)
		if err != nil {
			continue
		}
		if dir := filepath.Dir(path); dir != "/" {
			path = dir
		}
		all = append(all, path)
	}
	return all
}

// target is what a name leads to in the end; of a link to what is not there yet, such
// as a resolver's file before that has started, what there is of the way to it.
func target(file string) string {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		return real
	}
	to, err := os.Readlink(file)
	if err != nil {
		return file
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(filepath.Dir(file), to)
	}
	for dir := filepath.Dir(to); dir != "/"; to, dir = dir, filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			return to
		}
	}
	return file
}
