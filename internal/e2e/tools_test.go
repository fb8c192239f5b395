package e2e

import "strings"

func replaceAll(s, from, to string) string { return strings.ReplaceAll(s, from, to) }
