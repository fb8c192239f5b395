package main

import (
	"fmt"
	"strings"
)

// page is a manual page in the language of man(7). Of the roff language it uses a
// dozen requests, fewer than what a library for it depends on.
type page struct{ b strings.Builder }

// newPage begins a page. It has neither date nor version: what is made of the same
// source twice is the same twice.
func newPage(name, section, of string) *page {
	p := new(page)
	fmt.Fprintf(&p.b, ".TH %s %s \"\" sixfour \"%s\"\n", strings.ToUpper(name), section, of)
	return p
}

func (p *page) section(name string) { fmt.Fprintf(&p.b, ".SH %s\n", name) }

// text is a paragraph, or several with empty lines between them. Lines that begin
// with a tab or two spaces stay as they are.
func (p *page) text(s string) {
	for paragraph := range strings.SplitSeq(strings.TrimSpace(s), "\n\n") {
		if strings.HasPrefix(paragraph, "  ") || strings.HasPrefix(paragraph, "\t") {
			p.verbatim(paragraph)
			continue
		}
		p.b.WriteString(".PP\n")
		p.lines(paragraph)
	}
}

func (p *page) verbatim(s string) {
	p.b.WriteString(".PP\n.nf\n.RS\n")
	p.lines(s)
	p.b.WriteString(".RE\n.fi\n")
}

// item is a term and what it means.
func (p *page) item(term, meaning string) {
	p.b.WriteString(".TP\n")
	fmt.Fprintf(&p.b, "%s\n", term)
	p.lines(meaning)
}

// lines writes text, none of which becomes a request.
func (p *page) lines(s string) {
	for line := range strings.SplitSeq(strings.Trim(s, "\n"), "\n") {
		line = plain(line)
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		p.b.WriteString(line + "\n")
	}
}

// plain is text as roff prints it.
func plain(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", "").Replace(s)
}

func strong(s string) string { return `\fB` + plain(s) + `\fR` }

func slanted(s string) string { return `\fI` + plain(s) + `\fR` }
