package faults

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLedgerComposesWhatOverlaps(t *testing.T) {
	ctx := t.Context()
	now := map[string]int{}
	fail := ""
	l := &ledger[string, int]{
		apply: func(_ context.Context, k string, vs []int) error {
			if k == fail {
				return errors.New("refused")
			}
			now[k] = 0
			for _, v := range vs {
				now[k] += v
			}
			return nil
		},
	}
	value := func(d Dose) (int, error) {
		if !d.Has("v") {
			return 0, errors.New("no v")
		}
		return int(d.Float("v")), nil
	}
	check := func(step string, want map[string]int) {
		t.Helper()
		if diff := cmp.Diff(want, now); diff != "" {
			t.Errorf("%s: %s", step, diff)
		}
	}
	a, err := l.inject(ctx, []string{"x", "y"}, Dose{"v": 1}, value)
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.inject(ctx, []string{"y", "z"}, Dose{"v": 10}, value)
	if err != nil {
		t.Fatal(err)
	}
	check("two in force", map[string]int{"x": 1, "y": 11, "z": 10})
	if err := a.Set(ctx, Dose{"v": 2}); err != nil {
		t.Fatal(err)
	}
	check("the first set to 2", map[string]int{"x": 2, "y": 12, "z": 10})

	fail = "z"
	if _, err := l.inject(ctx, []string{"x", "z"}, Dose{"v": 100}, value); err == nil {
		t.Error("injecting at a place that refuses succeeded")
	}
	check("a failed injection leaves nothing", map[string]int{"x": 2, "y": 12, "z": 10})
	if err := b.Heal(ctx); err == nil {
		t.Error("healing at a place that refuses succeeded")
	}
	check("what could be healed is", map[string]int{"x": 2, "y": 2, "z": 10})
	fail = ""
	if err := errors.Join(b.Heal(ctx), b.Heal(ctx)); err != nil {
		t.Error(err)
	}
	check("healed again", map[string]int{"x": 2, "y": 2, "z": 0})
	if err := a.Heal(ctx); err != nil {
		t.Error(err)
	}
	check("all healed", map[string]int{"x": 0, "y": 0, "z": 0})
	if _, err := l.inject(ctx, []string{"x"}, Dose{}, value); err == nil {
		t.Error("a dose without its value was injected")
	}
}
