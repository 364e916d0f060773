package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxCPU is the highest number of a CPU that a list may hold.
const maxCPU = 8191

// ParseCPUs reads a list of CPUs as the kernel writes it, "0-2,4", in ascending
// order.
func ParseCPUs(list string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(first, 10, 16)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(last, 10, 16)
		}
		if err != nil {
			return nil, fmt.Errorf("%q is not a list of CPUs, as in 0 or 0-2,4", list)
		}
		if b > maxCPU || a > b {
			return nil, fmt.Errorf("%q: %s is not a range of CPUs from 0 to %d", list, part, maxCPU)
		}
		for c := a; c <= b; c++ {
			cpus = append(cpus, int(c))
		}
	}
	slices.Sort(cpus)
	return slices.Compact(cpus), nil
}

// FormatCPUs writes what [ParseCPUs] reads.
func FormatCPUs(cpus []int) string {
	var parts []string
	for i := 0; i < len(cpus); {
		j := i
		for j+1 < len(cpus) && cpus[j+1] == cpus[j]+1 {
			j++
		}
		part := strconv.Itoa(cpus[i])
		if j > i {
			part += "-" + strconv.Itoa(cpus[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ",")
}
