package systemd

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listen returns a manager with a socket, and a function that receives from it.
func listen(t *testing.T) (Manager, func() (text string, fds []int)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return Find(), func() (string, []int) {
		t.Helper()
		buf, oob := make([]byte, 4096), make([]byte, 256)
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			t.Fatal(err)
		}
		var fds []int
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			t.Fatal(err)
		}
		for i := range messages {
			more, err := unix.ParseUnixRights(&messages[i])
			if err != nil {
				t.Fatal(err)
			}
			fds = append(fds, more...)
		}
		return string(buf[:n]), fds
	}
}

func TestNotify(t *testing.T) {
	m, next := listen(t)
	for _, c := range []struct {
		states []string
		want   string // prefix
	}{
		{[]string{Ready}, "READY=1"},
		{[]string{Ready, Status("%d tunnels\nof which none is up", 3)}, "READY=1\nSTATUS=3 tunnels; of which none is up"},
		{[]string{Reloading()}, "RELOADING=1\nMONOTONIC_USEC="},
	} {
		if err := m.Notify(c.states...); err != nil {
			t.Fatal(err)
		}
		if got, _ := next(); !strings.HasPrefix(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if err := (Manager{}).Notify(Ready); err != nil {
		t.Errorf("without a manager: %v", err)
	}
	if err := (Manager{filepath.Join(t.TempDir(), "nobody")}).Notify(Ready); err == nil {
		t.Error("a manager that is not there has heard it")
	}
}

func TestStore(t *testing.T) {
	m, next := listen(t)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := m.Store("tun/six0/0", int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	text, fds := next()
	if text != "FDSTORE=1\nFDNAME=tun/six0/0" || len(fds) != 1 {
		t.Fatalf("%q with %d descriptors", text, len(fds))
	}
	defer unix.Close(fds[0])
	var ours, theirs unix.Stat_t
	if unix.Fstat(int(f.Fd()), &ours) != nil || unix.Fstat(fds[0], &theirs) != nil || ours.Ino != theirs.Ino {
		t.Error("it is another file")
	}
	if err := m.Remove("tun/six0/0"); err != nil {
		t.Fatal(err)
	}
	if text, fds := next(); text != "FDSTOREREMOVE=1\nFDNAME=tun/six0/0" || len(fds) != 0 {
		t.Errorf("%q with %d descriptors", text, len(fds))
	}
	for _, c := range []struct {
		granted string
		want    bool
	}{{"0", false}, {"128", true}} {
		t.Setenv("FDSTORE", c.granted)
		if m.Keeps() != c.want {
			t.Errorf("FDSTORE=%s: %v", c.granted, m.Keeps())
		}
	}
	if (Manager{}).Keeps() {
		t.Error("nobody keeps something")
	}
}
