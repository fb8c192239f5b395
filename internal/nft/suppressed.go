package nft

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	nfnetlink "github.com/mdlayher/netlink"
)

// Suppressed reports whether a Suppressor of any process covers an end in the namespace
// of the calling thread. It returns an error if nftables cannot be read.
func Suppressed(e Endpoint) (bool, error) {
	conn, err := nftables.New(nftables.WithSockOptions(func(c *nfnetlink.Conn) error {
		return c.SetDeadline(time.Now().Add(answerLimit))
	}))
	if err != nil {
		return false, fmt.Errorf("open netlink for nftables: %w", err)
	}
	family := nftables.TableFamilyIPv4
	if e.Local.Is6() {
		family = nftables.TableFamilyIPv6
	}
	tables, err := conn.ListTablesOfFamily(family)
	if err != nil {
		return false, fmt.Errorf("ask for nftables tables: %w", err)
	}
	want := e.element()
	for _, t := range tables {
		if !strings.HasPrefix(t.Name, tablePrefix) {
			continue
		}
		elements, err := conn.GetSetElements(&nftables.Set{Table: t, Name: "ends"})
		if err != nil { // the table was removed in the meantime
			continue
		}
		if slices.ContainsFunc(elements, func(have nftables.SetElement) bool { return bytes.Equal(have.Key, want.Key) }) {
			return true, nil
		}
	}
	return false, nil
}
