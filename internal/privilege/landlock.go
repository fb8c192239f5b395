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

// Access rights to files, as in landlock(7).
const (
	look   = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir)
	device = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSIoctlDev)
	tidy   = landlock.AccessFSSet(ll.AccessFSReadDir | ll.AccessFSRemoveFile)
)

// dns is the port of name servers, for TCP answers that do not fit into a datagram.
const dns = 53

// system are directories from which the daemon reads: name servers and time zones,
// settings of the kernel and of devices. Files there are replaced, not changed, so the
// rules must be for directories.
var system = []string{"/etc", "/proc", "/sys", "/usr/share/zoneinfo"}

// followed are files of system that are often symbolic links to other directories.
var followed = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/localtime"}

// restrictFiles removes access to all files except those that are needed, and to all TCP
// connections except those to name servers. It returns the version of the kernel's
// interface. It does not restrict Unix sockets with a path, such as those of systemd and
// of the journal.
func restrictFiles(n needs) (string, error) {
	version, err := ll.LandlockGetABIVersion()
	if err != nil || version == 0 {
		return "", errors.New("the kernel does not support it, or it is disabled: see CONFIG_SECURITY_LANDLOCK and the boot option lsm=")
	}
	handled := landlock.Config{
		HandledAccessFS:  landlock.V5.HandledAccessFS,
		HandledAccessNet: landlock.AccessNetSet(ll.AccessNetConnectTCP),
		Scoped:           landlock.ScopedSet(ll.ScopeAbstractUnixSocket),
	}
	if strings.HasPrefix(os.Getenv("NOTIFY_SOCKET"), "@") { // the service manager has an abstract Unix socket
		handled.Scoped = 0
	}
	rules := []landlock.Rule{landlock.ConnectTCP(dns)}
	for _, port := range n.connects {
		rules = append(rules, landlock.ConnectTCP(port))
	}
	files := map[landlock.AccessFSSet][]string{look: readable(n), device: {"/dev/net"}}
	if dir := filepath.Dir(n.socket); dir != "/" { // otherwise it could remove every file; the socket remains, as after a crash
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

// readable returns the places to read.
func readable(n needs) []string {
	all := append([]string{}, system...)
	for _, dir := range n.names {
		all = append(all, there(dir))
	}
	all = append(all, n.files...)
	for _, file := range append([]string{n.config}, followed...) {
		all = append(all, directoriesOf(file)...)
	}
	return unique(all)
}

// there returns a directory or, if it does not exist yet, such as that of the first
// named namespace, its nearest existing parent.
func there(dir string) string {
	for up := dir; up != "/"; up = filepath.Dir(up) {
		if _, err := os.Stat(up); err == nil {
			return up
		}
	}
	return dir
}

// directoriesOf returns the directories that contain a file: that of its path, and that of the
// target of its symbolic links. So a file that replaces it can be read as well. For a
// file in the root directory it returns only the file, because that directory contains
// everything.
func directoriesOf(file string) []string {
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

// target returns the final target of a path's symbolic links. If the target does not
// exist yet, such as a resolver's file before the resolver has started, it returns the
// part of the path that exists.
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
