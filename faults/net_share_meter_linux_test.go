package faults_test

import (
	"context"
	"testing"
	"time"

	"brownout/faults"
	"brownout/internal/wire"
)

// TestShareMetersSeeWhatTheWireDoes has the switch impair a link behind the
// meters' back, as asked and otherwise.
func TestShareMetersSeeWhatTheWireDoes(t *testing.T) {
	c := up(t, 2)
	bench := faults.NewBench(faults.Bed{Cluster: c})
	site := faults.Site{Links: []faults.Link{{From: "n1", To: "n2"}}}
	if err := c.Switch().Prepare(t.Context()); err != nil {
		t.Skip(err)
	}
	for _, tt := range []struct {
		name, kind string
		percent    float64
		imp        wire.Impairment
		want       bool
	}{
		{"20 % are lost, not 5", "net.loss", 5, wire.Impairment{Loss: 0.2}, false},
		{"10 % are lost, not damaged", "net.corrupt", 10, wire.Impairment{Loss: 0.1}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dose := faults.Dose{"percent": tt.percent}
			m, err := bench.MeterBy(faults.ShareMeters[tt.kind], site, dose)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if _, err := m.Baseline(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := c.Switch().Impair(t.Context(), 0, 1, tt.imp); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 800*time.Millisecond)
			defer cancel()
			r, answer, err := m.Measure(ctx, dose)
			if e := c.Switch().Impair(t.Context(), 0, 1, wire.Impairment{}); e != nil {
				t.Fatal(e)
			}
			t.Log(r.Values, answer.Why)
			if err != nil || answer.Yes != tt.want {
				t.Errorf("Measure = %v, %v; want %v", answer.Yes, err, tt.want)
			}
			if _, healed, err := m.Healed(t.Context()); err != nil || !healed.Yes {
				t.Errorf("Healed = %v, %q, %v", healed.Yes, healed.Why, err)
			}
		})
	}
}
