package firewall

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	nfnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// answerLimit bounds the wait for the kernel's answer. A kernel without nf_tables does
// not answer some requests.
const answerLimit = 5 * time.Second

// maxSteps bounds how many expressions are evaluated for one packet. The kernel follows
// 16 jumps; if it is unknown whether a rule matches, each of them may double the work.
const maxSteps = 1 << 18

// Reader reads rules. It stays in the network namespace in which it was opened. It must not be
// used concurrently.
type Reader struct {
	conn   *nftables.Conn
	socket *nfnetlink.Conn
}

// Open opens a Reader in the network namespace of the calling thread. Close it after use.
func Open() (*Reader, error) {
	r := new(Reader)
	var err error
	if r.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *nfnetlink.Conn) error {
		r.socket = c
		return nil
	})); err != nil {
		return nil, fmt.Errorf("open netlink for nftables: %w", err)
	}
	return r, nil
}

// Close closes the Reader.
func (r *Reader) Close() error { return r.conn.CloseLasting() }

// Read reads the rules of the network namespace of the calling thread. It needs
// CAP_NET_ADMIN there.
func Read() (*Ruleset, error) {
	r, err := Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // the connection was only read
	return r.Read()
}

// Read reads the rules. It needs CAP_NET_ADMIN in the network namespace.
func (r *Reader) Read() (*Ruleset, error) {
	conn, socket := r.conn, r.socket
	limit := func() { _ = socket.SetDeadline(time.Now().Add(answerLimit)) } // fails only if it is closed
	limit()
	list, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	limit()
	rules, err := readRules(socket)
	if err != nil {
		return nil, fmt.Errorf("list nftables rules: %w", err)
	}
	b := builder{rules: rules, chains: make(map[tableName]map[string]*chain)}
	for _, c := range list {
		b.add(c)
	}
	for t, chains := range b.chains {
		limit()
		sets, err := readSets(conn, t)
		if err != nil {
			return nil, err
		}
		for _, c := range chains {
			c.sets = sets
		}
	}
	return b.ruleset(), nil
}

// tableName identifies a table.
type tableName struct {
	family nftables.TableFamily
	name   string
}

// chainName identifies a chain.
type chainName struct {
	tableName
	chain string
}

// builder builds a Ruleset from the kernel's lists.
type builder struct {
	rules  map[chainName][]rule
	chains map[tableName]map[string]*chain
	base   []*chain
}

func (b *builder) add(c *nftables.Chain) {
	if c.Table == nil {
		return
	}
	t := tableName{c.Table.Family, c.Table.Name}
	if b.chains[t] == nil {
		b.chains[t] = make(map[string]*chain)
	}
	n := &chain{
		family: t.family, table: t.name, name: c.Name,
		nat: c.Type == nftables.ChainTypeNAT, drops: c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop,
		rules: b.rules[chainName{t, c.Name}], chains: b.chains[t],
	}
	b.chains[t][c.Name] = n
	if c.Hooknum != nil && c.Priority != nil {
		n.hook, n.priority = uint32(*c.Hooknum), int32(*c.Priority)
		b.base = append(b.base, n)
	}
}

// ruleset returns the rules. Chains of devices come before those of hooks, and
// priorities order the chains of a hook.
func (b *builder) ruleset() *Ruleset {
	rank := func(c *chain) int {
		if c.family == nftables.TableFamilyNetdev || c.hook == inetIngress {
			return -1
		}
		return int(c.hook)
	}
	slices.SortStableFunc(b.base, func(x, y *chain) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x.priority, y.priority))
	})
	return &Ruleset{base: b.base, steps: maxSteps}
}

// readSets reads the sets and maps of a table, including anonymous ones.
func readSets(conn *nftables.Conn, t tableName) (map[string]*set, error) {
	list, err := conn.GetSets(&nftables.Table{Name: t.name, Family: t.family})
	if err != nil {
		return nil, fmt.Errorf("list nftables sets of table %s: %w", t.name, err)
	}
	sets := make(map[string]*set, len(list))
	for _, s := range list {
		s.Table.Family = t.family
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return nil, fmt.Errorf("list nftables set %s of table %s: %w", s.Name, t.name, err)
		}
		sets[s.Name] = newSet(s.Interval && !s.Concatenation, elements)
	}
	return sets, nil
}

// readRules lists all rules. The library could do this too, but it silently omits
// expressions that it does not understand: a rule that drops some packets would seem to
// drop all.
func readRules(socket *nfnetlink.Conn) (map[chainName][]rule, error) {
	replies, err := socket.Execute(nfnetlink.Message{
		Header: nfnetlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: nfnetlink.Request | nfnetlink.Dump},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return nil, err
	}
	rules := make(map[chainName][]rule)
	for _, m := range replies {
		c, r, err := parseRule(m.Data)
		if err != nil {
			return nil, err
		}
		rules[c] = append(rules[c], r)
	}
	return rules, nil
}
