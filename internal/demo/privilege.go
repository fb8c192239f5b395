package demo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
)

const tunPath = "/dev/net/tun"

// Prepare says whether this process may run the demonstration. If it may, run is
// true. Otherwise it has been run in a user namespace of its own, whose exit
// status is returned, or err says what to do.
func Prepare() (run bool, status int, err error) {
	if err := checkTun(); err != nil {
		return false, 0, err
	}
	if os.Geteuid() == 0 {
		return true, 0, nil
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGTERM,
	}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false, 0, nil
	case errors.As(err, &exit):
		return false, exit.ExitCode(), nil
	}
	return false, 0, fmt.Errorf("create a user namespace: %w: this user may not: run it as root (sudo sixfourctl demo), or permit user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)", err)
}

// checkTun tries the TUN device, without which nothing can be shown.
func checkTun() error {
	f, err := os.OpenFile(tunPath, os.O_RDWR, 0)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: run it as root (sudo sixfourctl demo), or open the device to this user (chmod 0666 %s)", err, tunPath)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		return fmt.Errorf("%w: load the tun module (modprobe tun) or create the node (mkdir -p /dev/net && mknod %s c 10 200), as root", err, tunPath)
	}
	return err
}
