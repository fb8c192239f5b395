package kernel_test

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/encap"
	"sixfour/internal/rig"
	"sixfour/internal/rig/rigtest"
	"sixfour/transport/kernel"
	"sixfour/transport/wiretest"
)

// TestSwitch: packets are neither lost nor carried twice while the programs are told again and
// again to carry a peer's packets, and not to.
func TestSwitch(t *testing.T) {
	t.Parallel()
	mode, _ := encap.ModeByName("6in4")
	left, right := wiretest.Two(t)
	a := connect(t, left, mode.Between(ours), "2001:db8:1::1/64")
	b := connect(t, right, mode.Between(remote), "2001:db8:1::2/64")
	// Without this, a veth device leaves the checksum to the receiver, whose kernel knows that it
	// is not there yet; but a process that receives the packet by a socket does not.
	rigtest.Must(t, left.Ethtool("eth0", unix.ETHTOOL_STXCSUM, 0))
	h, err := a.stack.Headers(6)
	rigtest.Must(t, err)
	wiretest.Settle(t, left, netip.MustParseAddr("2001:db8:1::2"))
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for on := true; ; on = !on {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			var err error
			if on {
				err = a.program.StopSending(thePeer, 6)
				if err == nil {
					err = b.program.StopReceiving(mode.Between(remote))
				}
			} else {
				err = a.program.Send(thePeer, 6, kernel.Hop{Device: a.device}, h)
				if err == nil {
					err = b.program.Receive(thePeer, b.tunnel, mode.Between(remote))
				}
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	r, err := rig.Load(wiretest.Soon(t), left, right, netip.MustParseAddrPort("[2001:db8:1::2]:7000"), rig.LoadOptions{
		UDP: true, Duration: 700 * time.Millisecond, Rate: 5000, Size: 200,
	})
	close(stop)
	running.Wait()
	rigtest.Must(t, err)
	if r.Received != r.Sent-r.Overrun || r.Sent < 1000 {
		t.Errorf("%d of %d packets arrived", r.Received, r.Sent)
	}
	sent, err := a.program.Counts(thePeer)
	rigtest.Must(t, err)
	received, err := b.program.Counts(thePeer)
	rigtest.Must(t, err)
	byProcess := uint64(a.packets.Load())
	if sent.Sent.Packets < 100 || byProcess < 100 || received.Received.Packets < 100 {
		t.Errorf("%d packets were sent in the kernel, and %d received; the process has sent %d", sent.Sent.Packets, received.Received.Packets, byProcess)
	}
}
