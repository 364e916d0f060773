package scenarios

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"brownout/internal/plan"
	"brownout/internal/quantity"
)

// networkShape is what healthy links are: a profile's name, or fields.
func networkShape(n *plan.Network) *spec {
	var names, docs []string
	for _, p := range plan.NetworkProfiles {
		names = append(names, p.Name)
		docs = append(docs, p.Name+": "+p.Doc)
	}
	profile := func() *spec {
		return text("a profile, for what the other fields do not say ("+strings.Join(docs, "; ")+")", names[0], &n.Profile, names...)
	}
	sp := profile()
	sp.doc = "healthy links; without it, the bare bridge"
	sp.fields = []field{
		{"profile", false, profile()},
		{"delay", false, duration("one way, on every link", "200us", &n.Delay)},
		{"jitter", false, duration("spread around delay; never reorders", "20us", &n.Jitter)},
		{"limit", false, parsed("bits a second on every link", "100Mbit/s", bitRatePattern, &n.Rate, quantity.ParseBitRate)},
		{"queue", false, parsed("room before the limit; what exceeds it is dropped", "256KiB", sizePattern, &n.Queue, quantity.ParseSize)},
		{"congestion", false, &spec{doc: "TCP's congestion control on every link (default cubic)", leaf: &leaf{
			example: "cubic", pattern: congestionPattern, set: func(t string) error {
				if !validCongestion().MatchString(t) {
					return fmt.Errorf("%q is no name of a congestion control, as in cubic", t)
				}
				n.Congestion = t
				return nil
			},
		}}},
		{"mtu", false, integer("bytes of the largest packet (default 1500)", "1500", leastMTU, mostMTU, func(v int64) error {
			if v < leastMTU || v > mostMTU {
				return fmt.Errorf("an MTU of %d is not in %d..%d", v, leastMTU, mostMTU)
			}
			n.MTU = int(v)
			return nil
		})},
	}
	return sp
}

const (
	congestionPattern   = `^[a-z0-9_-]{1,15}$`
	leastMTU, mostMTU   = 1280, 9000
	leastRate, mostRate = 8_000, 100_000_000_000
	leastQueue          = 3000
	mostQueue           = 64 << 20
)

var validCongestion = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(congestionPattern) })

// networkProblems says what is wrong with healthy links.
func networkProblems(n plan.Network) (out []problem) {
	add := func(field, format string, a ...any) {
		out = append(out, problem{path: "network." + field, msg: fmt.Sprintf(format, a...)})
	}
	out = append(out, checkTimes("network.delay", n.Delay, time.Minute)...)
	out = append(out, checkTimes("network.jitter", n.Jitter, time.Minute)...)
	if n.Jitter > n.Delay && n.Delay >= 0 {
		add("jitter", "%s is more than the delay of %s, and no link is faster than none", quantity.Duration(n.Jitter), quantity.Duration(n.Delay))
	}
	if n.Rate != 0 && (n.Rate < leastRate || n.Rate > mostRate) {
		add("limit", "%s is not in %s … %s", quantity.BitRate(n.Rate), quantity.BitRate(leastRate), quantity.BitRate(mostRate))
	}
	switch {
	case n.Queue != 0 && n.Rate == 0:
		add("queue", "a queue without a limit never fills")
	case n.Queue != 0 && (n.Queue < leastQueue || n.Queue > mostQueue):
		add("queue", "%s is not in %s … %s", quantity.Size(n.Queue), quantity.Size(leastQueue), quantity.Size(mostQueue))
	}
	if n.MTU != 0 && (n.MTU < leastMTU || n.MTU > mostMTU) {
		add("mtu", "%d is not in %d..%d", n.MTU, leastMTU, mostMTU)
	}
	if n.Congestion != "" && !validCongestion().MatchString(n.Congestion) {
		add("congestion", "%q is no name of a congestion control", n.Congestion)
	}
	known := n.Profile == ""
	for _, p := range plan.NetworkProfiles {
		known = known || p.Name == n.Profile
	}
	if !known {
		add("profile", "there is no profile %q", n.Profile)
	}
	return out
}
