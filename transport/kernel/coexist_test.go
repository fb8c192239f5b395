package kernel_test

import (
	"bufio"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"sixfour/encap"
	"sixfour/encap/header"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport/kernel"
	"sixfour/transport/wiretest"
)

// counter attaches a program that counts packets and lets them go on, behind those that are
// attached already. It returns what it has counted.
func counter(t *testing.T, ns *rig.Namespace, device int, at ebpf.AttachType) (count func() uint64) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	rigtest.Must(t, err)
	t.Cleanup(func() { m.Close() })
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "MIT", Instructions: asm.Instructions{
		asm.StoreImm(asm.R10, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "end"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("end"), // TCX_NEXT
		asm.Return(),
	}})
	rigtest.Must(t, err)
	t.Cleanup(func() { prog.Close() })
	rigtest.Must(t, ns.Do(func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: device, Program: prog, Attach: at})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}))
	return func() (n uint64) {
		rigtest.Must(t, m.Lookup(uint32(0), &n))
		return n
	}
}

// plainPacket returns an inner packet that the programs carry, from the peer's side or to it.
func plainPacket() []byte {
	b := make([]byte, header.IPv4Len+28)
	b[0], b[8], b[9] = 0x45, 64, header.UDP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], []byte{10, 1, 0, 7})
	copy(b[16:], []byte{10, 1, 0, 7})
	header.IPv4(b).SetChecksum()
	return b
}

// TestOthers: packets that the programs do not carry reach the programs of others at the same
// devices; packets of a VLAN on the device, and frames to another host, are not carried.
func TestOthers(t *testing.T) {
	t.Parallel()
	mode, _ := encap.ModeByName("4in4")
	left, right := wiretest.Two(t)
	macLeft, macRight := neighbours(t, left, right, wiretest.Ends4)
	e := connect(t, left, mode.Between(ours), "10.1.0.1/24")
	behind := counter(t, left, e.device, ebpf.AttachTCXIngress)
	out := counter(t, left, e.tunnel, ebpf.AttachTCXEgress)
	inject := wiretest.Capture(t, right, "eth0")
	stack, err := encap.New(mode.Between(remote), 1500, encap.DefaultOptions, nil, encap.NewRecord())
	rigtest.Must(t, err)
	pkt, _ := wrap(stack, plainPacket())
	received := func() uint64 {
		c, err := e.program.Counts(thePeer)
		rigtest.Must(t, err)
		return c.Received.Packets
	}
	// after sends a frame, and one that is carried after it, by which the first one has arrived.
	want := uint64(0)
	after := func(frame []byte) (carried bool, passed uint64) {
		passed = behind()
		rigtest.Must(t, inject.Inject(frame))
		rigtest.Must(t, inject.Inject(rig.Ethernet(macLeft, macRight, 0x0800, pkt)))
		want++
		for ctx := wiretest.Soon(t); received() < want; {
			rigtest.Must(t, ctx.Err())
		}
		carried = received() > want
		want = received()
		return carried, behind() - passed
	}
	other := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	tagged := rig.Ethernet(macLeft, macRight, 0x8100, append([]byte{0, 7, 8, 0}, pkt...)) // VLAN 7
	foreign := append([]byte(nil), pkt...)
	foreign[15] ^= 1 // from no peer
	header.IPv4(foreign).SetChecksum()
	for _, c := range []struct {
		name    string
		frame   []byte
		carried bool
	}{
		{"from the peer", rig.Ethernet(macLeft, macRight, 0x0800, pkt), true},
		{"from a stranger", rig.Ethernet(macLeft, macRight, 0x0800, foreign), false},
		{"of a VLAN", tagged, false},
		{"to another host", rig.Ethernet(other, macRight, 0x0800, pkt), false},
	} {
		carried, passed := after(c.frame)
		if carried != c.carried || (passed == 0) != c.carried {
			t.Errorf("%s: carried: %v, the other program saw %d", c.name, carried, passed)
		}
	}
	before := out()
	toInterface := wiretest.Capture(t, left, "six0")
	rigtest.Must(t, toInterface.Inject(plainPacket()))
	if n := out() - before; n != 0 {
		t.Errorf("the other program at the interface saw %d packets that were carried", n)
	}
	multicast := plainPacket()
	multicast[16] = 224
	rigtest.Must(t, toInterface.Inject(multicast))
	if n := out() - before; n != 1 {
		t.Errorf("the other program at the interface saw %d packets, want the one that was not carried", n)
	}
}

// TestAttachRefused: a program is not attached to a device with another link-layer header.
func TestAttachRefused(t *testing.T) {
	t.Parallel()
	ns := wiretest.Alone(t)
	lo := index(t, ns, "lo")
	p := load(t, lo)
	rigtest.Must(t, ns.Do(func() error {
		for _, attach := range []func(int) (*kernel.Attachment, error){p.AttachDevice, p.AttachTunnel} {
			if _, err := attach(lo); err == nil || !strings.Contains(err.Error(), "attach BPF program to lo: it is a device of type") {
				t.Errorf("lo: %v", err)
			}
			if _, err := attach(1 << 20); err == nil {
				t.Error("a device that does not exist is accepted")
			}
		}
		return nil
	}))
}

// childDevice says to a process of TestKilled to which device it attaches the programs.
const childDevice = "SIXFOUR_KERNEL_TEST_DEVICE"

// TestKilled: nothing stays at the devices when the process is killed.
func TestKilled(t *testing.T) {
	if device := os.Getenv(childDevice); device != "" {
		index, err := strconv.Atoi(device)
		rigtest.Must(t, err)
		p, err := kernel.Load()
		rigtest.Must(t, err)
		_, err = p.AttachDevice(index)
		rigtest.Must(t, err)
		os.Stdout.WriteString("attached\n")
		select {}
	}
	t.Parallel()
	left, _ := wiretest.Two(t)
	device := index(t, left, "eth0")
	attached := func() (n int) {
		rigtest.Must(t, left.Do(func() error {
			r, err := link.QueryPrograms(link.QueryOptions{Target: device, Attach: ebpf.AttachTCXIngress})
			if err == nil {
				n = len(r.Programs)
			}
			return err
		}))
		return n
	}
	child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	child.Env = append(os.Environ(), childDevice+"="+strconv.Itoa(device))
	out, err := child.StdoutPipe()
	rigtest.Must(t, err)
	rigtest.Must(t, left.Start(child))
	t.Cleanup(func() { _ = child.Process.Kill() })
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "attached\n" {
		t.Fatalf("the process says %q", line)
	}
	if n := attached(); n != 1 {
		t.Errorf("%d programs are attached, want 1", n)
	}
	rigtest.Must(t, child.Process.Kill())
	_ = child.Wait()
	for ctx := wiretest.Soon(t); attached() > 0; { // the kernel closes the descriptors soon after
		if ctx.Err() != nil {
			t.Fatalf("%d programs are still attached", attached())
		}
	}
}
