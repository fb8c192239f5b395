package doctor

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

	"sixfour/internal/config"
	"sixfour/internal/configfile"
)

// unit holds the relevant settings of the daemon's systemd unit (systemd.exec(5),
// systemd.resource-control(5)). A key that may occur more than once has all its values.
type unit map[string][]string

// unitName is the name of the daemon's unit.
const unitName = "sixfourd.service"

// unitDirs are the directories of systemd units, highest priority first (systemd.unit(5)).
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// readUnit reads the daemon's unit with its drop-ins; nil: there is none.
func readUnit(dirs []string) unit {
	var files []string
	for _, dir := range dirs {
		file := filepath.Join(dir, unitName)
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
		found, _ := filepath.Glob(filepath.Join(dir, unitName+".d", "*.conf"))
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

// hidesTun returns why no process of the unit can open the TUN device, whatever its user;
// "": the unit does not prevent it.
func (u unit) hidesTun(path string) string {
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
	name      string
	uid       int
	gids      []int
	overrides bool // may ignore file permissions (CAP_DAC_OVERRIDE)
}

// account returns the account of the running daemon, or else that of its unit; if ok is
// false, it is not known.
func (h *host) account() (a account, ok bool) {
	if h.pid != 0 {
		return h.accountOf(strconv.Itoa(h.pid))
	}
	if h.unit == nil {
		return a, false
	}
	name := h.unit.last("User")
	if name == "" || name == "root" || name == "0" {
		bounds := h.unit.last("CapabilityBoundingSet")
		return account{name: "root", overrides: bounds == "" || strings.Contains(bounds, "CAP_DAC_OVERRIDE")}, true
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return a, false
		}
	}
	a.name = name
	a.uid, _ = strconv.Atoi(u.Uid)
	groups := append([]string{u.Gid}, h.unit["SupplementaryGroups"]...)
	if g := h.unit.last("Group"); g != "" {
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
	a.overrides = strings.Contains(h.unit.last("AmbientCapabilities"), "CAP_DAC_OVERRIDE")
	return a, true
}

// accountOf returns the account of a process (proc_pid_status(5)).
func (h *host) accountOf(pid string) (a account, ok bool) {
	b, err := os.ReadFile(filepath.Join(h.o.Paths.Proc, pid, "status"))
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
	a.name = strconv.Itoa(a.uid)
	if u, err := user.LookupId(a.name); err == nil {
		a.name = u.Username
	}
	return a, ok
}

// mayUse reports whether the account may read and write a file. If known is false, the file's
// mode alone does not decide.
func (a account) mayUse(path string) (may, known bool) {
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

// otherDaemon returns another sixfourd in this namespace that has a tunnel with the same
// outer addresses; 0: none.
func (p *peer) otherDaemon() int {
	h := p.t.h
	if h.pid == 0 || h.elsewhere != "" {
		return 0
	}
	dirs, _ := filepath.Glob(filepath.Join(h.o.Paths.Proc, "[0-9]*"))
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil || pid == h.pid || strings.TrimSuffix(filepath.Base(exe), " (deleted)") != "sixfourd" || elsewhere(h.o.Paths.Proc, pid) != "" {
			continue
		}
		path, err := h.fileOf(dir)
		if err != nil {
			continue
		}
		cfg, _, err := configfile.LoadLenient(path)
		if err == nil && slices.ContainsFunc(cfg.Tunnels, p.sharesPackets) {
			return pid
		}
	}
	return 0
}

// sharesPackets reports whether another daemon's tunnel receives the packets of the peer.
func (p *peer) sharesPackets(t config.Tunnel) bool {
	if len(t.Layers) == 0 || len(p.t.cfg.Layers) == 0 || (&tunnel{cfg: t}).outer() != p.t.outer() {
		return false
	}
	identity := p.t.cfg.Outermost(&p.cfg.Paths[0]).Properties().Identity
	for _, path := range t.AllPaths() {
		if path.Local == p.configured() && path.Remote.Addr == p.remote && t.Outermost(path).Properties().Identity == identity {
			return true
		}
	}
	return false
}

// checkTunFor checks access for the user that the daemon runs as: this program may be root.
func (h *host) checkTunFor(path string) finding {
	if h.pid == 0 && h.unit != nil {
		if why := h.unit.hidesTun(path); why != "" {
			return fail("systemctl edit sixfourd: [Service] BindPaths="+path+", DeviceAllow="+path+" rw", "the unit %s keeps %s from the daemon: %s", unitName, path, why)
		}
	}
	a, ok := h.account()
	if !ok {
		return pass("%s is a TUN device, and this program may use it; which user the daemon runs as is not known", path)
	}
	switch may, known := a.mayUse(path); {
	case !known:
		return pass("%s is a TUN device", path)
	case !may:
		info, err := os.Stat(path)
		if err != nil {
			return skip("%v", err)
		}
		return fail(fmt.Sprintf(`chmod 0666 %s (and, so that it stays: echo 'KERNEL=="tun", MODE="0666"' > /etc/udev/rules.d/60-tun.rules)`, path),
			"%s is a TUN device, but its mode %04o does not let user %s use it, which the daemon runs as", path, info.Mode().Perm(), a.name)
	}
	return pass("%s is a TUN device, and user %s, which the daemon runs as, may use it", path, a.name)
}
