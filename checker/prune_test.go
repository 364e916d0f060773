package checker

import (
	"slices"
	"testing"
)

// TestWhatPruningKeeps: who is dropped, and by which time who is kept has certainly
// taken effect. That it changes no verdict is held against the search elsewhere.
func TestWhatPruningKeeps(t *testing.T) {
	for _, tt := range []struct {
		name    string
		h       *script
		kept    []int64 // operations
		rets    []int64 // their returns, ms
		dropped int
		bounded int
	}{
		{"nobody saw it", with().put("a", 0, 1).put("u", 2, 3).unknown().get("a", 4, 5), []int64{1, 3}, []int64{1, 5}, 1, 0},
		{"two saw it: the earlier counts, whatever stands first", with().put("u", 0, 1).unknown().get("u", 2, 9).get("u", 2, 5), []int64{1, 2, 3}, []int64{5, 9, 5}, 0, 1},
		{"what a swap expects was there before it was seen", with().put("x", 0, 1).unknown().cas("x", "y", "x", 2, 3).unknown().get("y", 4, 6), []int64{1, 2, 3}, []int64{6, 6, 6}, 0, 2},
		{"one of two who wrote it", with().put("u", 0, 1).unknown().put("u", 0, 2).get("u", 4, 6), []int64{1, 2, 3}, []int64{never, 2, 6}, 0, 0},
		{"what one of two swaps expected, nobody knows", with().put("x", 0, 1).unknown().cas("x", "y", "x", 2, 3).unknown().put("y", 2, 3).get("y", 4, 6), []int64{1, 2, 3, 4}, []int64{never, never, 3, 6}, 0, 0},
		{"seen by who returned before it was called: kept as a conflict", with().get("u", 0, 1).put("u", 4, 5).unknown(), []int64{1, 2}, []int64{1, 4}, 0, 1},
		{"found in a value that can be taken apart in two ways", with().app("a", 0, 1).app("b", 0, 1).put("ab", 0, 1).put("u", 0, 1).unknown().app("v", 0, 1).unknown().get("ab", 4, 6), []int64{1, 2, 3, 6}, []int64{1, 1, 1, 6}, 2, 0},
		{"someone was told only what was not there: nobody is dropped", with().put("u", 0, 1).unknown().put("w", 0, 1).unknown().blind("q", 2, 3).get("w", 4, 6), []int64{1, 2, 3, 4}, []int64{never, 6, 3, 6}, 0, 1},
		{"an empty value is everywhere", with().put("", 0, 1).put("u", 2, 3).unknown(), []int64{1, 2}, []int64{1, never}, 0, 0},
		{"all is known", with().put("a", 0, 1).get("a", 2, 3), []int64{1, 2}, []int64{1, 3}, 0, 0},
	} {
		kept, w, dropped, bounded := prune(split(tt.h.ops)[0].ops)
		var ids, rets []int64
		for i := range kept {
			ret := kept[i].ret
			if ret != never {
				ret /= 1e6
			}
			ids, rets = append(ids, kept[i].ID), append(rets, ret)
			if o := &kept[i]; o.writes() && !slices.Contains(w.owners[*o.Value], i) {
				t.Errorf("%s: operation %d is not known as the writer of %s", tt.name, o.ID, show(o.Value))
			}
		}
		if !slices.Equal(ids, tt.kept) || !slices.Equal(rets, tt.rets) || dropped != tt.dropped || bounded != tt.bounded {
			t.Errorf("%s: kept %v until %v, dropped %d, bounded %d; want %v until %v, %d and %d", tt.name, ids, rets, dropped, bounded, tt.kept, tt.rets, tt.dropped, tt.bounded)
		}
	}
}
