// Package engine runs the life cycle of tunnels: it makes their interfaces and
// sockets, runs a goroutine for each direction, and follows what changes around
// them.
//
// A panic in a goroutine that handles data from outside (packets, ICMP errors,
// neighbour discovery, answers to probes) costs only the data being handled. The
// goroutine recovers, replaces the state that may be half changed, and continues; the
// packet is counted as drop.InternalError and the tunnel's repairs count a panic (see
// package recovery). The alternative would be to end the process and let the next one
// adopt the stored descriptors. The sender of a single packet could then stop all tunnels for a
// second, as often as it liked, and permanently where no service manager stores
// descriptors. A panic in the control loop does end the process: the loop's state
// belongs to all tunnels and cannot be replaced.
//
// # Order of locks
//
// A goroutine that holds a lock may take only locks that stand after it in one of these
// lines, or that are not named here. While one of the latter is held, no lock is taken but
// those of the log.
//
//   - control.Server.closing and metrics.snapshots.gatherMu, held during an answer;
//     process.mu of cmd/sixfourd, held during a reload, which waits for the control loop;
//     running.mu, the lock of the Engine
//   - running.mu; pathchoice.Chooser.mu; kernelpath.Set.mu; report.Path.mu or report.Reloads.mu; events.Log.mu
//   - running.mu; agents.Runner.mu; capture.Clock.mu, capture.Tap.mu, or wait.FD.use
//   - running.mu; tunif.overflow.mu; rtnl.Conn.mu
//   - running.mu; capture.Set.mu; capture.Tap.mu
//   - running.mu; roaming.Exchange.mu; report.Path.mu, events.Log.mu, moves.mu, transport.UDPPort.mu or wait.FD.use
//   - running.mu; wireguard's and connectip's own; moves.mu, transport.UDPPort.mu or wait.FD.use
//   - running.mu; ddns.Set.mu; ddns.updater.mu
//   - datapath.ptbSample.mu; icmpreply.Replier.mu; wait.FD.use
//   - transport.UDPPort.mu; wait.FD.use; transport.Segments.mu
//   - any other; in package logging: limiter.mu; queue.mu or journal.mu
//
// The control loop must not wait for a goroutine that holds a lock and waits for the loop.
// So the keeper, the finder and the agents hold none while they wait for it.
package engine
