package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// resourceOptions returns the table of what the process may use of the machine.
func (c *Config) resourceOptions() []option {
	return []option{{
		key: "cpus", value: cpuList(&c.CPUs), restart: true,
		doc: "The CPUs that the process may run on, such as 0-1 or 0,2; without it all that it is given. Go starts as many threads for its own work, " +
			"unless GOMAXPROCS says something else.",
	}, {
		key: "memory.limit", value: size(&c.Memory.Limit), restart: true,
		doc: "How much memory Go may use before it collects garbage at any price. 0 takes GOMEMLIMIT, else 85 % of the control group's limit, else none.",
	}, {
		key: "memory.admission", value: number(&c.Memory.Admission, 0, 100),
		doc: "The percentage of the memory limit from which on new clients are refused with SQLSTATE 53300, so that those that are there can go on. What counts " +
			"is what is in use, not garbage. 0 refuses nobody; nor is anybody refused without a memory limit.",
	}}
}

// sizes are the units of a size in bytes, the largest first.
func sizes() []struct {
	unit  string
	bytes int64
} {
	return []struct {
		unit  string
		bytes int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
}

// minSize is the least size that is not taken for a missing unit.
const minSize = 4 << 20

// size is a number of bytes; 0 is none.
func size(to *int64) value {
	const takes = "a size with its unit (KiB, MiB, GiB) from 4MiB, or 0"
	return scalar[int64]{to: to, takes: takes, format: formatSize, parse: func(text string) (int64, *problem) {
		if text == "0" {
			return 0, nil
		}
		for _, s := range sizes() {
			digits, found := strings.CutSuffix(text, s.unit)
			if !found {
				continue
			}
			n, err := strconv.ParseInt(digits, 10, 64)
			if err != nil || n < 0 || n > math.MaxInt64/s.bytes {
				break
			}
			if n *= s.bytes; n < minSize {
				return 0, &problem{text + " is out of range", "write " + takes}
			}
			return n, nil
		}
		return 0, &problem{fmt.Sprintf("%q is no size", text), "write " + takes + ", such as 128MiB"}
	}}
}

// formatSize writes a size in the largest unit that is exact.
func formatSize(n int64) string {
	for _, s := range sizes() {
		if n != 0 && n%s.bytes == 0 {
			return strconv.FormatInt(n/s.bytes, 10) + s.unit
		}
	}
	return "0"
}

// maxCPU is the highest number that a CPU may have: the kernel's own bound.
const maxCPU = 1023

// cpuList is a list of CPUs as the kernel writes it, 0-1,3; empty is all.
func cpuList(to *[]int) value {
	const takes = "a list of CPUs such as 0-1,3"
	return scalar[[]int]{to: to, tag: "!!str", takes: takes, format: formatCPUs, parse: func(text string) ([]int, *problem) {
		var cpus []int
		for part := range strings.SplitSeq(text, ",") {
			if text == "" {
				break
			}
			from, through, isRange := strings.Cut(part, "-")
			if !isRange {
				through = from
			}
			low, err := strconv.Atoi(from)
			high, otherErr := strconv.Atoi(through)
			if err != nil || otherErr != nil || low < 0 || high < low || high > maxCPU {
				return nil, &problem{fmt.Sprintf("%q is no list of CPUs", text), "write " + takes}
			}
			for n := low; n <= high; n++ {
				cpus = append(cpus, n)
			}
		}
		slices.Sort(cpus)
		return slices.Compact(cpus), nil
	}}
}

// formatCPUs writes neighbours as ranges.
func formatCPUs(cpus []int) string {
	var parts []string
	for i := 0; i < len(cpus); {
		end := i
		for end+1 < len(cpus) && cpus[end+1] == cpus[end]+1 {
			end++
		}
		part := strconv.Itoa(cpus[i])
		if end > i {
			part += "-" + strconv.Itoa(cpus[end])
		}
		parts = append(parts, part)
		i = end + 1
	}
	return strings.Join(parts, ",")
}
