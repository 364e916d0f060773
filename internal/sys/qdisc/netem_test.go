package qdisc

import (
	"math"
	"testing"
	"time"
)

func TestOptionsSurviveTheWayBack(t *testing.T) {
	for _, tt := range []struct {
		name string
		n    Netem
	}{
		{"nothing", Netem{Limit: 1}},
		{"a delay of nanoseconds", Netem{Delay: 1_234_567, Limit: 1000}},
		{"longer than 32 bits of nanoseconds", Netem{Delay: 20 * time.Second, Limit: 1000}},
		{"jitter", Netem{Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, Limit: 9}},
		{"shares", Netem{Delay: 1, Loss: 0.05, Duplicate: 0.02, Reorder: 0.25, Corrupt: 0.1, Limit: 9}},
		{"all", Netem{Loss: 1, Limit: 9}},
		{"bursts", Netem{GE: &GE{0.05, 0.5, 1, 0.001}, Limit: 9}},
		{"rates below and above 4 GB/s", Netem{BytesPerSec: 125_000, Limit: 9}},
		{"a large rate", Netem{BytesPerSec: 5e9, Limit: 9}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.n.Seed = 7
			b, err := tt.n.options()
			if err != nil {
				t.Fatal(err)
			}
			got, seeded, err := decode(b)
			if err != nil || !seeded || got.Seed != 7 {
				t.Errorf("decode = seed %d, %v, %v", got.Seed, seeded, err)
			}
			if bad := tt.n.same(got); bad != "" {
				t.Error(bad)
			}
		})
	}
}

func TestDifferencesAreSeen(t *testing.T) {
	a := Netem{Delay: time.Millisecond, Loss: 0.1, Limit: 10}
	for _, b := range []Netem{
		{},
		{Delay: time.Millisecond, Loss: 0.1, Limit: 11},
		{Delay: time.Millisecond, Loss: 0.2, Limit: 10},
		{Delay: 2 * time.Millisecond, Loss: 0.1, Limit: 10},
		{Delay: time.Millisecond, Loss: 0.1, Limit: 10, Corrupt: 0.1},
		{Delay: time.Millisecond, Loss: 0.1, Limit: 10, GE: &GE{ToBad: 1}},
	} {
		if a.same(b) == "" {
			t.Errorf("%+v passes for %+v", b, a)
		}
	}
}

func TestImpossibleOptionsAreRefused(t *testing.T) {
	for _, n := range []Netem{
		{Loss: 1.1},
		{Duplicate: -0.1},
		{Corrupt: math.NaN()},
		{Delay: -1},
		{Delay: 1, Reorder: 0.1, BytesPerSec: 1},
		{Jitter: time.Minute},
		{Jitter: 1, Table: make([]float64, MaxTable+1)},
	} {
		if _, err := n.options(); err == nil {
			t.Errorf("%+v was taken", n)
		}
	}
}

// What the kernel makes of a table: sigma*t/NETEM_DIST_SCALE.
func TestTableKeepsAHeavyTail(t *testing.T) {
	n := Netem{Jitter: time.Millisecond, Table: []float64{-1, 0, 1, 35}}
	sigma, table, err := n.table()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range n.Table {
		step := int16(le.Uint16(table[2*i:]))
		got := float64(sigma) * float64(step) / tableScale / float64(n.Jitter)
		if math.Abs(got-want) > 0.001 {
			t.Errorf("point %d is %.4f jitters, want %v", i, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, _ := Netem{Delay: 1, Loss: 0.5, GE: &GE{0.1, 0.2, 0.3, 0.4}, Limit: 5}.options()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		n, _, err := decode(b)
		if err != nil || n.BytesPerSec > 0 && n.Reorder > 0 {
			return
		}
		// What decodes and can be asked for must come back the same.
		again, err := n.options()
		if err != nil {
			return
		}
		n.Table = nil
		back, _, err := decode(again)
		if err != nil {
			t.Fatal(err)
		}
		if bad := n.same(back); bad != "" {
			t.Fatalf("%+v comes back as %+v: %s", n, back, bad)
		}
	})
}
