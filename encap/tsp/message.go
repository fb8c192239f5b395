package tsp

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// MaxMessage is the length in bytes of the longest message: more than a datagram has without
// fragments, and than any document needs.
const MaxMessage = 8192

// maxLine is the length of the longest line of a TCP connection.
const maxLine = 2048

// lengthSlack is by how much a Content-length may be wrong: some ends do not count the last
// CR LF.
const lengthSlack = 2

// Errors of messages.
var (
	ErrTooLong = errors.New("the message is too long")
	ErrLength  = errors.New("the Content-length is not that of the message")
)

// errPartial is the error for a message of which more must come.
var errPartial = errors.New("the message is not complete")

const contentLength = "Content-length:"

// AppendDocument appends a message with a Content-length, which is that of body.
func AppendDocument(b, body []byte) []byte {
	b = append(append(b, contentLength+" "...), strconv.Itoa(len(body))...)
	return append(append(b, "\r\n"...), body...)
}

// Document returns what follows the line with the Content-length in a message, which is a
// whole datagram or was returned by Split. Ok is false if the message has no such line.
func Document(text []byte) (body []byte, ok bool, err error) {
	n, body, ok, err := length(text)
	switch {
	case errors.Is(err, errPartial) && ok:
		return nil, true, ErrLength
	case errors.Is(err, errPartial):
		return nil, false, nil
	case err != nil || !ok:
		return nil, ok, err
	}
	if d := n - len(body); d > lengthSlack || d < -lengthSlack {
		return nil, true, ErrLength
	}
	return body, true, nil
}

// length reads the line with the Content-length. The error is errPartial if the line does not
// end.
func length(text []byte) (n int, body []byte, ok bool, err error) {
	text = bytes.TrimLeft(text, "\x00\r\n\t ")
	if len(text) < len(contentLength) {
		if strings.EqualFold(string(text), contentLength[:len(text)]) {
			err = errPartial
		}
		return 0, nil, false, err
	}
	if !strings.EqualFold(string(text[:len(contentLength)]), contentLength) {
		return 0, nil, false, nil
	}
	line, body, ended := bytes.Cut(text[len(contentLength):], []byte("\n"))
	if !ended {
		return 0, nil, true, errPartial
	}
	v, perr := strconv.ParseUint(string(bytes.TrimSpace(line)), 10, 16)
	if perr != nil {
		return 0, nil, true, ErrLength
	}
	if v > MaxMessage {
		return 0, nil, true, ErrTooLong
	}
	return int(v), body, true, nil
}

// Split takes the first message of what has come through a TCP connection so far. Ok is false
// if more must come. NUL bytes and white space before a message belong to the one before it,
// and are skipped. Rest is what follows the message.
func Split(b []byte) (text, rest []byte, ok bool, err error) {
	b = bytes.TrimLeft(b, "\x00\r\n\t ")
	n, body, document, err := length(b)
	switch {
	case errors.Is(err, errPartial):
		return partial(b, maxLine)
	case err != nil:
		return nil, nil, false, err
	case document:
		return splitDocument(b, body, n)
	}
	line, rest, ended := bytes.Cut(b, []byte("\n"))
	if len(line) > maxLine {
		return nil, nil, false, ErrTooLong
	}
	if !ended {
		return partial(b, maxLine)
	}
	return b[:len(line)+1], rest, true, nil
}

// splitDocument takes a message with a Content-length n.
func splitDocument(b, body []byte, n int) (text, rest []byte, ok bool, err error) {
	if len(body) < n {
		if !complete(body) || n-len(body) > lengthSlack {
			return partial(b, MaxMessage+maxLine)
		}
		n = len(body)
	}
	end := len(b) - len(body) + n
	return b[:end], b[end:], true, nil
}

// complete reports whether the document, of which up to lengthSlack bytes seem to be missing,
// has come: the end of its root element is there.
func complete(body []byte) bool {
	body = bytes.TrimRight(body, "\x00\r\n\t ")
	return bytes.HasSuffix(body, []byte("</tunnel>")) || bytes.HasSuffix(body, []byte("/>"))
}

func partial(b []byte, most int) (text, rest []byte, ok bool, err error) {
	if len(b) > most {
		return nil, nil, false, ErrTooLong
	}
	return nil, b, false, nil
}
