package telemetry

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"brownout/internal/clock"
	"brownout/internal/run"
)

func constant(v float64) Numbers {
	return func(context.Context) (map[string]float64, error) { return map[string]float64{"x": v}, nil }
}

// collect samples for d and returns the samples by node and source.
func collect(t *testing.T, d time.Duration, sources ...Source) map[string][]run.Sample {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	got := map[string][]run.Sample{}
	s := Sampler{Clock: clock.At(clock.Raw())}
	if err := s.Run(ctx, sources, func(sm run.Sample) error {
		got[sm.Node+" "+sm.Source] = append(got[sm.Node+" "+sm.Source], sm)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestFrozenNodeCostsNobodyElseASample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		frozen := func(ctx context.Context) (map[string]float64, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		got := collect(t, 4950*time.Millisecond,
			Source{Node: "n1", Name: "cgroup", Read: constant(1)},
			Source{Node: "n1", Name: "tcp", Skip: 1, Read: constant(1)},
			Source{Node: "n2", Name: "runtime", Slow: true, Read: constant(2)},
			Source{Node: "n3", Name: "runtime", Slow: true, Read: frozen},
		)
		for name, want := range map[string]int{"n1 cgroup": 50, "n1 tcp": 25, "n2 runtime": 50, "n3 runtime": 4} {
			if n := len(got[name]); n != want {
				t.Errorf("%d samples of %s, want %d", n, name, want)
			}
		}
		if diff := cmp.Diff(map[string]float64{"failed": 3}, got["n3 runtime"][2].Values); diff != "" {
			t.Error(diff)
		}
		if d := got["n1 cgroup"][9].T - got["n1 cgroup"][8].T; d != int64(Every) {
			t.Errorf("samples are %v apart", time.Duration(d))
		}
	})
}

func TestOnlyNumbersThatJSONKnowsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := collect(t, time.Millisecond, Source{Node: "n1", Name: "x", Read: func(context.Context) (map[string]float64, error) {
			return map[string]float64{"nan": math.NaN(), "inf": math.Inf(1), "one": 1}, nil
		}})
		if diff := cmp.Diff(map[string]float64{"one": 1}, got["n1 x"][0].Values); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSamplerEndsWithTheFirstErrorOfItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("no space left on device")
		s := Sampler{Clock: clock.At(clock.Raw())}
		n := 0
		err := s.Run(t.Context(), []Source{{Read: constant(1)}, {Slow: true, Read: constant(1)}}, func(run.Sample) error {
			if n++; n == 5 {
				return full
			}
			return nil
		})
		if err != full || n != 5 {
			t.Errorf("%v after %d samples, want the error after 5", err, n)
		}
	})
}

func TestLogIsOneSampleALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "telemetry.jsonl")
	l, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var want []run.Sample
	for i := range 100 {
		s := run.Sample{T: int64(i), Node: "n1", Source: "cgroup", Values: map[string]float64{"cpu_ns": float64(i) * 1e6, "b": 0.5}}
		want = append(want, s)
		if err := l.Write(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got []run.Sample
	for in := bufio.NewScanner(f); in.Scan(); {
		var s run.Sample
		if err := json.Unmarshal(in.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		got = append(got, s)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
