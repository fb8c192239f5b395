package e2e

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sixfour/internal/api"
	"sixfour/internal/rig"
)

// web has the files of a server: a certificate for gw.example with its key, and the
// certificate of the authority that has signed it. They belong to a user.
type web struct {
	dir, cert, key, ca string
	uid                int
}

func newWeb(t *testing.T, uid int) *web {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755)) // other users may pass
	w := &web{dir, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem"), uid}
	w.renew(t)
	return w
}

// write writes a file for the user, in one step.
func (w *web) write(t *testing.T, path string, content []byte) {
	t.Helper()
	must(t, os.WriteFile(path+".new", content, 0o600))
	must(t, os.Chown(path+".new", w.uid, w.uid))
	must(t, os.Rename(path+".new", path))
}

// renew replaces the certificate, the key and the authority.
func (w *web) renew(t *testing.T) {
	t.Helper()
	c, err := rig.NewCertificate("gw.example")
	must(t, err)
	w.write(t, w.ca, c.CA)
	w.write(t, w.cert, c.Cert)
	w.write(t, w.key, c.Key)
}

// lines returns the lines of a path at the end that listens, and at the other one, with a
// secret of their own.
func (w *web) lines(t *testing.T) (listens, arrives string) {
	t.Helper()
	secret := filepath.Join(w.dir, rand.Text())
	w.write(t, secret, []byte(rand.Text()+"\n"))
	return fmt.Sprintf("encap = \"https\"\nlisten = true\nlocal_port = 443\ncertificate = %q\nkey = %q\nsecret_file = %q\n", w.cert, w.key, secret),
		fmt.Sprintf("encap = \"https\"\nurl = \"https://gw.example\"\nca = %q\nsecret_file = %q\n", w.ca, secret)
}

// nftTCP gives connections over TCP other ports at the NAT than UDP has.
func nftTCP(t *testing.T, n *rig.Namespace) {
	t.Helper()
	command(t, n, "nft", `table ip nattcp {
		chain out { type nat hook postrouting priority 101; oifname "na" meta l4proto tcp snat to 203.0.113.20:50000-59999; }
	}
	table ip filtered {
		chain forward { type filter hook forward priority 0; }
	}`)
}

// farLater is like far, for what may take longer than a test is patient otherwise.
func (d *daemon) farLater(t *testing.T, least, most uint16) {
	t.Helper()
	for end := time.Now().Add(4 * patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if _, s := d.status(t); s.State.Port >= least && s.State.Port <= most && s.State.Phase == api.Up {
			return
		}
	}
	_, s := d.status(t)
	t.Fatalf("the peer is %s at port %d: %s", s.State.Phase, s.State.Port, s.State.Detail)
}

// A client behind a NAT is up over HTTP/3. When UDP is filtered, it changes to TCP, and
// back when the filter is gone. Either end may restart.
func TestHTTPS(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	nftTCP(t, s.n)
	listens, arrives := newWeb(t, 0).lines(t)
	a := start(t, s.a, listening(listens))
	b := start(t, s.b, arriving(arrives))
	a.far(t, "203.0.113.20", 20000, 29999) // UDP
	b.phase(t, api.Up)
	pings(t, s.b, inA, rig.PingOptions{})
	pings(t, s.a, inB, rig.PingOptions{Size: 1280})
	transfer(t, s.b, s.a, inA, 1<<20)

	command(t, s.n, "nft", `add rule ip filtered forward meta l4proto udp drop`)
	a.farLater(t, 50000, 59999) // TCP
	b.wait(t, "TCP, by HTTP/1.1")
	reachable(t, s.b, inA)
	pings(t, s.a, inB, rig.PingOptions{Size: 1280})
	transfer(t, s.b, s.a, inA, 1<<20)
	command(t, s.n, "nft", `flush chain ip filtered forward`)
	a.farLater(t, 20000, 29999)
	pings(t, s.b, inA, rig.PingOptions{})

	a.end(t, syscall.SIGTERM)
	a = start(t, s.a, listening(listens))
	a.farLater(t, 1, 65535)
	reachable(t, s.b, inA)
	b.end(t, syscall.SIGTERM)
	b = start(t, s.b, arriving(arrives))
	b.phase(t, api.Up)
	reachable(t, s.a, inB)
}

// Several clients use one port, each with a secret of its own. One whose secret is another's
// or nobody's gets nowhere. A certificate that is renewed in place is used for new
// connections, and those that are there stay.
func TestHTTPSHub(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	nftTCP(t, s.n)
	w := newWeb(t, 0)
	hub := "[[tunnel]]\nname = \"six0\"\nmode = \"4in4\"\nlocal = \"203.0.113.10\"\naddress = [\"10.0.0.1/24\"]\nkeepalive = \"1s\"\n"
	client := func(i int, arrives string) string {
		return fmt.Sprintf("[[tunnel]]\nname = \"six0\"\nmode = \"4in4\"\nlocal = \"auto\"\nremote = \"203.0.113.10\"\naddress = [\"10.0.0.%d/24\"]\nkeepalive = \"1s\"\n[[tunnel.path]]\n%s", i+2, arrives)
	}
	var clients []string
	for i, n := range []*rig.Namespace{s.b, s.c} {
		listens, arrives := w.lines(t)
		hub += fmt.Sprintf("[[tunnel.peer]]\nname = %q\nallowed = [\"10.0.0.%d/32\"]\n[[tunnel.peer.path]]\n%s", n.Name(), i+2, listens)
		clients = append(clients, client(i, arrives))
	}
	a := start(t, s.a, hub)
	b, c := launch(t, s.b, clients[0]), launch(t, s.c, clients[1])
	for i, n := range []*rig.Namespace{s.b, s.c} {
		reachable(t, n, inA)
		reachable(t, s.a, netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 2)}))
	}
	since := func() uint16 {
		_, status := a.status(t)
		return status.Peers[0].State.Port
	}
	before := since()

	w.renew(t) // the former authority is gone, too
	c.end(t, syscall.SIGTERM)
	time.Sleep(6 * time.Second) // the listener looks at its files every 5 seconds
	c = launch(t, s.c, clients[1])
	reachable(t, s.c, inA)
	pings(t, s.b, inA, rig.PingOptions{})
	if now := since(); now != before {
		t.Errorf("b was at port %d, and is at %d", before, now)
	}
	b.phase(t, api.Up)

	c.end(t, syscall.SIGTERM)
	_, wrong := w.lines(t) // nobody has this secret
	c = launch(t, s.c, client(1, wrong))
	c.wait(t, "401")
	c.end(t, syscall.SIGTERM)
	other := newWeb(t, 0) // whose authority has not signed the certificate
	c = launch(t, s.c, strings.Replace(clients[1], w.ca, other.ca, 1))
	c.wait(t, "name the file with the certificate of its authority in ca")
	c.end(t, syscall.SIGTERM)
	c = launch(t, s.c, strings.Replace(clients[1], "gw.example", "other.example", 1))
	c.wait(t, "is for another name")
	pings(t, s.b, inA, rig.PingOptions{})
}

// A peer whose secret cannot be used does not keep the others of the port out.
func TestHTTPSOneSecretWrong(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	nftTCP(t, s.n)
	w := newWeb(t, 0)
	listens, arrives := w.lines(t)
	bad, _ := w.lines(t)
	file := regexp.MustCompile(`secret_file = "(.*)"`).FindStringSubmatch(bad)[1]
	must(t, os.Chmod(file, 0o644))
	second := strings.NewReplacer("six0", "six1", "fc00:", "fc01:", "10.0.0.", "10.0.1.").Replace(listening(bad))
	a := launch(t, s.a, listening(listens)+second)
	start(t, s.b, arriving(arrives))
	reachable(t, s.b, inA)
	a.wait(t, "chmod 600")
	if log := a.log.String(); strings.Contains(log, "0xc0") || strings.Contains(log, "&{") {
		t.Errorf("a message has a structure in it:\n%s", log)
	}
	must(t, os.Chmod(file, 0o600))
	if r := a.reload(t, listening(listens)+second); r.Error != "" {
		t.Error(r.Error)
	}
	pings(t, s.b, inA, rig.PingOptions{})
}

// Both ends run as another user than root, with nothing but the files that they need: the
// port below 1024 is open, connections are made again, and a certificate that was renewed is
// read, though it belongs to that user only.
func TestHTTPSRestricted(t *testing.T) {
	t.Parallel()
	const uid = 64322
	h := newHosts(t, 1500)
	w := newWeb(t, uid)
	tun := filepath.Join(w.dir, "tun")
	must(t, unix.Mknod(tun, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))))
	must(t, os.Chmod(tun, 0o666)) // as udev makes it
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(w.dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	users := map[string]string{
		"/etc/passwd":  file("passwd", fmt.Sprintf("root:x:0:0::/:/bin/sh\nsixfour:x:%d:%d::/:/bin/false\n", uid, uid)),
		"/etc/group":   file("group", fmt.Sprintf("root:x:0:\nsixfour:x:%d:\n", uid)),
		"/dev/net/tun": tun,
	}
	launch := func(ns *rig.Namespace, config string) *daemon {
		t.Helper()
		dir := filepath.Join(w.dir, rand.Text())
		must(t, os.Mkdir(dir, 0o755))
		d := &daemon{socket: filepath.Join(dir, "run", "control.sock"), config: filepath.Join(dir, "sixfour.toml"), done: make(chan error, 1)}
		d.write(t, config)
		must(t, os.Chown(d.config, uid, uid))
		d.cmd = exec.Command(program, "-config", d.config)
		d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
		must(t, ns.StartWith(d.cmd, users))
		go func() { d.done <- d.cmd.Wait() }()
		t.Cleanup(func() {
			d.end(t, syscall.SIGKILL)
			if t.Failed() {
				t.Logf("log of the daemon in %s:\n%s", ns.Name(), d.log.String())
			}
		})
		d.wait(t, "ready")
		if s, _ := d.status(t); s.Sandbox.User != "sixfour" || len(s.Sandbox.Missing) > 0 {
			t.Errorf("%+v", s.Sandbox)
		}
		return d
	}
	listens, arrives := w.lines(t)
	a := launch(h.a, listening(listens))
	b := launch(h.b, arriving(arrives))
	b.phase(t, api.Up)
	pings(t, h.b, inA, rig.PingOptions{})

	a.end(t, syscall.SIGTERM)
	a = launch(h.a, listening(listens))
	a.farLater(t, 1, 65535) // b has connected again
	reachable(t, h.b, inA)
	w.renew(t)
	time.Sleep(6 * time.Second) // the listener looks at its files every 5 seconds
	b.end(t, syscall.SIGTERM)
	b = launch(h.b, arriving(arrives))
	b.phase(t, api.Up)
	pings(t, h.a, inB, rig.PingOptions{})
}

// docBlock returns a block of a page of the manual.
func docBlock(t *testing.T, page, kind string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/" + page)
	must(t, err)
	m := regexp.MustCompile("(?s)```" + kind + "\n(.*?)```").FindSubmatch(b)
	if m == nil {
		t.Fatalf("%s has no block of %s", page, kind)
	}
	return string(m[1])
}

// serve runs a program of Debian in a namespace until the test ends.
func serve(t *testing.T, ns *rig.Namespace, path string, args ...string) {
	t.Helper()
	cmd := exec.Command(path, args...)
	var log rig.Log
	cmd.Stdout, cmd.Stderr = &log, &log
	must(t, ns.Start(cmd))
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", path, log.String())
		}
	})
}

// A network in which only an HTTP proxy is reachable, and a web server that passes the tunnel
// on, with the configuration that the manual shows for it:
//
//	a 203.0.113.10/24 va ─── na n nb ─── vb b 192.168.9.2/24
//	sixfourd, nginx             tinyproxy
func TestHTTPSThroughProxies(t *testing.T) {
	t.Parallel()
	a, n, b := newNamespace(t, "a"), newNamespace(t, "n"), newNamespace(t, "b")
	must(t, rig.Veth(a, "va", n, "na", 1500))
	must(t, rig.Veth(n, "nb", b, "vb", 1500))
	for _, l := range []struct {
		ns        *rig.Namespace
		dev, addr string
	}{{a, "va", "203.0.113.10/24"}, {n, "na", "203.0.113.20/24"}, {n, "nb", "192.168.9.1/24"}, {b, "vb", "192.168.9.2/24"}} {
		must(t, l.ns.AddAddr(l.dev, netip.MustParsePrefix(l.addr)))
		must(t, l.ns.LinkUp(l.dev))
	}
	must(t, b.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.168.9.1"), "vb")) // n does not forward

	w := newWeb(t, 0)
	listens, arrives := w.lines(t)
	site := strings.NewReplacer("gw.example.com", "gw.example", "/etc/nginx/gw.pem", w.cert, "/etc/nginx/gw.key", w.key).Replace(docBlock(t, "encap/https.md", "nginx"))
	conf := filepath.Join(w.dir, "nginx.conf")
	w.write(t, conf, []byte("daemon off; master_process off; user root; pid "+w.dir+"/pid; error_log stderr;\nevents {}\nhttp {\naccess_log off;\n"+site+"}\n"))
	serve(t, a, "/usr/sbin/nginx", "-c", conf)
	proxy := filepath.Join(w.dir, "tinyproxy.conf")
	w.write(t, proxy, []byte("Port 3128\nListen 192.168.9.1\nTimeout 600\nBasicAuth user password\nConnectPort 443\n"))
	serve(t, n, "/usr/bin/tinyproxy", "-d", "-c", proxy)

	behind := regexp.MustCompile(`(?m)^(local_port|certificate|key) = .*\n`).ReplaceAllString(listens, "") + "local = \"127.0.0.1\"\nlocal_port = 8443\nurl = \"/tunnel\"\n"
	start(t, a, listening(behind))
	through := strings.Replace(arrives, "https://gw.example", "https://gw.example/tunnel", 1) + "proxy = \"http://user:password@192.168.9.1:3128\"\n"
	d := start(t, b, arriving(through))
	d.phase(t, api.Up)
	reachable(t, b, inA)
	reachable(t, a, inB)
	pings(t, a, inB, rig.PingOptions{Size: 1280})
	transfer(t, b, a, inA, 1<<20)
	d.end(t, syscall.SIGTERM)
	d = launch(t, b, arriving(strings.Replace(through, "user:password", "user:other", 1)))
	d.wait(t, "the proxy answers 40")
	if strings.Contains(d.log.String(), "user:other") {
		t.Error("the log has the password")
	}
}
