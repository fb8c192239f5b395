package subject

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unit holds the relevant settings of the daemon's systemd unit (systemd.exec(5),
// systemd.resource-control(5)). A key that may occur more than once has all its values.
type unit map[string][]string

// UnitName is the name of the daemon's unit.
const UnitName = "sixfourd.service"

// unitDirs are the directories of systemd units, highest priority first
// (systemd.unit(5)).
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// ReadUnit reads the daemon's unit with its drop-ins; nil: there is none.
func ReadUnit(dirs []string) unit {
	var files []string
	for _, dir := range dirs {
		file := filepath.Join(dir, UnitName)
		if _, err := os.Stat(file); err == nil {
			files = append(files, file)
			break
		}
	}
	if files == nil {
		return nil
	}
	// Among drop-ins with the same name, the first directory's counts; they apply in the
	// order of their names.
	dropIns := make(map[string]string)
	for _, dir := range slices.Backward(dirs) {
		found, _ := filepath.Glob(filepath.Join(dir, UnitName+".d", "*.conf"))
		for _, file := range found {
			dropIns[filepath.Base(file)] = file
		}
	}
	var names []string
	for name := range dropIns {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		files = append(files, dropIns[name])
	}
	u := unit{}
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil {
			u.read(text)
		}
	}
	return u
}

// read adds a file's settings. An empty value removes the earlier ones.
func (u unit) read(text []byte) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case !ok || strings.HasPrefix(key, "#") || strings.HasPrefix(key, ";"):
		case value == "":
			delete(u, key)
		default:
			u[key] = append(u[key], value)
		}
	}
}

// last returns the effective value of a key with a single value.
func (u unit) last(key string) string {
	if all := u[key]; len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}

// HidesTun returns why no process of the unit can open the TUN device, whatever its user;
// "": the unit does not prevent it.
func (u unit) HidesTun(path string) string {
	if on := u.last("PrivateDevices"); (on == "yes" || on == "true" || on == "1" || on == "on") && !u.binds(path) {
		return fmt.Sprintf("PrivateDevices=%s without BindPaths=%s", on, path)
	}
	allowed := u["DeviceAllow"]
	policy := u.last("DevicePolicy")
	if policy != "strict" && policy != "closed" && len(allowed) == 0 {
		return ""
	}
	for _, a := range allowed {
		device, access, some := strings.Cut(a, " ")
		if (device == path || device == "char-misc" || device == "char-*") && (!some || strings.Contains(access, "r") && strings.Contains(access, "w")) {
			return ""
		}
	}
	if policy == "" {
		policy = "auto"
	}
	return fmt.Sprintf("DevicePolicy=%s without DeviceAllow=%s rw", policy, path)
}

// binds reports whether the unit puts a file of the host where the service sees it.
func (u unit) binds(path string) bool {
	for _, line := range u["BindPaths"] {
		for _, one := range strings.Fields(line) {
			if source, _, _ := strings.Cut(strings.TrimPrefix(one, "-"), ":"); source == path {
				return true
			}
		}
	}
	return false
}

// account is the user that the daemon runs as, or will run as.
type account struct {
	Name      string
	uid       int
	gids      []int
	overrides bool // may ignore file permissions (CAP_DAC_OVERRIDE)
}

// Account returns the account of the running daemon, or else that of its unit; if ok is
// false, it is not known.
func (h *Host) Account() (a account, ok bool) {
	if h.PID != 0 {
		return h.accountOf(strconv.Itoa(h.PID))
	}
	if h.Unit == nil {
		return a, false
	}
	name := h.Unit.last("User")
	if name == "" || name == "root" || name == "0" {
		bounds := h.Unit.last("CapabilityBoundingSet")
		return account{Name: "root", overrides: bounds == "" || strings.Contains(bounds, "CAP_DAC_OVERRIDE")}, true
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return a, false
		}
	}
	a.Name = name
	a.uid, _ = strconv.Atoi(u.Uid)
	groups := append([]string{u.Gid}, h.Unit["SupplementaryGroups"]...)
	if g := h.Unit.last("Group"); g != "" {
		groups[0] = g
	}
	if more, err := u.GroupIds(); err == nil {
		groups = append(groups, more...)
	}
	for _, g := range strings.Fields(strings.Join(groups, " ")) {
		if found, err := user.LookupGroup(g); err == nil {
			g = found.Gid
		}
		if gid, err := strconv.Atoi(g); err == nil {
			a.gids = append(a.gids, gid)
		}
	}
	a.overrides = strings.Contains(h.Unit.last("AmbientCapabilities"), "CAP_DAC_OVERRIDE")
	return a, true
}

// accountOf returns the account of a process (proc_pid_status(5)).
func (h *Host) accountOf(pid string) (a account, ok bool) {
	b, err := os.ReadFile(filepath.Join(h.Options.Paths.Proc, pid, "status"))
	if err != nil {
		return a, false
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		fields := strings.Fields(value)
		const effective = 1 // index in: real, effective, saved, file system
		switch {
		case key == "Uid" && len(fields) > effective:
			a.uid, err = strconv.Atoi(fields[effective])
			ok = err == nil
		case key == "Gid" && len(fields) > effective, key == "Groups":
			for _, f := range fields {
				if gid, err := strconv.Atoi(f); err == nil {
					a.gids = append(a.gids, gid)
				}
			}
		case key == "CapEff" && len(fields) == 1:
			bits, err := strconv.ParseUint(fields[0], 16, 64)
			a.overrides = err == nil && bits>>unix.CAP_DAC_OVERRIDE&1 == 1
		}
	}
	a.Name = strconv.Itoa(a.uid)
	if u, err := user.LookupId(a.Name); err == nil {
		a.Name = u.Username
	}
	return a, ok
}

// MayUse reports whether the account may read and write a file. If known is false, the
// file's mode alone does not decide.
func (a account) MayUse(path string) (may, known bool) {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return false, false
	}
	if n, err := unix.Getxattr(path, "system.posix_acl_access", nil); err == nil && n > 0 {
		return false, false
	}
	const readWrite = 6
	shift := 0
	switch {
	case a.overrides:
		return true, true
	case int(s.Uid) == a.uid:
		shift = 6
	case slices.Contains(a.gids, int(s.Gid)):
		shift = 3
	}
	return s.Mode>>shift&readWrite == readWrite, true
}
