package netcfg

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Tables are nftables tables of our own, which all have one name, at most one for
// each family, in the namespace that the process is in.
//
// The kernel removes them when the process dies, however it does, and nobody else
// can change them ("nft flush ruleset" leaves them alone), because the socket by
// which they were made owns them. Before Linux 5.12 there is no such thing: then
// Close removes them, and what a killed process left behind is removed by the next
// one that makes tables.
//
// One goroutine may use them.
type Tables struct {
	conn   *nftables.Conn
	socket *nfnetlink.Conn // conn's own
	name   string
	flags  uint32
	claim  io.Closer // on the name, where the socket does not own the tables
	made   []*nftables.Table
}

// ErrTaken means that another process has tables of the name.
var ErrTaken = errors.New("another process has it")

// answerLimit is how long the kernel may take to answer. It does so at once; but
// the library would wait for an answer for ever that one without nf_tables does
// not give.
const answerLimit = 5 * time.Second

// tableOwner is NFT_TABLE_F_OWNER of linux/netfilter/nf_tables.h.
const tableOwner = 2

// tablePrefix is how the names of our tables begin.
const tablePrefix = "sixfour-"

// randomName is a table's name that nobody else has.
func randomName() string { return strings.ToLower(rand.Text()[:8]) }

// OpenTables prepares tables of the name "sixfour-" and suffix, and makes none.
// Close them.
func OpenTables(suffix string) (*Tables, error) { return openTables(suffix, tableOwner) }

func openTables(suffix string, flags uint32) (*Tables, error) {
	t := &Tables{name: tablePrefix + suffix, flags: flags}
	var err error
	t.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *nfnetlink.Conn) error {
		t.socket = c
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("open netlink for nftables: %w", err)
	}
	return t, nil
}

// Name is that of the tables.
func (t *Tables) Name() string { return t.name }

// Add makes a family's table, which is empty. The error is ErrTaken if another
// process has it.
func (t *Tables) Add(family nftables.TableFamily) (*nftables.Table, error) {
	// Asked first: it loads nf_tables where that is a module, and fails where
	// there is none.
	tables, err := t.list()
	if err != nil {
		return nil, err
	}
	table := &nftables.Table{Name: t.name, Family: family}
	if t.owned() {
		err = t.add(table)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // older than 5.12
			t.flags = 0
		}
	}
	if !t.owned() {
		t.removeLeftovers(tables)
		err = nil
		if t.claim == nil {
			t.claim, err = claim(t.name)
		}
		if err == nil {
			err = t.add(table)
		}
	}
	if errors.Is(err, unix.EADDRINUSE) || err != nil && slices.ContainsFunc(tables, func(o *nftables.Table) bool { return o.Name == t.name && o.Family == family }) {
		err = ErrTaken
	}
	if err != nil {
		return nil, fmt.Errorf("make nftables table %s: %w", t.name, err)
	}
	t.made = append(t.made, table)
	return table, nil
}

func (t *Tables) owned() bool { return t.flags&tableOwner != 0 }

// add makes the table. The library cannot give a table flags, so this is its
// message: a batch of one (linux/netfilter/nf_tables.h, nfnetlink.h).
func (t *Tables) add(table *nftables.Table) error {
	table.Flags = t.flags
	t.limit()
	attrs, err := nfnetlink.MarshalAttributes([]nfnetlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: append([]byte(t.name), 0)},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binaryutil.BigEndian.PutUint32(t.flags)},
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
	_, err = t.socket.SendMessages([]nfnetlink.Message{
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil),
		message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, nfnetlink.Create|nfnetlink.Excl|nfnetlink.Acknowledge, byte(table.Family), 0, attrs),
		message(unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil),
	})
	if err == nil {
		_, err = t.socket.Receive()
	}
	return err
}

// Exists tells whether a family's table is there.
func (t *Tables) Exists(family nftables.TableFamily) (bool, error) {
	t.limit()
	_, err := t.conn.ListTableOfFamily(t.name, family)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at nftables table %s: %w", t.name, err)
	}
	return true, nil
}

// Change does what f asks for, all or nothing.
func (t *Tables) Change(f func(*nftables.Conn) error) error {
	if err := f(t.conn); err != nil {
		return err
	}
	t.limit()
	err := t.conn.Flush()
	if first := unix.Errno(0); errors.As(err, &first) { // the kernel says it of each part
		return first
	}
	return err
}

// Close removes the tables.
func (t *Tables) Close() error {
	var all error
	for _, table := range t.made {
		if exists, err := t.Exists(table.Family); err != nil || !exists {
			all = errors.Join(all, err)
			continue
		}
		if err := t.Change(func(c *nftables.Conn) error { c.DelTable(table); return nil }); err != nil {
			all = errors.Join(all, fmt.Errorf("remove nftables table %s: %w", t.name, err))
		}
	}
	t.made = nil
	t.release()
	return errors.Join(all, t.conn.CloseLasting())
}

// release gives the claim on the tables' name up.
func (t *Tables) release() {
	if t.claim != nil {
		t.claim.Close()
		t.claim = nil
	}
}

// limit bounds the wait for the kernel's next answers.
func (t *Tables) limit() {
	_ = t.socket.SetDeadline(time.Now().Add(answerLimit)) // fails only if it is closed
}

// list is the tables of all families, whosever they are.
func (t *Tables) list() ([]*nftables.Table, error) {
	t.limit()
	tables, err := t.conn.ListTables()
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
func (t *Tables) removeLeftovers(tables []*nftables.Table) {
	for _, other := range tables {
		if !strings.HasPrefix(other.Name, tablePrefix) || other.Flags&tableOwner != 0 {
			continue
		}
		c, err := claim(other.Name)
		if err != nil {
			continue
		}
		t.conn.DelTable(other)
		_ = t.conn.Flush() // an idle table is no reason not to go on
		c.Close()
	}
}
