package netcfg

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	nfnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// answering are what makes the kernel answer packets of a protocol that match
// none of its own tunnels: modules, which are below /sys/module even if they are
// built in (but for tunnel4, which sit and ipip need), and the devices that each
// of them makes, for where there is no /sys.
var answering = map[uint8]struct{ modules, devices []string }{
	unix.IPPROTO_IPIP: {[]string{"ipip", "sit", "tunnel4"}, []string{"tunl0", "sit0"}},
	unix.IPPROTO_IPV6: {[]string{"sit", "ipip", "tunnel4"}, []string{"sit0", "tunl0"}},
	unix.IPPROTO_GRE:  {[]string{"ip_gre"}, []string{"gre0"}},
}

// KernelAnswers names the kernel module, or the device, because of which the
// kernel answers IPv4 packets of a tunnel protocol that match none of its own
// tunnels with an ICMP error (type 3, code 3: port unreachable), though it
// delivers them to our raw sockets as well. The empty string is that it does
// not. A module may be loaded, and unloaded, at any time.
func KernelAnswers(modules fs.FS, protocol uint8) string {
	for _, m := range answering[protocol].modules {
		if _, err := fs.Stat(modules, m); err == nil {
			return "module " + m
		}
	}
	for _, d := range answering[protocol].devices {
		if _, err := netlink.LinkByName(d); err == nil {
			return "device " + d
		}
	}
	return ""
}

// ByHand is the command that does what a Shield does, for all addresses.
func ByHand(protocol uint8) string {
	return fmt.Sprintf("nft 'add table ip sixfour; "+
		"add chain ip sixfour output { type filter hook output priority 0; }; "+
		"add rule ip sixfour output icmp type destination-unreachable icmp code port-unreachable @th,136,8 %d drop'", protocol)
}

// End is where tunnels end: packets of a protocol to one of our addresses.
type End struct {
	Local    netip.Addr // IPv4
	Protocol uint8
}

// Shield keeps the kernel's answers back: a peer takes a port unreachable for
// the end of its tunnel. It is an nftables table of our own, in the namespace
// that the process is in, with one rule: an ICMP port unreachable that the host
// sends, that quotes a packet of one of the protocols, and whose source is one
// of our addresses with it, is dropped, and counted. Such packets the kernel
// has no other reason to send.
//
// It is for when KernelAnswers says that it is needed, and only then: a rule on
// the way out is one for each packet that we send, too.
//
// The kernel removes the table when the process dies, however it does, and
// nobody else can change it ("nft flush ruleset" leaves it alone), because the
// socket by which it was made owns it. Before Linux 5.12 there is no such
// thing: then Close removes it, and what a killed process left behind is removed
// by the next one that opens a Shield.
//
// One goroutine may use it.
type Shield struct {
	conn    *nftables.Conn
	socket  *nfnetlink.Conn // conn's own
	table   *nftables.Table
	ends    *nftables.Set
	present map[End]bool // in the set; nil: there is no table
	claim   io.Closer    // on the table's name, where the socket does not own it
}

// answerLimit is how long the kernel may take to answer. It does so at once; but
// the library would wait for an answer for ever that one without nf_tables does
// not give.
const answerLimit = 5 * time.Second

// tableOwner is NFT_TABLE_F_OWNER of linux/netfilter/nf_tables.h.
const tableOwner = 2

// tablePrefix is how the names of our tables begin; what follows is random.
const tablePrefix = "sixfour-"

// OpenShield makes a shield that protects nothing yet. Close it.
func OpenShield() (*Shield, error) { return openShield(tableOwner) }

func openShield(flags uint32) (*Shield, error) {
	s := &Shield{table: &nftables.Table{Name: tablePrefix + strings.ToLower(rand.Text()[:8]), Family: nftables.TableFamilyIPv4, Flags: flags}}
	var err error
	s.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *nfnetlink.Conn) error {
		s.socket = c
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("open netlink for nftables: %w", err)
	}
	if err := s.make(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Name is the table's name.
func (s *Shield) Name() string { return s.table.Name }

// make makes the table and what is in it.
func (s *Shield) make() error {
	// Asked first: it loads nf_tables where that is a module, and fails where
	// there is none.
	tables, err := s.list()
	if err != nil {
		return err
	}
	if s.owned() {
		err = s.addTable()
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // older than 5.12
			s.table.Flags = 0
		}
	}
	if !s.owned() {
		s.removeLeftovers(tables)
		if s.claim, err = claim(s.table.Name); err == nil {
			err = s.addTable()
		}
	}
	if err != nil {
		return fmt.Errorf("make nftables table %s: %w", s.table.Name, err)
	}
	s.present = make(map[End]bool)
	if err := s.addRule(); err != nil {
		return fmt.Errorf("fill nftables table %s: %w", s.table.Name, err)
	}
	return nil
}

func (s *Shield) owned() bool { return s.table.Flags&tableOwner != 0 }

// addTable makes the table. The library cannot give a table flags, so this is
// its message: a batch of one (linux/netfilter/nf_tables.h, nfnetlink.h).
func (s *Shield) addTable() error {
	s.limit()
	attrs, err := nfnetlink.MarshalAttributes([]nfnetlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: append([]byte(s.table.Name), 0)},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binaryutil.BigEndian.PutUint32(s.table.Flags)},
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
		message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, nfnetlink.Create|nfnetlink.Excl|nfnetlink.Acknowledge, byte(s.table.Family), 0, attrs),
		message(unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil),
	})
	if err == nil {
		_, err = s.socket.Receive()
	}
	return err
}

// addRule puts the set, the chain and its rule into the table.
func (s *Shield) addRule() error {
	s.limit()
	s.ends = &nftables.Set{
		Table: s.table, Name: "ends", Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto),
	}
	if err := s.conn.AddSet(s.ends, nil); err != nil {
		return err
	}
	chain := s.conn.AddChain(&nftables.Chain{
		Table: s.table, Name: "output",
		Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter,
	})
	const (
		first  = unix.NFT_REG32_00 // of the key, in registers of 4 bytes
		second = unix.NFT_REG32_01
	)
	s.conn.AddRule(&nftables.Rule{Table: s.table, Chain: chain, Exprs: []expr.Any{
		// meta l4proto icmp
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: first},
		&expr.Cmp{Register: first, Data: []byte{unix.IPPROTO_ICMP}},
		// icmp type destination-unreachable icmp code port-unreachable
		&expr.Payload{DestRegister: first, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Cmp{Register: first, Data: []byte{3, 3}},
		// ip saddr . @th,136,8 @ends: byte 17 of the message is byte 9 of the
		// quoted header.
		&expr.Payload{DestRegister: first, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Payload{DestRegister: second, Base: expr.PayloadBaseTransportHeader, Offset: 17, Len: 1},
		&expr.Lookup{SourceRegister: first, SetName: s.ends.Name, SetID: s.ends.ID},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	return s.conn.Flush()
}

// Protect makes the shield protect these ends, and no others. It is cheap if it
// does so already; a table that somebody removed is made again.
func (s *Shield) Protect(ends []End) error {
	s.limit()
	switch _, err := s.conn.ListTableOfFamily(s.table.Name, s.table.Family); {
	case errors.Is(err, fs.ErrNotExist):
		s.release()
		s.present = nil
		if err := s.make(); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("look at nftables table %s: %w", s.table.Name, err)
	}
	wanted := make(map[End]bool, len(ends))
	var add, remove []nftables.SetElement
	for _, e := range ends {
		if !wanted[e] && !s.present[e] {
			add = append(add, e.element())
		}
		wanted[e] = true
	}
	for e := range s.present {
		if !wanted[e] {
			remove = append(remove, e.element())
		}
	}
	if err := s.change(add, remove); err != nil {
		return fmt.Errorf("change set of nftables table %s: %w", s.table.Name, err)
	}
	s.present = wanted
	return nil
}

// change adds elements to the set, and removes others, at once.
func (s *Shield) change(add, remove []nftables.SetElement) error {
	if len(add) > 0 {
		if err := s.conn.SetAddElements(s.ends, add); err != nil {
			return err
		}
	}
	if len(remove) > 0 {
		if err := s.conn.SetDeleteElements(s.ends, remove); err != nil {
			return err
		}
	}
	s.limit()
	return s.conn.Flush()
}

// element is the end as a key of the set: each part takes 4 bytes.
func (e End) element() nftables.SetElement {
	a := e.Local.As4()
	return nftables.SetElement{Key: append(a[:], e.Protocol, 0, 0, 0)}
}

// Close removes the table.
func (s *Shield) Close() error {
	var err error
	if s.present != nil {
		s.limit()
		s.conn.DelTable(s.table)
		if err = s.conn.Flush(); err != nil {
			err = fmt.Errorf("remove nftables table %s: %w", s.table.Name, err)
		}
	}
	s.release()
	return errors.Join(err, s.conn.CloseLasting())
}

// release gives the claim on the table's name up.
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

func (s *Shield) list() ([]*nftables.Table, error) {
	s.limit()
	tables, err := s.conn.ListTablesOfFamily(s.table.Family)
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
