package ayiya

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"
)

// sequenceLen is the length of the number at the beginning of a query and of its answer.
const sequenceLen = 4

// Names of queries, in lower case.
const (
	QueryContact       = "contact"
	QueryHostname      = "hostname"
	QueryLastError     = "lasterror"
	QueryOuterEndpoint = "outer-endpoint"
	QueryShutdown      = "shutdown" // the receiver ends the tunnel, and does not begin again within ShutdownPause
	QueryVersion       = "version"  // the answer is "AYIYA/draft-02 name/release os/release"
)

// ShutdownPause is for how long a tunnel stays down that the other end has shut down.
const ShutdownPause = 5 * time.Minute

// maxQuery is the length of the longest name of a query.
const maxQuery = 64

// Query returns the number and the name of a QueryRequest, in lower case; "": none that any
// end could know.
func (m *Message) Query() (number uint32, name string) {
	number = binary.BigEndian.Uint32(m.Payload)
	text := m.Payload[sequenceLen:]
	if len(text) > maxQuery {
		return number, ""
	}
	return number, strings.ToLower(strings.Trim(string(text), "\x00\r\n "))
}

// Answer returns the number and the text of a QueryResponse. Ok is false if it refuses.
func (m *Message) Answer() (number uint32, text string, ok bool) {
	number = binary.BigEndian.Uint32(m.Payload)
	return number, printable(m.Payload[sequenceLen:]), len(m.Payload) > sequenceLen
}

// AppendQuery appends the payload of a QueryRequest, or of its answer; with the text "" it
// refuses.
func AppendQuery(b []byte, number uint32, text string) []byte {
	return append(binary.BigEndian.AppendUint32(b, number), text...)
}

// Notice is a message of the day.
type Notice struct {
	Time             time.Time
	Title, URL, Text string // URL and Text may be ""
}

// maxNotice is the length of the longest notice that is read.
const maxNotice = 4096

// Notice reads the payload of a MOTD. Bytes that are not printable are left out.
func (m *Message) Notice() (n Notice, err error) {
	if len(m.Payload) > maxNotice {
		return n, errors.New("the message of the day is too long")
	}
	lines := strings.SplitN(string(m.Payload), "\n", 4)
	if len(lines) < 2 {
		return n, errors.New("the message of the day has no title")
	}
	at, err := strconv.ParseUint(strings.TrimSpace(lines[0]), 10, 62)
	if err != nil {
		return n, errors.New("the message of the day has no time")
	}
	n.Time = time.Unix(int64(at), 0)
	n.Title = printable([]byte(lines[1]))
	if len(lines) > 2 {
		n.URL = printable([]byte(lines[2]))
	}
	if len(lines) > 3 {
		n.Text = printable([]byte(lines[3]))
	}
	return n, nil
}

// AppendNotice appends the payload of a MOTD.
func AppendNotice(b []byte, n Notice) []byte {
	b = strconv.AppendInt(b, n.Time.Unix(), 10)
	for _, s := range []string{n.Title, n.URL, n.Text} {
		b = append(append(b, '\n'), s...)
	}
	return b
}

// printable returns the text of a peer without what could change a terminal or a log: line
// ends become spaces, and all that is not printable ASCII is left out.
func printable(b []byte) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return -1
		}
		return r
	}, string(b)))
}
