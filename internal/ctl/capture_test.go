package ctl

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sixfour/encap/drop"
	"sixfour/internal/capture"
	"sixfour/internal/pcapng"
	"sixfour/internal/usage"
)

// Capture shows three packets, of which one is lost, and then waits; for tunnel gone it ends.
func (f *fake) Capture(ctx context.Context, r capture.Request, out capture.Sink) error {
	if r.Tunnel != "six0" && r.Tunnel != "gone" {
		return errors.New(`there is no tunnel "` + r.Tunnel + `": choose six0`)
	}
	tap, err := capture.New(r)
	if err != nil {
		return err
	}
	pkt := append([]byte{0x45, 0, 0, 20, 0, 1, 0, 0, 64, 59}, make([]byte, 10)...)
	for _, why := range []drop.Reason{drop.None, drop.Martian, drop.None} {
		tap.Show(&capture.Packet{Direction: pcapng.Inbound, Inner: capture.Bytes{Head: pkt}, Outer: capture.Bytes{Head: pkt}, Reason: why})
	}
	if r.Tunnel == "gone" {
		tap.End(errors.New("tunnel gone was removed"))
	}
	return tap.Stream(ctx, out)
}

// inFile reads a capture, and returns the number of packets and whether the final statistics
// are there.
func inFile(t *testing.T, path string) (packets int, whole bool) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	blocks := pcapng.NewBlocks(bytes.NewReader(b))
	for {
		block, err := blocks.Next()
		if errors.Is(err, io.EOF) {
			return packets, whole
		}
		must(t, err)
		if block.Type == pcapng.BlockPacket {
			packets++
		}
		whole = block.Type == pcapng.BlockStatistics
	}
}

func TestCaptureToFile(t *testing.T) {
	f := start(t)
	path := filepath.Join(t.TempDir(), "x.pcapng")
	for _, c := range []struct {
		args    string
		status  int
		said    string
		packets int // in the file; negative: the file is unchanged
	}{
		{"nine", 1, `there is no tunnel "nine": choose six0`, -1},
		{"six0 tcp prot 80", 1, `filter "tcp prot 80", column 5`, -1},
		{"six0 --snaplen -1", 1, "snap length", -1},
		{"six0 --inner --outer", 2, "--inner and --outer exclude each other", -1},
		{"six0 -c x", 2, `--count "x": give a whole number that is not negative`, -1},
		{"", 2, "capture: an argument is missing: sixfourctl capture TUNNEL [FILTER]", -1},
		{"six0 -c 3", 0, "3 packets captured into ", 6},
		{"six0 -c 2 ip and len = 20", 0, "2 packets captured into ", 4},
		{"six0 -c 1 --inner", 0, "1 packets captured into ", 1},
		{"six0 -c 1 --outer", 0, "1 packets captured into ", 1},
		{"gone", 1, "tunnel gone was removed", 6},
	} {
		const before = "what was there"
		must(t, os.WriteFile(path, []byte(before), 0o600))
		said, status := program(t, f.socket, false, append([]string{"capture", "-w", path}, strings.Fields(c.args)...)...)
		if status != c.status || !strings.Contains(said, c.said) {
			t.Errorf("%q: status %d, %s", c.args, status, said)
		}
		if c.packets < 0 {
			if b, err := os.ReadFile(path); err != nil || string(b) != before {
				t.Errorf("%q: the file is %q, %v", c.args, b, err)
			}
			continue
		}
		if n, whole := inFile(t, path); n != c.packets || !whole {
			t.Errorf("%q: %d packets in the file, its end %v", c.args, n, whole)
		}
	}
	must(t, os.Remove(path))
	program(t, f.socket, false, "capture", "six0", "-c", "1", "-w", path)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if said, status := program(t, f.socket, false, "capture", "six0", "-w", "/dev/full"); status != 1 || !strings.Contains(said, "no space left on device") {
		t.Errorf("a full disk: status %d, %s", status, said)
	}
}

// Binary data is not written to a terminal, nor read from one.
func TestCaptureOnATerminal(t *testing.T) {
	f, p := start(t), openPTY(t)
	cmd := p.run(t, f, "", "capture", "six0")
	p.see(t, "a capture cannot be shown on a terminal")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != usage.ExitMisuse {
		t.Error(err)
	}
}

// running is sixfourctl with pipes.
func running(t *testing.T, args ...string) (cmd *exec.Cmd, out io.ReadCloser, said *bytes.Buffer) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	said = new(bytes.Buffer)
	cmd.Stderr = said
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() { late.Stop() })
	return cmd, out, said
}

// Ctrl-C ends a capture with a complete file, and prints what it contains.
func TestCaptureInterrupted(t *testing.T) {
	f := start(t)
	path := filepath.Join(t.TempDir(), "x.pcapng")
	cmd, out, said := running(t, "capture", "six0", "-w", path, "--socket", f.socket)
	defer out.Close()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte("martian")) { // packets are written as they arrive
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no packet came")
		}
	}
	must(t, cmd.Process.Signal(syscall.SIGINT))
	if err := cmd.Wait(); err != nil || said.String() != "sixfourctl: 3 packets captured into "+path+"\n" {
		t.Errorf("%v: %s", err, said)
	}
	if n, whole := inFile(t, path); n != 6 || !whole {
		t.Errorf("%d packets, its end %v", n, whole)
	}
}

// If the reader of a capture ends, even while no packets arrive, the capture ends silently.
func TestCaptureReaderCloses(t *testing.T) {
	f := start(t)
	for _, read := range []int{0, 10, 400} {
		cmd, out, said := running(t, "capture", "six0", "--socket", f.socket)
		_, err := io.CopyN(io.Discard, out, int64(read))
		must(t, err)
		out.Close()
		if err := cmd.Wait(); err != nil || said.Len() > 0 {
			t.Errorf("after %d bytes: %v, %s", read, err, said)
		}
	}
}

// A capture is piped into decode, which shows packets as they arrive.
func TestDecode(t *testing.T) {
	f := start(t)
	path := filepath.Join(t.TempDir(), "x.pcapng")
	program(t, f.socket, false, "capture", "six0", "-w", path, "-c", "2")
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{path}, 0, "  dropped: martian: an inner address is not valid"},
		{[]string{"--json", path}, 0, `"drop":"martian"`},
		{nil, 0, "4  20"}, // the fourth, of this century
		{[]string{"/nowhere"}, 1, "open /nowhere: no such file"},
		{[]string{"/proc/self/status"}, 1, "/proc/self/status: not a capture file"},
		{[]string{path, path}, 2, "decode: argument"},
	} {
		cmd := exec.Command("/proc/self/exe", append([]string{"decode"}, c.args...)...)
		cmd.Env = append(os.Environ(), asProgram+"=1")
		cmd.Stdin = file
		out, _ := cmd.CombinedOutput()
		if status := cmd.ProcessState.ExitCode(); status != c.status || !strings.Contains(string(out), c.want) {
			t.Errorf("decode %v: status %d\n%s", c.args, status, out)
		}
	}
}
