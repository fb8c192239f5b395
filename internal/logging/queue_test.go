package logging

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestFailingWriter: neither a full disk nor a reader that has ended stops or blocks
// the logger.
func TestFailingWriter(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	gone, broken, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	closed, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, w := range map[string]*os.File{"full disk": full, "broken pipe": broken, "closed": closed} {
		log, err := newLog(w, "info", "console", nowhere)
		if err != nil {
			t.Fatal(err)
		}
		const n = 5
		for i := range n {
			log.Info(fmt.Sprint("message ", i))
		}
		log.Close()
		if got := log.Lost(); got != n {
			t.Errorf("%s: %d lines lost, want %d", name, got, n)
		}
		w.Close()
	}
}

// TestBlockedWriter: a reader that pauses blocks nothing, and gets the number of lines
// that were lost.
func TestBlockedWriter(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	log, err := newLog(w, "info", "console", nowhere)
	if err != nil {
		t.Fatal(err)
	}
	const n = 10 * queued
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		for i := range n {
			log.bare.Info(fmt.Sprint("message ", i, strings.Repeat(".", 100)))
		}
	}()
	select {
	case <-logged:
	case <-time.After(patience):
		t.Fatal("who logs is held")
	}
	if lost := log.Lost(); lost < n-2*queued || lost > n {
		t.Errorf("%d of %d lines lost", lost, n)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
	}()
	defer func() {
		r.Close()
		for range lines {
			continue
		}
	}()
	seen, told := 0, uint64(0)
	for told < log.Lost() { // some may have been reported while there was room
		select {
		case l := <-lines:
			_, rest, ok := strings.Cut(l, ` WARN log lines were lost, because they could not be written in time {"lines": `)
			if !ok {
				seen++
				continue
			}
			n, err := strconv.ParseUint(strings.TrimSuffix(rest, "}"), 10, 64)
			if err != nil {
				t.Fatal(l)
			}
			told += n
		case <-time.After(patience):
			t.Fatalf("of %d lines lost %d are told", log.Lost(), told)
		}
	}
	if told != log.Lost() {
		t.Errorf("%d lines were told to be lost, %d are", told, log.Lost())
	}
	go log.Close()
	for range int(n-log.Lost()) - seen {
		select {
		case <-lines:
		case <-time.After(patience):
			t.Fatal("what was queued is not written")
		}
	}
}

// TestPartialLine: a line that was written in part does not damage the next one.
func TestPartialLine(t *testing.T) {
	w := &tearing{room: 30}
	log, err := newLog(w, "info", "console", nowhere)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("one message that is too long for what is left")
	log.queue.drained(t)
	w.give(1 << 20)
	log.Info("another")
	log.Close()
	lines := strings.Split(w.String(), "\n")
	if len(lines) != 4 || !strings.HasSuffix(lines[1], "INFO another") || !strings.Contains(lines[2], `{"lines": 1}`) {
		t.Errorf("%q", lines)
	}
}

// drained waits until the queue is empty and its lines are written.
func (q *queue) drained(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for q.lost.Load() == 0 {
		if time.Now().After(deadline) {
			t.Fatal("nothing is lost")
		}
		time.Sleep(time.Millisecond)
	}
}
