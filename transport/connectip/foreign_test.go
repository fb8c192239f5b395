package connectip

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	foreign "github.com/quic-go/connect-ip-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"

	"sixfour/transport"
	"sixfour/transport/netsock"
)

// Addresses of the foreign end: it only passes packets between addresses that were assigned
// or advertised.
var (
	assigned = netip.MustParsePrefix("2001:db8:a::/64")
	routed   = netip.MustParsePrefix("2001:db8:b::/64")
)

// between returns a packet from one prefix to the other.
func between(from, to netip.Prefix, size int) []byte {
	b := inner(size, 5)
	copy(b[8:], from.Addr().Next().AsSlice())
	copy(b[24:], to.Addr().Next().AsSlice())
	return b
}

// hopped returns a packet as connect-ip-go sends it: with a lower hop limit.
func hopped(b []byte) []byte {
	c := append([]byte(nil), b...)
	c[7]--
	return c
}

// A client of connect-ip-go gets an address and routes from us.
func TestForeignClient(t *testing.T) {
	a := newAuthority(t)
	server := open(t, Config{Certificate: a.certificate(name, time.Now().Add(time.Hour))})
	settings := &Settings{Path: "/masque", Secret: []byte(secret), Assign: []netip.Prefix{assigned}, Routes: []netip.Prefix{routed}}
	if err := server.SetPeers([]transport.SessionPeer{{ID: "client", Settings: settings}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	config := &tls.Config{RootCAs: a.pool(), ServerName: name, NextProtos: []string{http3.NextProtoH3}}
	q, err := quic.DialAddr(ctx, server.Local().String(), config, &quic.Config{EnableDatagrams: true, InitialPacketSize: packetSize})
	if err != nil {
		t.Fatal(err)
	}
	defer q.CloseWithError(0, "")
	request, err := foreign.NewRequest(ctx, uritemplate.MustNew("https://"+name+"/masque"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header().Set("Authorization", "Bearer "+secret)
	c, _, err := foreign.NewClientConn((&http3.Transport{EnableDatagrams: true}).NewClientConn(q)).Dial(request)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	from := server.up("client")
	if got, err := c.ReceiveAddressAssignment(ctx); err != nil || len(got) != 1 || got[0].IPPrefix != assigned {
		t.Errorf("assigned without a request: %v, %v", got, err)
	}
	ids, err := c.RequestAddresses(prefixes("::/64", "0.0.0.0/32"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.ReceiveAddressAssignment(ctx)
	if err != nil || len(got) != 2 || got[0].RequestID != ids[0] || got[0].IPPrefix != assigned || got[1].RequestID != ids[1] || !got[1].Rejected() {
		t.Errorf("assigned: %v, %v", got, err)
	}
	if routes, err := c.Routes(ctx); err != nil || len(routes) != 1 || routes[0].StartIP != routed.Addr() || routes[0].EndIP != last(routed) {
		t.Errorf("routes: %v, %v", routes, err)
	}
	for _, size := range []int{60, 1280} {
		pkt := between(assigned, routed, size)
		if icmp, err := c.WritePacket(append([]byte(nil), pkt...)); err != nil || icmp != nil {
			t.Fatalf("%x, %v", icmp, err)
		}
		if got := wait(t, server.packets, "the client's packet"); string(got[28:]) != string(hopped(pkt)) {
			t.Errorf("the packet of %d bytes has changed", size)
		}
		back := between(routed, assigned, size)
		if err := server.sender.SendOne(to(from, server.Local(), back)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1500)
		if n, err := c.ReadPacket(b); err != nil || string(b[:n]) != string(back) {
			t.Errorf("the packet of %d bytes has changed, %v", size, err)
		}
	}
	if err := c.AdvertiseRoute([]foreign.IPRoute{{StartIP: assigned.Addr(), EndIP: last(assigned)}}); err != nil {
		t.Fatal(err)
	}
	until(t, "the advertisement", func() bool {
		s, _ := server.State("client")
		return len(s.Routes) == 1 && s.Routes[0].From == assigned.Addr()
	})
	c.Close()
	t.Log(server.down("client"))
}

// Our client gets an address from a server of connect-ip-go.
func TestForeignServer(t *testing.T) {
	a := newAuthority(t)
	conns := make(chan *foreign.Conn, 1)
	template := uritemplate.MustNew("https://" + name + "/masque")
	s := http3.Server{
		TLSConfig:       http3.ConfigureTLSConfig(&tls.Config{GetCertificate: a.certificate(name, time.Now().Add(time.Hour))}),
		QUICConfig:      &quic.Config{EnableDatagrams: true, InitialPacketSize: packetSize},
		EnableDatagrams: true,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			request, err := foreign.ParseProxyRequest(r, template)
			if err != nil || r.Header.Get("Authorization") != "Bearer "+secret {
				t.Errorf("the request: %v, %v", r.Header, err)
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			c, err := (&foreign.Proxy{}).Proxy(w, request)
			if err != nil {
				t.Error(err)
				return
			}
			conns <- c
		}),
	}
	socket, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.Serve(socket)
	}()
	defer func() {
		s.Close()
		socket.Close()
		<-served
	}()
	at := netsock.AddrPort(socket.LocalAddr())
	client := open(t, Config{})
	settings := &Settings{
		Path: "/masque", Secret: []byte(secret), ServerName: name, Roots: a.pool(),
		Request: prefixes("::/64"), Routes: []netip.Prefix{assigned},
	}
	if err := client.SetPeers([]transport.SessionPeer{{ID: "server", Remote: at, Settings: settings}}); err != nil {
		t.Fatal(err)
	}
	client.up("server")
	c := wait(t, conns, "the connection")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	request, err := c.ReceiveAddressRequest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := request.Respond([]netip.Prefix{assigned}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.AdvertiseRoute([]foreign.IPRoute{{StartIP: routed.Addr(), EndIP: last(routed)}}); err != nil {
		t.Fatal(err)
	}
	until(t, "the assignment", func() bool {
		s, _ := client.State("server")
		return len(s.Assigned) == 1 && s.Assigned[0] == assigned && len(s.Routes) == 1
	})
	if _, err := c.Routes(ctx); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{60, 1280} {
		pkt := between(assigned, routed, size)
		if err := client.sender.SendOne(to(at, client.Local(), pkt)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1500)
		if n, err := c.ReadPacket(b); err != nil || string(b[:n]) != string(pkt) {
			t.Errorf("the packet of %d bytes has changed, %v", size, err)
		}
		back := between(routed, assigned, size)
		if icmp, err := c.WritePacket(append([]byte(nil), back...)); err != nil || icmp != nil {
			t.Fatalf("%x, %v", icmp, err)
		}
		if got := wait(t, client.packets, "the server's packet"); string(got[28:]) != string(hopped(back)) {
			t.Errorf("the packet of %d bytes has changed", size)
		}
	}
	c.Close()
	t.Log(client.down("server"))
}

// program starts a program that Debian ships, and ends it with the test.
func program(t *testing.T, pkg, path string, args ...string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: install Debian's package %s", err, pkg)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with its children
		cmd.Wait()
		log.Close()
		if t.Failed() {
			out, _ := os.ReadFile(log.Name())
			t.Logf("%s", out)
		}
	})
}

// free returns a TCP port that nothing uses.
func free(t *testing.T) netip.AddrPort {
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netsock.AddrPort(l.Addr())
}

// listens waits until something listens.
func listens(t *testing.T, at netip.AddrPort) {
	until(t, "the start", func() bool {
		c, err := net.Dial("tcp", at.String())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// A reverse proxy ends TLS and passes the upgrade.
func TestBehindNginx(t *testing.T) {
	a := newAuthority(t)
	dir, at := t.TempDir(), free(t)
	if err := os.Chmod(dir, 0o755); err != nil { // for nginx's own user
		t.Fatal(err)
	}
	server := open(t, Config{Plain: true})
	if err := server.SetPeers([]transport.SessionPeer{{ID: "client", Settings: &Settings{Path: defaultPath, Secret: []byte(secret)}}}); err != nil {
		t.Fatal(err)
	}
	cert := a.make(name, time.Now().Add(time.Hour))
	key, err := x509.MarshalECPrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`daemon off; worker_processes 1; pid %[1]s/pid; error_log stderr;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  server {
    listen %[2]v ssl;
    ssl_certificate %[1]s/cert.pem; ssl_certificate_key %[1]s/key.pem; ssl_protocols TLSv1.3;
    location /.well-known/masque/ {
      proxy_pass http://%[3]v;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
      proxy_read_timeout 60s;
    }
  }
}
`, dir, at, server.Local())
	for file, content := range map[string]string{
		"nginx.conf": config,
		"cert.pem":   string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})),
		"key.pem":    string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key})),
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program(t, "nginx-light", "/usr/sbin/nginx", "-c", filepath.Join(dir, "nginx.conf"))
	listens(t, at)
	client := open(t, Config{})
	settings := &Settings{Path: defaultPath, Secret: []byte(secret), ServerName: name, Roots: a.pool()} // nginx has no UDP port
	if err := client.SetPeers([]transport.SessionPeer{{ID: "server", Remote: at, Settings: settings}}); err != nil {
		t.Fatal(err)
	}
	client.up("server")
	from := server.up("client")
	for _, size := range []int{60, 1500, 9000} {
		exchange(client, at, server, from, inner(size, 1))
		exchange(server, from, client, at, inner(size, 2))
	}
	wrong := *settings
	wrong.Secret = []byte("another-secret-0")
	other := open(t, Config{})
	if err := other.SetPeers([]transport.SessionPeer{{ID: "server", Remote: at, Settings: &wrong}}); err != nil {
		t.Fatal(err)
	}
	if err := other.down("server"); !strings.Contains(err.Error(), "401") {
		t.Error(err)
	}
	if err := server.SetPeers(nil); err != nil {
		t.Fatal(err)
	}
	client.down("server")
}

// An HTTP proxy passes the connection on to the server, if the password is right.
func TestThroughProxy(t *testing.T) {
	a := newAuthority(t)
	server := open(t, Config{Certificate: a.certificate(name, time.Now().Add(time.Hour))})
	if err := server.SetPeers([]transport.SessionPeer{{ID: "client", Settings: &Settings{Path: defaultPath, Secret: []byte(secret)}}}); err != nil {
		t.Fatal(err)
	}
	at, file := free(t), filepath.Join(t.TempDir(), "tinyproxy.conf")
	config := fmt.Sprintf("Port %d\nListen 127.0.0.1\nTimeout 600\nAllow 127.0.0.1\nBasicAuth user pass\nLogLevel Info\nMaxClients 10\nConnectPort %d\n", at.Port(), server.Local().Port())
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	program(t, "tinyproxy-bin", "/usr/bin/tinyproxy", "-d", "-c", file)
	listens(t, at)
	through := func(user *url.Userinfo, host string) *end {
		client := open(t, Config{})
		proxy := &url.URL{Scheme: "http", Host: fmt.Sprintf("%s:%d", host, at.Port()), User: user}
		settings := &Settings{Path: defaultPath, Secret: []byte(secret), ServerName: name, Roots: a.pool(), Proxy: proxy}
		if err := client.SetPeers([]transport.SessionPeer{{ID: "server", Remote: server.Local(), Settings: settings}}); err != nil {
			t.Fatal(err)
		}
		return client
	}
	for _, host := range []string{"127.0.0.1", "localhost"} {
		client := through(url.UserPassword("user", "pass"), host)
		client.up("server")
		from := server.up("client")
		for _, size := range []int{60, 1500} {
			exchange(client, server.Local(), server, from, inner(size, 1))
			exchange(server, from, client, server.Local(), inner(size, 2))
		}
	}
	for _, user := range []*url.Userinfo{nil, url.UserPassword("user", "other")} {
		if err := through(user, "127.0.0.1").down("server"); !strings.Contains(err.Error(), "the proxy answers 4") || strings.Contains(err.Error(), "other") {
			t.Error(err)
		}
	}
}
