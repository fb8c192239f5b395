// Sixfourctl is the operator's tool: it shows what a running sixfourd does, and
// demonstrates one.
package main

import (
	"os"

	"sixfour/internal/ctl"
)

func main() { os.Exit(ctl.Main()) }
