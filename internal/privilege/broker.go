package privilege

import (
	"net/url"
	"strconv"

	"sixfour/internal/config"
	"sixfour/internal/config/problem"
)

// addBroker adds what a broker needs, which may have no interface: then there is none.
func (n *needs) addBroker(b *config.Broker) {
	if b.Interface == "" {
		return
	}
	n.store = b.Store.File != ""
	n.lowPort = n.lowPort || lowListener(b) != nil
	for _, f := range b.Files() {
		n.files = append(n.files, directoriesOf(f)...)
	}
	n.connects = append(n.connects, storePorts(b)...)
}

// storePorts returns the TCP ports of the servers of a broker's store.
func storePorts(b *config.Broker) (all []uint16) {
	for _, s := range b.Store.URLs {
		if u, err := url.Parse(s); err == nil {
			if port, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
				all = append(all, uint16(port))
			} else {
				all = append(all, etcdPort)
			}
		}
	}
	return all
}

// etcdPort is the port of etcd if a URL has none.
const etcdPort = 2379

// lowListener returns the first listener of a broker below lowPorts; nil: none.
func lowListener(b *config.Broker) *config.BrokerListener {
	for i := range b.Listen {
		if b.Listen[i].Port < lowPorts {
			return &b.Listen[i]
		}
	}
	return nil
}

// brokerProblems returns the rights that a broker needs and that the process no longer has.
// Changes of the store take effect at the next start, and are not checked.
func (s *Sandbox) brokerProblems(b *config.Broker) (problems problem.List) {
	if l := lowListener(b); l != nil && !s.needs.lowPort {
		problems = append(problems, b.ListenerProblem(l, "port: the daemon has given up the right to use ports below %d: restart it", lowPorts))
	}
	for i := range b.Listen {
		l := &b.Listen[i]
		if l.Certificate == "" {
			continue
		}
		if right := s.lacksFor([]string{l.Certificate, l.Key}, 0); right != "" {
			problems = append(problems, b.ListenerProblem(l, "tls_certificate: the daemon has given up the right to %s: restart it", right))
		}
	}
	return problems
}
