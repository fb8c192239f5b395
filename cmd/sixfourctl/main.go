// Sixfourctl is the command line tool for operators: it shows the state of a running
// sixfourd, and runs a demonstration.
package main

import (
	"os"

	"sixfour/internal/ctl"
)

func main() { os.Exit(ctl.Main()) }
