// Guest is the rig's traffic code as a program, for the emulated machine: there
// it serves, or sends, what the rig on the other side sends or serves.
//
//	guest serve PORT      take TCP transfers and UDP exchanges, in the background once "ready" is printed
//	guest ping REQUEST    send, and print the result
//	guest tcp REQUEST
//	guest udp REQUEST
//	guest raw REQUEST
//
// Requests and results are JSON: see Request, and rig's results. Whatever was not
// even sent makes it fail.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"time"

	"sixfour/internal/rig"
)

// Request says what to send, and where.
type Request struct {
	To    netip.AddrPort // ping: any port
	Ping  rig.PingOptions
	Bytes int64 // tcp
	Sizes []int // udp
	UDP   rig.UDPOptions
	Raw   []byte // raw: a complete IPv4 packet
}

// patience ends what hangs.
const patience = 3 * time.Minute

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: guest serve PORT | ping REQUEST | tcp REQUEST | udp REQUEST | raw REQUEST")
	}
	if args[0] == "serve" {
		return serve(args[1])
	}
	var r Request
	if err := json.Unmarshal([]byte(args[1]), &r); err != nil {
		return fmt.Errorf("request %s: %w", args[1], err)
	}
	result, err := send(args[0], r)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func send(op string, r Request) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch op {
	case "ping":
		res, err := rig.Ping(ctx, nil, r.To.Addr(), r.Ping)
		return res, errors.Join(append(res.Errors, err)...)
	case "tcp":
		return rig.SendTCP(ctx, nil, r.To, r.Bytes)
	case "udp":
		ds, err := rig.SendUDP(ctx, nil, r.To, r.Sizes, r.UDP)
		for _, d := range ds {
			err = errors.Join(err, d.Err)
		}
		return ds, err
	case "raw":
		out, err := (*rig.Namespace)(nil).OpenRaw()
		if err != nil {
			return nil, err
		}
		defer out.Close()
		return nil, out.Send(r.Raw)
	}
	return nil, fmt.Errorf("what is %s?", op)
}

// serve listens on all addresses, until it is killed.
func serve(port string) error {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	everywhere := netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(n)) // IPv4 too
	l, err := (*rig.Namespace)(nil).ListenTCP(everywhere)
	if err != nil {
		return err
	}
	c, err := (*rig.Namespace)(nil).ListenUDP(everywhere)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	ended := make(chan error, 2)
	go func() { ended <- rig.ServeTCP(context.Background(), l) }()
	go func() { ended <- rig.ServeUDP(context.Background(), c) }()
	return <-ended
}
