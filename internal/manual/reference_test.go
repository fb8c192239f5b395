package main

import (
	"os"
	"testing"
)

// TestReference: docs/reference.md is what the program generates.
func TestReference(t *testing.T) {
	b, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != string(referencePage()) {
		t.Error("docs/reference.md differs from what the program generates: run make docs")
	}
}
