package report

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine describes where the benchmark ran. Figures of different machines cannot be compared.
type Machine struct {
	Cores  int    `json:"cores"`
	CPU    string `json:"cpu"`
	Kernel string `json:"kernel"`
	Load   string `json:"load"` // average over 1, 5 and 15 minutes when it began
	Go     string `json:"go"`   // that the benchmark itself was built with
}

// ThisMachine describes the machine as it is now. What the kernel does not tell is left empty.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			key, value, _ := strings.Cut(line, ":")
			if strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if average, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(average))[:3], " ")
	}
	return m
}

// String is one line for people.
func (m Machine) String() string {
	return fmt.Sprintf("%d cores (%s), Linux %s, load average %s, %s", m.Cores, m.CPU, m.Kernel, m.Load, m.Go)
}
