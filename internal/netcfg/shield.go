package netcfg

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Shield keeps the kernel's answers back: a peer takes a port unreachable for
// the end of its tunnel. It is an nftables table of our own for each family that
// needs one, in the namespace that the process is in: an ICMP port unreachable
// that the host sends, that quotes a packet of one of the protocols, and that is
// about one of our addresses with it, is dropped, and counted. Such packets the
// kernel has no other reason to send, but for a GRE tunnel of its own that shares
// our address.
//
// It is for when KernelAnswers says that it is needed, and only then: a rule on
// the way out is one for each packet that we send, too.
//
// The kernel removes the tables when the process dies, however it does, and
// nobody else can change them ("nft flush ruleset" leaves them alone), because the
// socket by which they were made owns them. Before Linux 5.12 there is no such
// thing: then Close removes them, and what a killed process left behind is removed
// by the next one that opens a Shield.
//
// One goroutine may use it.
type Shield struct {
	conn   *nftables.Conn
	socket *nfnetlink.Conn // conn's own
	name   string          // of the tables
	flags  uint32          // of the tables
	claim  io.Closer       // on the tables' name, where the socket does not own them
	v4, v6 guard
}

// answerLimit is how long the kernel may take to answer. It does so at once; but
// the library would wait for an answer for ever that one without nf_tables does
// not give.
const answerLimit = 5 * time.Second

// tableOwner is NFT_TABLE_F_OWNER of linux/netfilter/nf_tables.h.
const tableOwner = 2

// tablePrefix is how the names of our tables begin; what follows is random.
const tablePrefix = "sixfour-"

// OpenShield makes a shield that protects nothing yet. Close it. There is a table
// for IPv4 from the beginning, which shows that nftables can do it; the one for
// IPv6 is made when it is needed.
func OpenShield() (*Shield, error) { return openShield(tableOwner) }

func openShield(flags uint32) (*Shield, error) {
	s := &Shield{name: tablePrefix + strings.ToLower(rand.Text()[:8]), flags: flags}
	s.v4 = guard{family: nftables.TableFamilyIPv4, key: nftables.TypeIPAddr, rules: rules4}
	s.v6 = guard{family: nftables.TableFamilyIPv6, key: nftables.TypeIP6Addr, rules: rules6}
	var err error
	s.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *nfnetlink.Conn) error {
		s.socket = c
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("open netlink for nftables: %w", err)
	}
	if err := s.make(&s.v4); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Name is the name of the tables.
func (s *Shield) Name() string { return s.name }

// make makes a family's table and what is in it.
func (s *Shield) make(g *guard) error {
	// Asked first: it loads nf_tables where that is a module, and fails where
	// there is none.
	tables, err := s.list()
	if err != nil {
		return err
	}
	if s.owned() {
		err = s.addTable(g)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // older than 5.12
			s.flags = 0
		}
	}
	if !s.owned() {
		s.removeLeftovers(tables)
		err = nil
		if s.claim == nil {
			s.claim, err = claim(s.name)
		}
		if err == nil {
			err = s.addTable(g)
		}
	}
	if err != nil {
		return fmt.Errorf("make nftables table %s: %w", s.name, err)
	}
	g.present = make(map[End]bool)
	if err := s.fill(g); err != nil {
		return fmt.Errorf("fill nftables table %s: %w", s.name, err)
	}
	return nil
}

func (s *Shield) owned() bool { return s.flags&tableOwner != 0 }

// addTable makes the table. The library cannot give a table flags, so this is
// its message: a batch of one (linux/netfilter/nf_tables.h, nfnetlink.h).
func (s *Shield) addTable(g *guard) error {
	g.table = &nftables.Table{Name: s.name, Family: g.family, Flags: s.flags}
	s.limit()
	attrs, err := nfnetlink.MarshalAttributes([]nfnetlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: append([]byte(s.name), 0)},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binaryutil.BigEndian.PutUint32(s.flags)},
	})
	if err != nil {
		return err
	}
	message := func(kind uint16, flags nfnetlink.HeaderFlags, family byte, resource uint16, attrs []byte) nfnetlink.Message {
		general := append([]byte{family, unix.NFNETLINK_V0}, binaryutil.BigEndian.PutUint16(resource)...)
		return nfnetlink.Message{
			Header: nfnetlink.Header{Type: nfnetlink.HeaderType(kind), Flags: nfnetlink.Request | flags},
			Data:   append(general, attrs...),
		}
	}
	_, err = s.socket.SendMessages([]nfnetlink.Message{
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil),
		message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, nfnetlink.Create|nfnetlink.Excl|nfnetlink.Acknowledge, byte(g.family), 0, attrs),
		message(unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil),
	})
	if err == nil {
		_, err = s.socket.Receive()
	}
	return err
}

// Protect makes the shield protect these ends, and no others. It is cheap if it
// does so already; a table that somebody removed is made again.
func (s *Shield) Protect(ends []End) error {
	var v4, v6 []End
	for _, e := range ends {
		if e.Local.Is4() {
			v4 = append(v4, e)
		} else {
			v6 = append(v6, e)
		}
	}
	return errors.Join(s.protect(&s.v4, v4), s.protect(&s.v6, v6))
}

// protect does so for one family.
func (s *Shield) protect(g *guard, ends []End) error {
	switch exists, err := s.exists(g); {
	case err != nil:
		return fmt.Errorf("look at nftables table %s: %w", s.name, err)
	case !exists:
		g.present = nil
		if len(ends) == 0 {
			return nil
		}
		if err := s.make(g); err != nil {
			return err
		}
	}
	wanted := make(map[End]bool, len(ends))
	var add, remove []nftables.SetElement
	for _, e := range ends {
		if !wanted[e] && !g.present[e] {
			add = append(add, e.element())
		}
		wanted[e] = true
	}
	for e := range g.present {
		if !wanted[e] {
			remove = append(remove, e.element())
		}
	}
	if err := s.change(g, add, remove); err != nil {
		return fmt.Errorf("change set of nftables table %s: %w", s.name, err)
	}
	g.present = wanted
	return nil
}

// exists tells whether a family's table is still there.
func (s *Shield) exists(g *guard) (bool, error) {
	if g.present == nil {
		return false, nil
	}
	s.limit()
	_, err := s.conn.ListTableOfFamily(s.name, g.family)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// change adds elements to the set, and removes others, at once.
func (s *Shield) change(g *guard, add, remove []nftables.SetElement) error {
	if len(add) > 0 {
		if err := s.conn.SetAddElements(g.ends, add); err != nil {
			return err
		}
	}
	if len(remove) > 0 {
		if err := s.conn.SetDeleteElements(g.ends, remove); err != nil {
			return err
		}
	}
	s.limit()
	return s.conn.Flush()
}

// Close removes the tables.
func (s *Shield) Close() error {
	var all error
	for _, g := range []*guard{&s.v4, &s.v6} {
		if g.present == nil {
			continue
		}
		s.limit()
		s.conn.DelTable(g.table)
		if err := s.conn.Flush(); err != nil {
			all = errors.Join(all, fmt.Errorf("remove nftables table %s: %w", s.name, err))
		}
	}
	s.release()
	return errors.Join(all, s.conn.CloseLasting())
}

// release gives the claim on the tables' name up.
func (s *Shield) release() {
	if s.claim != nil {
		s.claim.Close()
		s.claim = nil
	}
}

// limit bounds the wait for the kernel's next answers.
func (s *Shield) limit() {
	_ = s.socket.SetDeadline(time.Now().Add(answerLimit)) // fails only if it is closed
}

// list is the tables of all families.
func (s *Shield) list() ([]*nftables.Table, error) {
	s.limit()
	tables, err := s.conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("ask for nftables tables: %w", err)
	}
	return tables, nil
}

// claim holds a table's name for as long as this process lives. A socket of the
// abstract namespace is just that, and belongs to the network namespace, like
// the table.
func claim(name string) (io.Closer, error) {
	return net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@" + name, Net: "unixgram"})
}

// removeLeftovers removes the tables of ours whose names nobody claims.
func (s *Shield) removeLeftovers(tables []*nftables.Table) {
	for _, t := range tables {
		if !strings.HasPrefix(t.Name, tablePrefix) || t.Flags&tableOwner != 0 {
			continue
		}
		c, err := claim(t.Name)
		if err != nil {
			continue
		}
		s.conn.DelTable(t)
		_ = s.conn.Flush() // an idle table is no reason not to go on
		c.Close()
	}
}
