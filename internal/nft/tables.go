// Package nft makes nftables tables that exist as long as this process, and, with one of
// them, suppresses the kernel's own ICMP errors about packets of tunnels.
package nft

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Tables are nftables tables of this process, at most one for each family, all with the
// same name, in the current network namespace.
//
// The socket that made the tables owns them. So the kernel removes them whenever the
// process ends, and no other process can change them ("nft flush ruleset" leaves them
// alone). Linux before 5.12 has no owned tables: there, Close removes the tables, and
// tables of a killed process are removed by the next process that makes tables.
//
// Tables is not safe for concurrent use.
type Tables struct {
	conn   *nftables.Conn
	socket *nfnetlink.Conn // the socket of conn
	name   string
	flags  uint32
	claim  io.Closer // on the name, if the socket does not own the tables
	tables []*nftables.Table
}

// ErrTaken means that another process has tables with the name.
var ErrTaken = errors.New("another process has it")

// answerLimit bounds the wait for the kernel's answer. The kernel answers at once, but
// without nf_tables it does not answer, and the library would wait forever.
const answerLimit = 5 * time.Second

// tableOwner is NFT_TABLE_F_OWNER of linux/netfilter/nf_tables.h.
const tableOwner = 2

// tablePrefix is the prefix of the names of our tables.
const tablePrefix = "sixfour-"

// randomName returns a random table name, which no other table has.
func randomName() string { return strings.ToLower(rand.Text()[:8]) }

// OpenTables prepares tables with the name "sixfour-" and suffix, but makes none yet.
// Close them after use.
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

// Name returns the name of the tables.
func (t *Tables) Name() string { return t.name }

// Add makes an empty table for a family. The error is ErrTaken if another process has
// it.
func (t *Tables) Add(family nftables.TableFamily) (*nftables.Table, error) {
	// List the tables first: this loads nf_tables if it is a module, and fails if there
	// is none.
	tables, err := t.list()
	if err != nil {
		return nil, err
	}
	table := &nftables.Table{Name: t.name, Family: family}
	if t.owned() {
		err = t.add(table)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // Linux before 5.12
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
	t.tables = append(t.tables, table)
	return table, nil
}

func (t *Tables) owned() bool { return t.flags&tableOwner != 0 }

// add makes the table with a message of its own, because the library cannot set a
// table's flags: a batch of one (linux/netfilter/nf_tables.h, nfnetlink.h).
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

// Exists reports whether a family's table exists.
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

// requesting is held while changes are requested: the library numbers sets of all connections
// by a variable that nothing protects.
var requesting sync.Mutex

// Change makes the changes that f requests, all or none.
func (t *Tables) Change(f func(*nftables.Conn) error) error {
	requesting.Lock()
	err := f(t.conn)
	requesting.Unlock()
	if err != nil {
		return err
	}
	t.limit()
	err = t.conn.Flush()
	if first := unix.Errno(0); errors.As(err, &first) { // the kernel returns an error for each part
		return first
	}
	return err
}

// Close removes the tables.
func (t *Tables) Close() error {
	var all error
	for _, table := range t.tables {
		if exists, err := t.Exists(table.Family); err != nil || !exists {
			all = errors.Join(all, err)
			continue
		}
		if err := t.Change(func(c *nftables.Conn) error { c.DelTable(table); return nil }); err != nil {
			all = errors.Join(all, fmt.Errorf("remove nftables table %s: %w", t.name, err))
		}
	}
	t.tables = nil
	t.release()
	return errors.Join(all, t.conn.CloseLasting())
}

// release releases the claim on the tables' name.
func (t *Tables) release() {
	if t.claim != nil {
		t.claim.Close()
		t.claim = nil
	}
}

// limit sets the deadline for the kernel's next answers.
func (t *Tables) limit() {
	_ = t.socket.SetDeadline(time.Now().Add(answerLimit)) // fails only if the socket is closed
}

// list returns the tables of all families, also those of other processes.
func (t *Tables) list() ([]*nftables.Table, error) {
	t.limit()
	tables, err := t.conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("ask for nftables tables: %w", err)
	}
	return tables, nil
}

// claim reserves a table's name until this process ends. It uses a socket in the
// abstract namespace, which belongs to the network namespace as the table does.
func claim(name string) (io.Closer, error) {
	return net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@" + name, Net: "unixgram"})
}

// removeLeftovers removes our tables whose names no process has claimed.
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
		_ = t.conn.Flush() // continue: a leftover table does no harm
		c.Close()
	}
}
