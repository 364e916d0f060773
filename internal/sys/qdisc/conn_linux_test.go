package qdisc

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"brownout/internal/needs"
	"brownout/internal/sys/link"
	"brownout/internal/sys/netns"
)

var hasNetem = needs.Need{Name: "netem", Check: func() string {
	ns, err := netns.New()
	if err != nil {
		return err.Error()
	}
	defer ns.Close()
	if _, err := Probe(ns); err != nil {
		return err.Error()
	}
	return ""
}}

// couple is a namespace with a veth pair, of which the first device has an
// address and takes everybody else's frames to the second.
func couple(t *testing.T) (ns *os.File, index, other int) {
	t.Helper()
	needs.Host(t, needs.Root, hasNetem)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	c, err := link.At(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	index = 10
	if other, err = c.Couple("a", index, 1500, "b"); err != nil {
		t.Fatal(err)
	}
	err = errors.Join(c.Address(index, netip.MustParsePrefix("10.9.0.1/24")),
		c.Neighbour(index, netip.MustParseAddr("10.9.0.2"), net.HardwareAddr{2, 0, 0, 0, 0, 9}))
	if err != nil {
		t.Fatal(err)
	}
	return ns, index, other
}

func TestKernelHasWhatWasSet(t *testing.T) {
	ns, index, _ := couple(t)
	c, err := At(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := c.Get(index); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a device without netem: %v", err)
	}
	// Each in place of the one before; Set itself reads back.
	for _, n := range []Netem{
		{Delay: 1_234_567, Limit: 1000},
		{Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Limit: 1000},
		{Delay: 20 * time.Millisecond, Reorder: 0.25, Limit: 1000},
		{Loss: 0.1, Duplicate: 0.02, Corrupt: 0.3, Limit: 1000},
		{GE: &GE{0.05, 0.5, 1, 0}, Limit: 1000},
		{BytesPerSec: 1_250_000, Limit: 30},
		{BytesPerSec: 5_000_000_000, Limit: 30},
		{Limit: 1000},
	} {
		if err := c.Set(index, n); err != nil {
			t.Errorf("%+v: %v", n, err)
		}
	}
	if err := c.Set(4711, Netem{Limit: 1}); err == nil {
		t.Error("a device that is not there has netem")
	}
}

// The statistics are those of many packets, counted at the other end.
func TestSharesOfManyPackets(t *testing.T) {
	ns, index, other := couple(t)
	c, err := At(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, err := link.At(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := netns.Dial(t.Context(), ns, "udp", "10.9.0.2:9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const n = 5000
	for _, tt := range []struct {
		name  string
		n     Netem
		share float64 // that arrives
		wide  float64 // variance against that of independent packets
	}{
		{"healthy", Netem{}, 1, 0},
		{"loss", Netem{Loss: 0.1}, 0.9, 1},
		{"bursts", Netem{GE: &GE{0.05, 0.5, 1, 0}}, 1 - 1.0/11, 3}, // theory: (2-p-r)/(p+r)
		{"bursts of half", Netem{GE: &GE{0.05, 0.5, 0.5, 0}}, 1 - 0.5/11, 3},
		{"duplicates", Netem{Duplicate: 0.2}, 1.2, 1},
		{"all lost", Netem{Loss: 1}, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.n.Limit, tt.n.Seed = 2*n, 1
			if err := c.Set(index, tt.n); err != nil {
				t.Fatal(err)
			}
			before, err := l.Received(other)
			if err != nil {
				t.Fatal(err)
			}
			for range n {
				if _, err := conn.Write(make([]byte, 64)); err != nil {
					t.Fatal(err)
				}
			}
			after, err := l.Received(other)
			if err != nil {
				t.Fatal(err)
			}
			got := float64(after-before) / n
			p := tt.share - math.Floor(tt.share)
			if tt.share == 1 {
				p = 0
			}
			if most := 4*math.Sqrt(p*(1-p)*tt.wide/n) + 1e-9; math.Abs(got-tt.share) > most {
				t.Errorf("%.4f of %d arrive, want %.4f ± %.4f", got, n, tt.share, most)
			} else {
				t.Logf("%.4f of %d arrive, want %.4f ± %.4f", got, n, tt.share, most)
			}
		})
	}
}
