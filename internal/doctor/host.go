package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sixfour/internal/control/client"
	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/subject"
)

func checkDaemon(_ context.Context, h *subject.Host) finding.Finding {
	switch {
	case h.OtherNamespace != "":
		return finding.Failed(fmt.Sprintf("nsenter --net=%s sixfourctl doctor", h.OtherNamespace),
			"sixfourd (process %d) runs in another network namespace than this program, which checks its own", h.PID)
	case h.Status != nil && h.PID != 0:
		return finding.Passed("sixfourd (process %d) answers at %s", h.PID, h.Socket)
	case h.Status != nil:
		return finding.Passed("sixfourd answers at %s", h.Socket)
	case !errors.Is(h.StatusErr, client.ErrNoDaemon) && !h.Privileged():
		return finding.Skipped("%v", h.StatusErr).WithRemedy(finding.AsRoot)
	case !errors.Is(h.StatusErr, client.ErrNoDaemon):
		return finding.Failed("systemctl restart sixfourd", "%s: %v", h.Socket, h.StatusErr)
	case h.Config == nil && !h.Privileged(): // the configuration may name another socket
		return finding.Skipped("%v", h.StatusErr).WithRemedy(finding.AsRoot)
	case h.Config == nil && h.Options.Socket == "" && h.FileError() == nil:
		return finding.Skipped("the configuration file, which names the control socket, has errors, and no daemon answers at %s", h.Socket).WithRemedy("sixfourctl doctor --socket PATH")
	case h.Config != nil && h.Options.Config != "": // a file is checked, perhaps before the first start
		return finding.Skipped("sixfourd is not running: nothing answers at %s; only %s is checked", h.Socket, h.File).WithRemedy("sixfourd -config " + h.File)
	case h.Unit != nil:
		return finding.Failed("systemctl start sixfourd (if it ends again, journalctl -u sixfourd says why)", "sixfourd is not running: nothing answers at %s; only the configuration is checked", h.Socket)
	}
	return finding.Failed("sixfourd -config "+h.File, "sixfourd is not running: nothing answers at %s; only the configuration is checked", h.Socket)
}

func checkConfig(_ context.Context, h *subject.Host) finding.Finding {
	if h.ConfigErr != nil {
		if errors.Is(h.FileError(), fs.ErrPermission) {
			return finding.Skipped("%s may not be read by this user", h.File).WithRemedy(finding.AsRoot)
		}
		if h.Status != nil && h.Options.Config == "" && errors.Is(h.FileError(), fs.ErrNotExist) {
			return finding.Skipped("there is no file %s, so only the daemon's status is known: name its configuration file with --config", h.File)
		}
		return finding.Failed("sixfourd -check -config "+h.File, "%s", firstLine(h.ConfigErr.Error()))
	}
	if len(h.Warnings) > 0 {
		return finding.Failed("sixfourd -check -config "+h.File, "%s", h.Warnings[0])
	}
	if h.Status == nil {
		return finding.Passed("%s has %s", h.File, finding.Plural(len(h.Config.Tunnels), "tunnel"))
	}
	var here, there []string
	for _, t := range h.Config.Tunnels {
		here = append(here, t.Name)
	}
	for _, t := range h.Status.Tunnels {
		there = append(there, t.Name)
	}
	for _, name := range here {
		if !slices.Contains(there, name) {
			return finding.Failed("sixfourctl reload", "tunnel %s is in %s, but the daemon does not run it", name, h.File)
		}
	}
	for _, name := range there {
		if !slices.Contains(here, name) {
			return finding.Failed("sixfourctl reload", "the daemon runs tunnel %s, which is not in %s", name, h.File)
		}
	}
	return finding.Passed("%s has the same %s as the daemon", h.File, finding.Plural(len(here), "tunnel"))
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// leastKernel is the first long-term kernel that supports the route queries of netcfg
// (RTM_F_FIB_MATCH came with 4.13).
var leastKernel = [2]int{4, 14}

func checkKernel(_ context.Context, h *subject.Host) finding.Finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return finding.Skipped("uname: %v", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	major, minor, ok := kernelVersion(release)
	switch {
	case !ok:
		return finding.Skipped("the kernel's release %q does not begin with a version", release)
	case major < leastKernel[0] || major == leastKernel[0] && minor < leastKernel[1]:
		return finding.Failed("install a newer kernel", "Linux %s is older than %d.%d", release, leastKernel[0], leastKernel[1])
	}
	return finding.Passed("Linux %s", release)
}

// kernelVersion parses the first two numbers of a release.
func kernelVersion(release string) (major, minor int, ok bool) {
	first, rest, ok := strings.Cut(release, ".")
	if !ok {
		return 0, 0, false
	}
	second := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	major, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(second)
	return major, minor, err == nil
}

func checkTun(_ context.Context, h *subject.Host) finding.Finding {
	path := h.Options.Paths.Tun
	make := fmt.Sprintf("modprobe tun; mkdir -p %s; mknod %s c 10 200 (in a container, from outside: --device %s)", filepath.Dir(path), path, path)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return finding.Failed(make, "%s cannot be opened: %v", path, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		if os.Geteuid() != 0 {
			return finding.Skipped("%s may not be opened by this user", path).WithRemedy(finding.AsRoot)
		}
		return finding.Failed("let the container use it: --device "+path, "%s may not be opened: %v", path, err)
	case err != nil:
		return finding.Failed(make, "%s cannot be opened: %v", path, err)
	}
	defer unix.Close(fd)
	features, err := unix.IoctlGetUint32(fd, unix.TUNGETFEATURES)
	switch {
	case err != nil:
		return finding.Failed("rm "+path+"; "+make, "%s is not a TUN device: %v", path, err)
	case features&unix.IFF_MULTI_QUEUE == 0:
		return finding.Failed("install a newer kernel", "%s does not support several queues", path)
	}
	return checkTunFor(h, path)
}

func checkCapabilities(_ context.Context, h *subject.Host) finding.Finding {
	if h.PID != 0 {
		missing, err := h.MissingCapabilities(strconv.Itoa(h.PID))
		if err == nil && len(missing) > 0 {
			return finding.Failed("give its unit AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW, or run it as root",
				"sixfourd (process %d) lacks %s", h.PID, strings.Join(missing, " and "))
		}
	}
	missing, err := h.MissingCapabilities("self")
	switch {
	case err != nil:
		return finding.Skipped("%v", err)
	case len(missing) > 0:
		return finding.Skipped("this program lacks %s, so many checks are skipped", strings.Join(missing, " and ")).WithRemedy(finding.AsRoot)
	case h.PID != 0:
		return finding.Passed("sixfourd and this program have CAP_NET_ADMIN and CAP_NET_RAW")
	}
	return finding.Passed("this program has CAP_NET_ADMIN and CAP_NET_RAW")
}

func checkIPTables(_ context.Context, h *subject.Host) finding.Finding {
	for _, t := range []struct{ file, command string }{{"ip_tables_names", "iptables-legacy"}, {"ip6_tables_names", "ip6tables-legacy"}} {
		b, err := os.ReadFile(filepath.Join(h.Options.Paths.Proc, "thread-self/net", t.file))
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EPERM) {
			return finding.Skipped("this user may not read the tables of %s", t.command).WithRemedy(finding.AsRoot)
		}
		if tables := strings.Fields(string(b)); len(tables) > 0 {
			return finding.Skipped("%s has tables (%s), whose rules are not checked", t.command, strings.Join(tables, ", ")).
				WithRemedy(t.command + " -L -v -n")
		}
	}
	return finding.Passed("iptables-legacy has no tables: nftables shows all rules")
}

// checkTunFor checks access for the user that the daemon runs as: this program may be
// root.
func checkTunFor(h *subject.Host, path string) finding.Finding {
	if h.PID == 0 && h.Unit != nil {
		if why := h.Unit.HidesTun(path); why != "" {
			return finding.Failed("systemctl edit sixfourd: [Service] BindPaths="+path+", DeviceAllow="+path+" rw", "the unit %s does not let the daemon use %s: %s", subject.UnitName, path, why)
		}
	}
	a, ok := h.Account()
	if !ok {
		return finding.Passed("%s is a TUN device, and this program may use it; the daemon's user is not known", path)
	}
	switch may, known := a.MayUse(path); {
	case !known:
		return finding.Passed("%s is a TUN device", path)
	case !may:
		info, err := os.Stat(path)
		if err != nil {
			return finding.Skipped("%v", err)
		}
		return finding.Failed(fmt.Sprintf(`chmod 0666 %s (and, so that it stays: echo 'KERNEL=="tun", MODE="0666"' > /etc/udev/rules.d/60-tun.rules)`, path),
			"%s is a TUN device, but the daemon's user %s may not use it: its mode is %04o", path, a.Name, info.Mode().Perm())
	}
	return finding.Passed("%s is a TUN device, and the daemon's user %s may use it", path, a.Name)
}
