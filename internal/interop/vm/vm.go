// Package vm runs an emulated machine (qemu) whose network card is a tap device in a
// namespace of a rig, and runs commands in it. Only its image is on disk, and nothing is
// left when the program ends.
package vm

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/rig"
)

// channels is how many commands can run at the same time.
const channels = 3

// Options describe the machine to start.
type Options struct {
	Kernel, Initrd string         // files that vm/build makes
	Namespace      *rig.Namespace // where the tap device is
	Tap            string         // its name; it has no addresses, and no IPv6
}

// VM is a running machine. Its network card is eth0 in it. Its methods may be called
// concurrently.
type VM struct {
	cmd     *exec.Cmd
	console rig.Log
	free    chan *channel
	all     []*channel
}

// channel is one serial port of the machine, with an agent of guest-init behind it.
// Requests and answers alternate.
type channel struct {
	conn net.Conn
	r    *bufio.Reader
}

// Boot starts the machine, and returns when it accepts commands. Close it after use.
func Boot(ctx context.Context, o Options) (*VM, error) {
	v := &VM{free: make(chan *channel, channels)}
	if err := v.start(o); err != nil {
		v.Close()
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	if _, err := v.Run(ctx, "true"); err != nil {
		err = fmt.Errorf("the machine did not come up: %w\nits console:\n%s", err, v.Console())
		v.Close()
		return nil, err
	}
	return v, nil
}

// start passes everything that qemu shares with us as descriptors: 3 is the tap device, and
// the others are ends of socket pairs.
func (v *VM) start(o Options) error {
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	tap, err := openTap(o.Namespace, o.Tap)
	if err != nil {
		return err
	}
	theirs = append(theirs, tap)
	// The emulator, not KVM: it is the same wherever the tests run. No offloads:
	// a capture shows packets as they would be on a wire.
	offloads := ",csum=off,gso=off,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off" +
		",host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off"
	args := []string{
		"-accel", "tcg,thread=multi", "-cpu", "max", "-m", "512", "-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", o.Kernel, "-initrd", o.Initrd, "-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-netdev", "tap,id=n0,fd=3", "-device", "virtio-net-pci,netdev=n0,romfile=,mac=02:00:00:00:00:01" + offloads,
		"-device", "virtio-serial-pci",
	}
	for i := range channels {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socketpair", err)
		}
		ours := os.NewFile(uintptr(fds[0]), "channel")
		theirs = append(theirs, os.NewFile(uintptr(fds[1]), "channel"))
		conn, err := net.FileConn(ours)
		ours.Close()
		if err != nil {
			return err
		}
		c := &channel{conn, bufio.NewReader(conn)}
		v.all = append(v.all, c)
		v.free <- c
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=c%d,fd=%d", i, 3+len(theirs)-1),
			"-device", fmt.Sprintf("virtserialport,chardev=c%d,name=ctl%d", i, i))
	}
	cmd := exec.Command("qemu-system-x86_64", args...)
	cmd.ExtraFiles = theirs
	cmd.Stdout, cmd.Stderr = &v.console, &v.console
	if err := o.Namespace.Start(cmd); err != nil {
		return err
	}
	v.cmd = cmd
	return nil
}

// openTap makes a tap device, which exists as long as its descriptor is open.
func openTap(n *rig.Namespace, name string) (*os.File, error) {
	var f *os.File
	err := n.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		f = os.NewFile(uintptr(fd), name)
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		return os.NewSyscallError("TUNSETIFF "+name, unix.IoctlIfreq(fd, unix.TUNSETIFF, req))
	})
	if err == nil {
		err = n.Sysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1")
	}
	if err == nil {
		err = n.LinkUp(name)
	}
	if err != nil && f != nil {
		f.Close()
	}
	return f, err
}

// ExitError is the error of a command that ran and failed.
type ExitError struct {
	Command string
	Status  int
	Stderr  string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("in the machine: %s: exit status %d: %s", e.Command, e.Status, strings.TrimSpace(e.Stderr))
}

// Run runs a shell command in the machine, and returns its standard output. Background
// processes of the command continue.
func (v *VM) Run(ctx context.Context, command string) (string, error) {
	seconds := 3600 // the agent then kills the command, if nothing waits for it any more
	if d, ok := ctx.Deadline(); ok {
		seconds = int(time.Until(d).Seconds()) + 1
	}
	request := fmt.Sprintf("%d %s", seconds, base64.StdEncoding.EncodeToString([]byte(command)))
	return v.call(ctx, command, "RUN", request, nil)
}

// Put copies a file into the machine, executable.
func (v *VM) Put(ctx context.Context, file, path string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	_, err = v.call(ctx, "write "+path, "PUT", fmt.Sprintf("%d 755 %s", len(b), path), b)
	return err
}

// call makes one request on a free channel. A channel that has failed is not used again,
// because its next output would be the answer to an earlier request.
func (v *VM) call(ctx context.Context, what, op, request string, data []byte) (string, error) {
	var c *channel
	select {
	case c = <-v.free:
	case <-ctx.Done():
		return "", fmt.Errorf("in the machine: %s: no free channel: %w", what, ctx.Err())
	}
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	status, stdout, stderr, err := c.exchange(op, request, data)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.conn.Close()
		return "", fmt.Errorf("in the machine: %s: %w", what, err)
	}
	v.free <- c
	if status != 0 {
		return stdout, &ExitError{what, status, stderr}
	}
	return stdout, nil
}

func (c *channel) exchange(op, request string, data []byte) (status int, stdout, stderr string, err error) {
	const id = "x" // one channel's requests never overlap
	if _, err = fmt.Fprintf(c.conn, "%s %s %s\n", op, id, request); err != nil {
		return 0, "", "", err
	}
	if _, err = c.conn.Write(data); err != nil {
		return 0, "", "", err
	}
	var outLen, errLen int
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return 0, "", "", err
		}
		if n, _ := fmt.Sscanf(line, "@@"+id+" %d %d %d\n", &status, &outLen, &errLen); n == 3 {
			break
		}
	}
	b := make([]byte, outLen+errLen)
	if _, err = io.ReadFull(c.r, b); err != nil {
		return 0, "", "", err
	}
	return status, string(b[:outLen]), string(b[outLen:]), nil
}

// Console returns the output of the machine and of qemu so far.
func (v *VM) Console() string { return v.console.String() }

// Close switches the machine off and removes its tap device.
func (v *VM) Close() {
	if v.cmd != nil {
		_ = v.cmd.Process.Kill()
		_ = v.cmd.Wait()
	}
	for _, c := range v.all {
		c.conn.Close()
	}
}
