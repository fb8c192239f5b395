package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Access to the TUN device is judged for the unit's user, whichever user runs doctor.
func TestTunForTheUnit(t *testing.T) {
	const head = "[Service]\nUser=nobody\n"
	for _, test := range []struct {
		name    string
		unit    string // "": no unit
		dropIn  string
		mode    uint32
		gid     int
		verdict Verdict
		says    string
	}{
		{"no unit", "", "", 0o600, 0, Pass, "which user the daemon runs as is not known"},
		{"root's device", head, "", 0o600, 0, Fail, "its mode 0600 does not let user nobody use it, which the daemon runs as > chmod 0666"},
		{"everybody's device", head, "", 0o666, 0, Pass, "user nobody, which the daemon runs as, may use it"},
		{"read only", head, "", 0o644, 0, Fail, "its mode 0644"},
		{"a group's", head + "SupplementaryGroups=54321 54322\n", "", 0o660, 54322, Pass, ""},
		{"another group's", head + "SupplementaryGroups=54321\n", "", 0o660, 54322, Fail, "0660"},
		{"a capability", head + "AmbientCapabilities=CAP_NET_ADMIN CAP_DAC_OVERRIDE\n", "", 0o600, 0, Pass, ""},
		{"a unit of root's", "[Service]\nExecStart=/x\n", "", 0o600, 0, Pass, "user root"},
		{"a drop-in that sets root", head, "[Service]\nUser=root\n", 0o600, 0, Pass, "user root"},
		{"no devices", head + "PrivateDevices=yes\n", "", 0o666, 0, Fail, "PrivateDevices=yes without BindPaths="},
		{"no devices but for it", head + "PrivateDevices=yes\nBindPaths=-TUN\nDevicePolicy=closed\nDeviceAllow=TUN rw\n", "", 0o666, 0, Pass, ""},
		{"no devices but for another", head + "PrivateDevices=yes\nBindPaths=/dev/null\n", "", 0o666, 0, Fail, "PrivateDevices=yes"},
		{"closed", head + "DevicePolicy=closed\n", "", 0o666, 0, Fail, "DevicePolicy=closed without DeviceAllow="},
		{"closed but for it", head + "DevicePolicy=closed\nDeviceAllow=TUN rw\n", "", 0o666, 0, Pass, ""},
		{"only to be read", head + "DeviceAllow=TUN r\n", "", 0o666, 0, Fail, "DevicePolicy=auto without"},
		{"taken back", head + "DeviceAllow=TUN rw\n", "[Service]\nDeviceAllow=\nDeviceAllow=/dev/null rw\n", 0o666, 0, Fail, "without DeviceAllow"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			device := filepath.Join(dir, "tun")
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(unix.Mknod(device, unix.S_IFCHR|test.mode, int(unix.Mkdev(10, 200))))
			must(os.Chmod(device, os.FileMode(test.mode)))
			must(os.Chown(device, 0, test.gid))
			low, high := filepath.Join(dir, "low"), filepath.Join(dir, "high")
			must(os.MkdirAll(low, 0o755))
			must(os.MkdirAll(filepath.Join(high, unitName+".d"), 0o755))
			if test.unit != "" {
				must(os.WriteFile(filepath.Join(low, unitName), []byte(strings.ReplaceAll(test.unit, "TUN", device)), 0o644))
			}
			if test.dropIn != "" {
				must(os.WriteFile(filepath.Join(high, unitName+".d", "x.conf"), []byte(test.dropIn), 0o644))
			}
			h := &host{o: Options{Paths: Paths{Tun: device}.orDefault()}, unit: readUnit([]string{high, low})}
			if f := h.checkTun(t.Context()); f.verdict != test.verdict || !strings.Contains(f.text+" > "+f.mend, test.says) {
				t.Errorf("%s %s > %s; want %s with %q", f.verdict, f.text, f.mend, test.verdict, test.says)
			}
		})
	}
}

// For a running process its own user counts.
func TestAccountOfAProcess(t *testing.T) {
	h := &host{o: Options{Paths: Paths{}.orDefault()}, pid: os.Getpid()}
	a, ok := h.account()
	if !ok || a.uid != os.Geteuid() || !a.overrides {
		t.Errorf("%+v, %v", a, ok)
	}
}
