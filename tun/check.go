package tun

import "golang.org/x/sys/unix"

// Check returns nil if the kernel has a TUN device and this process may open it.
func Check() error {
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return explainOpen(err)
	}
	return unix.Close(fd)
}
