package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sixfour/internal/doctor/finding"
	"sixfour/internal/doctor/subject"

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
		verdict finding.Verdict
		says    string
	}{
		{"no unit", "", "", 0o600, 0, finding.Pass, "the daemon's user is not known"},
		{"root's device", head, "", 0o600, 0, finding.Fail, "the daemon's user nobody may not use it: its mode is 0600 > chmod 0666"},
		{"everybody's device", head, "", 0o666, 0, finding.Pass, "the daemon's user nobody may use it"},
		{"read only", head, "", 0o644, 0, finding.Fail, "its mode is 0644"},
		{"a group's", head + "SupplementaryGroups=54321 54322\n", "", 0o660, 54322, finding.Pass, ""},
		{"another group's", head + "SupplementaryGroups=54321\n", "", 0o660, 54322, finding.Fail, "0660"},
		{"a capability", head + "AmbientCapabilities=CAP_NET_ADMIN CAP_DAC_OVERRIDE\n", "", 0o600, 0, finding.Pass, ""},
		{"a unit of root's", "[Service]\nExecStart=/x\n", "", 0o600, 0, finding.Pass, "user root"},
		{"a drop-in that sets root", head, "[Service]\nUser=root\n", 0o600, 0, finding.Pass, "user root"},
		{"no devices", head + "PrivateDevices=yes\n", "", 0o666, 0, finding.Fail, "PrivateDevices=yes without BindPaths="},
		{"no devices but for it", head + "PrivateDevices=yes\nBindPaths=-TUN\nDevicePolicy=closed\nDeviceAllow=TUN rw\n", "", 0o666, 0, finding.Pass, ""},
		{"no devices but for another", head + "PrivateDevices=yes\nBindPaths=/dev/null\n", "", 0o666, 0, finding.Fail, "PrivateDevices=yes"},
		{"closed", head + "DevicePolicy=closed\n", "", 0o666, 0, finding.Fail, "DevicePolicy=closed without DeviceAllow="},
		{"closed but for it", head + "DevicePolicy=closed\nDeviceAllow=TUN rw\n", "", 0o666, 0, finding.Pass, ""},
		{"only to be read", head + "DeviceAllow=TUN r\n", "", 0o666, 0, finding.Fail, "DevicePolicy=auto without"},
		{"taken back", head + "DeviceAllow=TUN rw\n", "[Service]\nDeviceAllow=\nDeviceAllow=/dev/null rw\n", 0o666, 0, finding.Fail, "without DeviceAllow"},
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
			must(os.MkdirAll(filepath.Join(high, subject.UnitName+".d"), 0o755))
			if test.unit != "" {
				must(os.WriteFile(filepath.Join(low, subject.UnitName), []byte(strings.ReplaceAll(test.unit, "TUN", device)), 0o644))
			}
			if test.dropIn != "" {
				must(os.WriteFile(filepath.Join(high, subject.UnitName+".d", "x.conf"), []byte(test.dropIn), 0o644))
			}
			h := &subject.Host{Options: subject.Options{Paths: subject.Paths{Tun: device}.OrDefault()}, Unit: subject.ReadUnit([]string{high, low})}
			if f := checkTun(t.Context(), h); f.Verdict != test.verdict || !strings.Contains(f.Text+" > "+f.Remedy, test.says) {
				t.Errorf("%s %s > %s; want %s with %q", f.Verdict, f.Text, f.Remedy, test.verdict, test.says)
			}
		})
	}
}
