package accounts

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"sixfour/internal/api"
	"sixfour/internal/text"
)

// answer collects the values of an answer.
type answer interface {
	add(line []byte) error
	json() any
	page() Page
}

// values are those of one type; if one is set, there is one value.
type values[T any] struct {
	all    []T
	one    bool
	format func([]T) Page
}

func (v *values[T]) add(line []byte) error {
	var value T
	if err := json.Unmarshal(line, &value); err != nil {
		return err
	}
	v.all = append(v.all, value)
	return nil
}

func (v *values[T]) json() any {
	switch {
	case !v.one && v.all == nil:
		return []T{}
	case v.one && len(v.all) == 1:
		return v.all[0]
	}
	return v.all
}

func (v *values[T]) page() Page { return v.format(v.all) }

// single formats one value, below a title if there is one.
func single[T any](title string, fields func(*T) [][2]string) *values[T] {
	return &values[T]{one: true, format: func(all []T) (p Page) {
		if title != "" {
			p.Fields = append(p.Fields, [2]string{title})
		}
		for i := range all {
			p.Fields = append(p.Fields, fields(&all[i])...)
		}
		return p
	}}
}

// answerTo returns what collects the answer to a request.
func answerTo(do api.BrokerDo) answer {
	switch do {
	case api.NewPassword:
		return single("", func(p *api.BrokerPassword) [][2]string {
			return [][2]string{{"account", shown(p.Account)}, {"password", p.Password}}
		})
	case api.LeaseList:
		return &values[api.BrokerLease]{format: leaseTable}
	case api.LeaseShow:
		return single("", leaseFields)
	case api.LeaseRelease:
		return single("released", leaseFields)
	case api.AccountList:
		return &values[api.BrokerAccount]{format: accountTable}
	case api.AccountRemove:
		return single("removed", accountFields)
	}
	return single("", accountFields)
}

func accountFields(a *api.BrokerAccount) (fields [][2]string) {
	add := func(name, format string, args ...any) {
		fields = append(fields, [2]string{name, fmt.Sprintf(format, args...)})
	}
	add("account", "%s", shown(a.Account))
	if a.Password != "" {
		add("password", "%s", a.Password)
	}
	add("number", "%d", a.Number)
	add("state", "%s", state(a))
	add("type", "%s", a.Type)
	if a.Endpoint.IsValid() {
		add("endpoint", "%v", a.Endpoint)
	}
	if a.Prefix.IsValid() {
		add("prefix", "always %v", a.Prefix)
	}
	if a.MaxPrefixLength != 0 {
		add("max prefix length", "%d", a.MaxPrefixLength)
	}
	if a.MTU != 0 {
		add("mtu", "%d", a.MTU)
	}
	if a.Rate != 0 {
		add("rate", "%d bit/s", a.Rate)
	}
	add("created", "%s", stamp(a.Created))
	if a.Lease != nil {
		fields = append(fields, connectionFields(a.Lease)...)
	}
	return fields
}

func state(a *api.BrokerAccount) string {
	switch {
	case !a.Enabled:
		return "disabled"
	case a.Open:
		return "open" // no password
	}
	return "enabled"
}

func leaseFields(l *api.BrokerLease) [][2]string {
	fields := [][2]string{{"account", shown(l.Account)}, {"number", strconv.FormatUint(l.Number, 10)}}
	if l.Endpoint.IsValid() {
		fields = append(fields, [2]string{"endpoint", l.Endpoint.String()})
	}
	return append(fields, connectionFields(l)...)
}

func connectionFields(l *api.BrokerLease) [][2]string {
	fields := [][2]string{{"lease", l.Prefix.String() + " since " + stamp(l.Granted)}}
	if l.Server == "" {
		return append(fields, [2]string{"connected", "never"})
	}
	times := "since " + stamp(l.Since)
	if !l.Connected {
		times = "no, last from " + stamp(l.Since) + " until " + stamp(l.Until)
	}
	return append(fields, [][2]string{{"connected", times}, {"protocol", l.Protocol}, {"outer address", text.Outer(l.Outer)}, {"server", l.Server}}...)
}

func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

func accountTable(all []api.BrokerAccount) Page {
	p := Page{Heading: []string{"ACCOUNT", "NUMBER", "STATE", "TYPE", "LEASE", "CLIENT"}, Numbers: []bool{false, true, false, false, false, false}}
	for i := range all {
		a := &all[i]
		prefix, client := "-", "-"
		if a.Prefix.IsValid() {
			prefix = a.Prefix.String()
		}
		if a.Lease != nil {
			prefix, client = a.Lease.Prefix.String(), connection(a.Lease)
		}
		p.Rows = append(p.Rows, []string{shown(a.Account), strconv.FormatUint(a.Number, 10), state(a), a.Type, prefix, client})
	}
	return p
}

func connection(l *api.BrokerLease) string {
	if l.Connected {
		return "connected"
	}
	return "-"
}

func leaseTable(all []api.BrokerLease) Page {
	p := Page{Heading: []string{"PREFIX", "ACCOUNT", "CLIENT", "PROTOCOL", "OUTER", "SERVER", "SINCE", "UNTIL"}, Numbers: make([]bool, 8)}
	for i := range all {
		l := &all[i]
		row := []string{l.Prefix.String(), shown(l.Account), connection(l), l.Protocol, "", l.Server, "", ""}
		if l.Outer != (netip.AddrPort{}) {
			row[4] = text.Outer(l.Outer)
		}
		if !l.Since.IsZero() {
			row[6] = stamp(l.Since)
		}
		if !l.Until.IsZero() {
			row[7] = stamp(l.Until)
		}
		for i := range row {
			if row[i] == "" {
				row[i] = "-"
			}
		}
		p.Rows = append(p.Rows, row)
	}
	return p
}
