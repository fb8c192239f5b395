package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// machine describes the system on which the figures were measured.
type machine struct {
	cpu    string
	cores  int
	kernel string
	golang string
}

func thisMachine(ctx context.Context) (machine, error) {
	m := machine{cpu: "unknown processor", cores: runtime.NumCPU(), golang: runtime.Version()}
	var err error
	if m.kernel, err = kernelVersion(ctx, ""); err != nil {
		return m, err
	}
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			m.cpu = strings.TrimSpace(value)
			break
		}
	}
	return m, nil
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores, %s", m.cpu, m.cores, m.kernel)
}
