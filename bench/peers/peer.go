package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// kind is a property of a peer that must be shown with all of its figures.
type kind string

const (
	plain    kind = "plain"    // no tunnel
	kernel   kind = "kernel"   // a tunnel inside the kernel
	ours     kind = "ours"     // sixfourd
	open     kind = "open"     // user space, no encryption here
	encrypts kind = "encrypts" // user space, encrypts
)

// peer is a tunnel program that carries packets from one namespace to the other.
type peer struct {
	name string
	kind kind
	// prepare is called once. It finds the program, or builds it in the directory
	// programs, and returns its version.
	prepare func(ctx context.Context, programs string) (version string, err error)
	// up makes the tunnel. If it is nil, there is no tunnel, and the wire itself is
	// measured.
	up func(ctx context.Context, l *lab) error
}

// base is the peer to which the others are compared.
const base = "wireguard-go"

// peers returns all peers, in the order of their turns.
func peers() []peer {
	return slices.Concat([]peer{
		{"veth", plain, kernelVersion, nil},
		{"vxlan", kernel, kernelVersion, vxlanUp},
	}, sixfourPeers(), []peer{
		{base, encrypts, wireguardPrepare, wireguardUp},
		{"nebula", encrypts, nebulaPrepare, nebulaUp},
		{"openvpn", open, openvpnPrepare, openvpnUp},
		{"fastd", open, fastdPrepare, fastdUp},
		{"tinc", open, tincPrepare, tincUp},
		{"socat", open, socatPrepare, socatUp},
	})
}

// choose returns the named peers, in the order of all.
func choose(all []peer, names string) ([]peer, error) {
	if names == "" {
		return all, nil
	}
	var chosen []peer
	wanted := strings.Split(names, ",")
	for _, p := range all {
		if slices.Contains(wanted, p.name) {
			chosen = append(chosen, p)
		}
	}
	for _, name := range wanted {
		if !slices.ContainsFunc(all, func(p peer) bool { return p.name == name }) {
			return nil, fmt.Errorf("-peers: no peer %q: there are %s", name, strings.Join(peerNames(all), ", "))
		}
	}
	return chosen, nil
}

func peerNames(ps []peer) []string {
	var names []string
	for _, p := range ps {
		names = append(names, p.name)
	}
	return names
}

// installed finds a program that a package installs, and its version, by running it with
// an argument. It ignores the exit status, which varies, and reads the output.
func installed(ctx context.Context, pkg, program, arg, pattern string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%w: run bench/peers/fetch, or apt-get install %s", err, pkg)
	}
	out, err := run(ctx, nil, path, arg)
	if m := regexp.MustCompile(pattern).FindStringSubmatch(out); m != nil {
		return m[1], nil
	}
	if err == nil {
		err = fmt.Errorf("%s %s: no version in %q", program, arg, out)
	}
	return "", err
}
