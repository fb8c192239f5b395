package wireguard_test

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"sixfour/transport"
	"sixfour/transport/wireguard"
)

// window is how many packets are on their way at most, so that none is lost.
const window = 256

// Packets through two ports over the loopback device, and through two plain devices. An
// operation is a packet that has been received.
func BenchmarkThroughput(b *testing.B) {
	for _, size := range []int{64, 1400} {
		in := inner("192.0.2.1", "192.0.2.2", make([]byte, size-28))
		b.Run(fmt.Sprintf("ports/%d", size), func(b *testing.B) { benchPorts(b, in) })
		b.Run(fmt.Sprintf("devices/%d", size), func(b *testing.B) { benchDevices(b, in) })
	}
}

func benchPorts(b *testing.B, in []byte) {
	var ends [2]*wireguard.Port
	up := make(chan struct{}, 10)
	for i := range ends {
		var err error
		ends[i], err = wireguard.Listen(wireguard.Config{
			PrivateKey: wireguard.NewPrivateKey(), Local: netip.MustParseAddrPort("127.0.0.1:0"),
			Connected: func(any, netip.AddrPort, error) { up <- struct{}{} },
		}, transport.Options{})
		must(b, err)
		defer ends[i].Close()
	}
	for i, e := range ends {
		other := ends[1-i]
		must(b, e.SetPeers([]transport.SessionPeer{{Remote: other.Local(), Settings: &wireguard.Settings{PublicKey: other.PublicKey()}}}))
	}
	<-up
	<-up
	tx, err := ends[0].Sender(transport.Options{})
	must(b, err)
	pkts := make([]transport.Packet, transport.BatchSize)
	for i := range pkts {
		pkts[i] = transport.Packet{Head: outer(ends[0].Local(), ends[1].Local(), len(in), 0), Body: in}
	}
	bufs, meta := make([][]byte, transport.BatchSize), make([]transport.Meta, transport.BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	credit, stop := make(chan int, 2*window), make(chan struct{})
	credit <- window
	var sending sync.WaitGroup
	sending.Go(func() {
		for n := 0; ; {
			select {
			case more := <-credit:
				n += more
			case <-stop:
				return
			}
			for n > 0 {
				sent, err := tx.Send(pkts[:min(n, len(pkts))])
				if err != nil {
					b.Error(err)
				}
				n -= sent
			}
		}
	})
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		got, err := ends[1].Receive(bufs, meta)
		must(b, err)
		n += got
		credit <- got
	}
	b.StopTimer()
	close(stop)
	sending.Wait()
}

// endless is an interface from which a device reads the same packet again and again.
type endless struct {
	packet []byte
	credit chan int // how many more packets to read
	left   int
	end    chan struct{}
	once   sync.Once
	got    chan int // of each Write
	events chan tun.Event
}

func (e *endless) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case <-e.end:
		return 0, os.ErrClosed
	case more := <-e.credit:
		e.left += more
	}
	n := min(e.left, len(bufs))
	for i := range n {
		sizes[i] = copy(bufs[i][offset:], e.packet)
	}
	if e.left -= n; e.left > 0 {
		select {
		case more := <-e.credit:
			e.credit <- more + e.left
		default:
			e.credit <- e.left
		}
		e.left = 0
	}
	return n, nil
}

func (e *endless) Write(bufs [][]byte, _ int) (int, error) {
	select {
	case e.got <- len(bufs):
	case <-e.end:
	}
	return len(bufs), nil
}

func (e *endless) File() *os.File           { return nil }
func (e *endless) MTU() (int, error)        { return 1420, nil }
func (e *endless) Name() (string, error)    { return "endless", nil }
func (e *endless) Events() <-chan tun.Event { return e.events }
func (e *endless) BatchSize() int           { return conn.IdealBatchSize }

func (e *endless) Close() error {
	e.once.Do(func() { close(e.end); close(e.events) })
	return nil
}

func benchDevices(b *testing.B, in []byte) {
	quiet := func(string, ...any) {}
	var devs [2]*device.Device
	var tuns [2]*endless
	var keys [2]wireguard.Secret
	var ports [2]int
	for i := range devs {
		keys[i] = wireguard.NewPrivateKey()
		tuns[i] = &endless{packet: in, credit: make(chan int, 2*window), end: make(chan struct{}), got: make(chan int, window), events: make(chan tun.Event)}
		devs[i] = device.NewDevice(tuns[i], conn.NewStdNetBind(), &device.Logger{Verbosef: quiet, Errorf: quiet})
		defer devs[i].Close()
		must(b, devs[i].IpcSet(fmt.Sprintf("private_key=%x\n", [32]byte(keys[i]))))
		must(b, devs[i].Up())
		answer, err := devs[i].IpcGet()
		must(b, err)
		ports[i] = listenPort(answer)
	}
	for i, d := range devs {
		public := keys[1-i].Public()
		must(b, d.IpcSet(fmt.Sprintf("public_key=%x\nendpoint=127.0.0.1:%d\nallowed_ip=0.0.0.0/0\n", public[:], ports[1-i])))
	}
	tuns[0].credit <- window
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		got := <-tuns[1].got
		n += got
		tuns[0].credit <- got
	}
	b.StopTimer()
}
