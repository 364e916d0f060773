package scenarios

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"brownout/cluster"
	"brownout/faults"
	"brownout/internal/pcapng"
	"brownout/internal/sys/bpf"
	"brownout/internal/sys/capture"
)

// openPlace opens the network namespace of a running cluster's node, client or cache.
func openPlace(info Info, name string) (faults.Place, error) {
	path, index := info.Client, len(info.Nodes)
	of := func(n NodeInfo) string { return fmt.Sprintf("/proc/%d/ns/net", n.Init) }
	switch {
	case name == cluster.ClientName:
	case info.Cache != nil && name == info.Cache.Name:
		path, index = of(*info.Cache), index+1 // its port is behind the client's
	default:
		index = slices.IndexFunc(info.Nodes, func(n NodeInfo) bool { return n.Name == name })
		if index < 0 {
			return faults.Place{}, &NoPlaceError{info, name}
		}
		path = of(info.Nodes[index])
	}
	ns, err := os.Open(path)
	if err != nil {
		return faults.Place{}, fmt.Errorf("enter %s: %w", name, err)
	}
	return faults.Place{Index: index, NetNS: ns}, nil
}

// A NoPlaceError says that a running cluster has no node of that name.
type NoPlaceError struct {
	info Info
	name string
}

func (e *NoPlaceError) Error() string {
	var names []string
	for _, n := range e.info.Nodes {
		names = append(names, n.Name)
	}
	if e.info.Cache != nil {
		names = append(names, e.info.Cache.Name)
	}
	return fmt.Sprintf("cluster %s has no node %q; it has %s and client", e.info.ID, e.name, strings.Join(names, ", "))
}

// pair opens two places.
func pair(info Info, a, b string) (faults.Places, func(), error) {
	at := faults.Places{}
	done := func() {
		for _, p := range at {
			p.NetNS.Close()
		}
	}
	for _, name := range []string{a, b} {
		p, err := openPlace(info, name)
		if err != nil {
			done()
			return nil, nil, err
		}
		if old, twice := at[name]; twice {
			old.NetNS.Close()
		}
		at[name] = p
	}
	return at, done, nil
}

// Probe measures the links between two places of a running cluster.
func Probe(ctx context.Context, info Info, a, b string, opt faults.PathOptions) ([]faults.Path, error) {
	at, done, err := pair(info, a, b)
	if err != nil {
		return nil, err
	}
	defer done()
	return faults.ProbePath(ctx, at, a, b, opt)
}

// Captured counts what a capture wrote and missed.
type Captured struct {
	Frames, Bytes int
	Missed        uint64
}

const captureTick = 5 * time.Millisecond

// Capture writes the frames between two places of a running cluster to w, as
// they leave one and come in at the other, until ctx ends: what the switch
// delays, drops or changes shows in the difference.
func Capture(ctx context.Context, info Info, a, b string, w io.Writer) (got Captured, err error) {
	if a == b {
		return got, fmt.Errorf("capture between %s and itself: no link between them", a)
	}
	at, done, err := pair(info, a, b)
	if err != nil {
		return got, err
	}
	defer done()
	file, err := pcapng.NewWriter(w, "brownout", a, b)
	if err != nil {
		return got, err
	}
	var taps []*capture.Socket
	for _, name := range []string{a, b} {
		tap, err := capture.Open(at[name].NetNS, "eth0")
		if err != nil {
			return got, fmt.Errorf("%s: %w", name, err)
		}
		defer tap.Close()
		taps = append(taps, tap)
	}
	macs := [2]string{string(bpf.MAC(at[a].Index)), string(bpf.MAC(at[b].Index))}
	tick := time.NewTicker(captureTick)
	defer tick.Stop()
	for more := true; more; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			more = false
		}
		var batch []pcapng.Packet
		for i, tap := range taps {
			e := tap.Read(func(f capture.Frame) {
				if len(f.Data) < 12 {
					return
				}
				to, from := string(f.Data[:6]), string(f.Data[6:12])
				if !(to == macs[0] && from == macs[1] || to == macs[1] && from == macs[0]) {
					return
				}
				p := pcapng.Packet{Interface: i, At: f.At, Direction: pcapng.In, Data: slices.Clone(f.Data), Length: f.Length}
				if f.Out {
					p.Direction = pcapng.Out
				}
				batch = append(batch, p)
			})
			err = errors.Join(err, e)
		}
		slices.SortStableFunc(batch, func(x, y pcapng.Packet) int { return int(x.At - y.At) })
		for _, p := range batch {
			if err == nil {
				err = file.Write(p)
			}
			got.Frames, got.Bytes = got.Frames+1, got.Bytes+p.Length
		}
		if err != nil {
			return got, err
		}
	}
	now := time.Duration(time.Now().UnixNano())
	for i, tap := range taps {
		n := tap.Lost()
		got.Missed += n
		err = errors.Join(err, file.Drops(i, now, n))
	}
	return got, err
}
