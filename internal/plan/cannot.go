package plan

import (
	"slices"
	"time"
)

// A Refusal says why a provider cannot give what a fault asks for, although its
// kind allows it.
type Refusal struct {
	Param string // whose value it is
	Why   string
	Cure  string // what to write
}

// A limitation is a value that a provider cannot take.
type limitation struct {
	Refusal
	holds func(Params) bool
}

// limitations are what providers cannot give, by kind and provider. A file that
// pins such a provider is refused when it is read; the providers themselves ask
// here when a fault is put on a live cluster.
var limitations = map[string]map[string][]limitation{
	"disk.rate": {"io.max": deviceLimits, "blkio.throttle": deviceLimits},
	"disk.iops": {"io.max": slices.Concat(deviceLimits, deviceOps), "blkio.throttle": slices.Concat(deviceLimits, deviceOps)},
	"disk.delay": {"dm-delay": {
		{Refusal{"trace", "its delay is constant", otherDisk}, func(p Params) bool { return p.Has("trace") }},
		{Refusal{"jitter", "its delay is constant", otherDisk}, func(p Params) bool { return p.Duration("jitter") > 0 }},
		{Refusal{"add", "it counts in whole milliseconds", "add: 1ms, or more of them, or provider: fuse"}, func(p Params) bool { return p.Duration("add")%time.Millisecond != 0 }},
		{Refusal{"op", "the kernel's cache is between a device and operations of other classes", "op: fsync or op: read, or provider: fuse"}, notIn("op", "", "fsync", "read")},
	}},
	"disk.error": {"dm-flakey": {
		{Refusal{"op", "the kernel's cache is between a device and operations of other classes", "op: fsync, or provider: fuse"}, notIn("op", "", "fsync")},
		{Refusal{"errno", "a device fails with EIO", "errno: EIO, or provider: fuse"}, notIn("errno", "", "EIO")},
		{Refusal{"percent", "it fails all writes or none", "percent: 100%, or provider: fuse"}, func(p Params) bool { return p.Float("percent") != 100 }},
	}},
	"cpu.quota": {"freezer2": {
		{Refusal{"burst", "a freezer saves nothing up", "no burst, or another provider"}, func(p Params) bool { return p.Duration("burst") > 0 }},
		{Refusal{"period", "a freezer needs 4ms or more", "period: 4ms or more, or another provider"}, func(p Params) bool { return p.Has("period_ns") && p.Duration("period") < FreezerPeriod }},
	}},
	"net.delay": {"netem": {
		{Refusal{"trace", "netem draws delays and cannot play recorded ones", otherNet}, func(p Params) bool { return p.Has("trace") }},
		{Refusal{"order", "netem lets packets overtake when their delay varies", "order: free, or provider: wire"}, func(p Params) bool { return p.String("order") == "keep" && p.Duration("jitter") > 0 }},
		{Refusal{"corr", "netem's correlated delays vary less than asked (Jurgelionis et al., ICCCN 2011)", otherNet}, func(p Params) bool { return p.Float("corr") > 0 }},
	}},
	"net.loss": {"netem": {
		{Refusal{"every", "netem draws losses and does not count packets", otherNet}, func(p Params) bool { return p.Float("every") > 0 }},
		{Refusal{"first", "netem draws losses and does not count packets", otherNet}, func(p Params) bool { return p.Float("first") > 0 }},
	}},
}

// FreezerPeriod is the shortest enforcement period of a quota that a freezer gives.
const FreezerPeriod = 4 * time.Millisecond

const (
	otherDisk = "provider: fuse"
	otherNet  = "provider: wire"
)

// A device has a limit for each direction, and knows nothing of other operations.
var (
	deviceLimits = []limitation{{
		Refusal{"op", "a device has a limit for reads and one for writes, not for both together or for other operations", "op: read or op: write, or provider: fuse"},
		func(p Params) bool { return p.String("op") != "read" && p.String("op") != "write" },
	}}
	// io.max refuses 1.
	deviceOps = []limitation{{Refusal{"limit", "a device's limit is 2 operations a second at least", "limit: 2 or more, or provider: fuse"}, func(p Params) bool { return p.Float("limit") < 2 }}}
)

// Cannot says why a provider cannot give what a fault of a kind asks for; nil if it can.
func Cannot(kind, provider string, p Params) *Refusal {
	for _, l := range limitations[kind][provider] {
		if l.holds(p) {
			r := l.Refusal
			return &r
		}
	}
	return nil
}

func notIn(name string, words ...string) func(Params) bool {
	return func(p Params) bool { return !slices.Contains(words, p.String(name)) }
}
