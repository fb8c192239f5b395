// Package decode reads captures, and decodes packets layer by layer, for people and for
// programs.
//
// github.com/gopacket/gopacket reads the files and decodes the headers. Those that tunnels
// use are shown with their fields, also if a packet is cut off or its lengths are wrong;
// of all others the name and the size are shown. gopacket makes sixfourctl 1.9 MB larger
// and adds 0.6 MB to its memory; it is not in the daemon (see package pcapng).
package decode

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"sixfour/internal/pcapng"
)

// Packet is a decoded packet.
type Packet struct {
	Number    int      `json:"number"` // in the file, from 1
	Time      string   `json:"time"`   // RFC 3339, UTC
	Direction string   `json:"direction,omitempty"`
	Interface string   `json:"interface,omitempty"`
	ID        uint64   `json:"packet_id,omitempty"` // the same for an inner packet and its outer packet
	Length    int      `json:"length"`
	Captured  int      `json:"captured"` // bytes in the file
	Lost      uint64   `json:"lost_before,omitempty"`
	Drop      string   `json:"drop,omitempty"` // the word of the drop reason
	Comments  []string `json:"comments,omitempty"`
	Layers    []*Layer `json:"layers"`
}

// Layer is a header, or the data after the last header.
type Layer struct {
	Name   string
	Bytes  int
	Quoted bool // part of a packet that an ICMP error quotes
	text   []string
	fields map[string]any
}

// Text returns the layer's description.
func (l *Layer) Text() string { return strings.Join(l.text, ", ") }

// MarshalJSON writes the fields after the name.
func (l *Layer) MarshalJSON() ([]byte, error) {
	all := map[string]any{"layer": l.Name, "bytes": l.Bytes}
	if l.Quoted {
		all["quoted"] = true
	}
	for k, v := range l.fields {
		all[k] = v
	}
	return json.Marshal(all)
}

// field adds a field whose text is its name and value.
func (l *Layer) field(name string, v any) {
	l.add(name, v, fmt.Sprintf("%s %v", strings.ReplaceAll(name, "_", " "), v))
}

// add adds a field with a text; "": the text of another field shows it.
func (l *Layer) add(name string, v any, words string) {
	if l.fields == nil {
		l.fields = make(map[string]any)
	}
	l.fields[name] = v
	if words != "" {
		l.text = append(l.text, words)
	}
}

// note adds text without a field.
func (l *Layer) note(format string, args ...any) {
	l.text = append(l.text, fmt.Sprintf(format, args...))
}

// Of decodes a packet from a reader, with its number.
func Of(number int, p pcapng.Packet, i pcapng.Interface) Packet {
	d := Packet{
		Number: number, Time: p.Time.Format("2006-01-02T15:04:05.000000000Z"), Direction: p.Direction.String(),
		Interface: i.Name, ID: p.ID, Length: p.Length, Captured: len(p.Data), Lost: p.Dropped, Comments: p.Comments,
		Layers: Layers(p.Data, int(i.Link)),
	}
	for _, c := range p.Comments {
		if rest, ok := strings.CutPrefix(c, "dropped: "); ok {
			d.Drop, _, _ = strings.Cut(rest, ":")
		}
	}
	return d
}

// Print writes the packet as an indented block.
func (p *Packet) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d  %s", p.Number, p.Time)
	for _, s := range []string{p.Direction, p.Interface} {
		if s != "" {
			b.WriteString("  " + plain(s))
		}
	}
	fmt.Fprintf(&b, "  %d B", p.Length)
	if p.Captured < p.Length {
		fmt.Fprintf(&b, ", of which %d were captured", p.Captured)
	}
	if p.ID != 0 {
		fmt.Fprintf(&b, "  packet %d", p.ID)
	}
	b.WriteString("\n")
	if p.Lost > 0 {
		fmt.Fprintf(&b, "  (%d packets before it were not captured)\n", p.Lost)
	}
	for _, c := range p.Comments {
		b.WriteString("  " + plain(c) + "\n")
	}
	Print(&b, p.Layers)
	_, err := io.WriteString(w, b.String())
	return err
}

// Print writes layers, one per line, from the outermost inwards: the name, the bytes,
// and the description.
func Print(w io.Writer, layers []*Layer) {
	for _, l := range layers {
		indent := "  "
		if l.Quoted {
			indent = "    "
		}
		line := fmt.Sprintf("%s%-11s %4d B  %s", indent, l.Name, l.Bytes, l.Text())
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

// plain returns a text of a file without characters that would move a terminal's cursor.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// File decodes all packets of a pcapng or pcap file, and writes them as blocks of text, or
// as JSON with one line per packet. It returns the number of packets. An error in the file
// is reported with its offset in bytes.
func File(from io.Reader, to io.Writer, asJSON bool) (n int, err error) {
	r, err := NewReader(from)
	if err != nil {
		return 0, err
	}
	enc := json.NewEncoder(to)
	enc.SetEscapeHTML(false)
	for {
		p, i, err := r.Next()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		n++
		d := Of(n, p, i)
		if asJSON {
			err = enc.Encode(d)
		} else {
			err = d.Print(to)
		}
		if err != nil {
			return n, Failed{err}
		}
	}
}

// Failed is an error from writing the packets.
type Failed struct{ error }

func (f Failed) Unwrap() error { return f.error }
