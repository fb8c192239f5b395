package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const vxlanPort = 4789 // RFC 7348

func kernelVersion(context.Context, string) (string, error) {
	var u unix.Utsname
	err := unix.Uname(&u)
	return "Linux " + unix.ByteSliceToString(u.Release[:]), err
}

// vxlanUp makes a VXLAN tunnel, which most kernels support.
func vxlanUp(ctx context.Context, l *lab) error {
	for i, ns := range l.ns {
		dev, err := ns.Handle().LinkByName(wire)
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = tunnel
		err = ns.Handle().LinkAdd(&netlink.Vxlan{
			LinkAttrs: attrs, VxlanId: 7, VtepDevIndex: dev.Attrs().Index,
			SrcAddr: outer[i].AsSlice(), Group: outer[1-i].AsSlice(), Port: vxlanPort, Learning: true,
		})
		if errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("add vxlan device: %w: load the module vxlan, or use a kernel that has it", err)
		}
		if err != nil {
			return fmt.Errorf("add vxlan device: %w", err)
		}
	}
	return l.configure(ctx, [2]string{tunnel, tunnel})
}
