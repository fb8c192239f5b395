// Package interop holds tests of the daemon against the tunnels of a real Linux
// kernel, which runs in an emulated machine:
//
//	namespace of this machine               | machine under qemu
//	 six0 ── sixfourd ── tap0 203.0.113.2 ──┼── eth0 203.0.113.1 ── sit, ipip, gre, ip6tnl, ip6gre
//	                          fd00::2     ──┼──      fd00::1
//
// Some tests have it otherwise: they put routers with a narrow link between the
// two, or run a second sixfourd inside the machine.
//
// The machine boots once. Devices are made and removed in it for each case, by
// one batch of commands, so that a case costs a few seconds: there are many.
//
// The tests have the build tag interop, because they need programs and a kernel of
// Debian's, which the script fetch gets ("make interop" does it all). With
// go test -v their output reads as a report. The emulated machine is slow: what
// is measured says that it works, and nothing about speed.
package interop
