package checker

import (
	"fmt"
	"testing"

	"brownout/internal/history"
)

// by gives the last operation of a script a client and a node.
func (s *script) by(client int, node string) *script {
	o := &s.ops[len(s.ops)-1]
	o.Client, o.Node = client, node
	return s
}

func TestLevels(t *testing.T) {
	none, held := Guarantee{}, func(n int) Guarantee { return Guarantee{Checked: n} }
	broken := func(n, b int, first int64) Guarantee { return Guarantee{n, b, first} }
	for _, tt := range []struct {
		name string
		h    *script
		want Level
	}{
		{
			"what is linearizable keeps all",
			with().put("a", 0, 1).by(1, "n").get("a", 2, 3).by(1, "n").put("b", 4, 5).by(2, "n").get("b", 6, 7).by(1, "n"),
			Level{Reads: 2, ReadYourWrites: held(2), MonotonicReads: held(1)},
		},
		{
			"a stale read, by how much",
			with().put("a", 0, 1).by(1, "n").put("b", 2, 3).by(1, "n").put("c", 4, 5).by(1, "n").get("a", 10, 11).by(2, "n"),
			Level{Reads: 1, Stale: 1, StaleMax: 7e6, StaleP99: 7e6, VersionsMax: 2},
		},
		{
			"two writes at once may be in either order",
			with().put("a", 0, 5).by(1, "n").put("b", 0, 5).by(2, "n").get("a", 10, 11).by(3, "n"),
			Level{Reads: 1},
		},
		{
			"unless a read has seen one",
			with().put("a", 0, 9).by(1, "n").get("a", 1, 2).by(3, "n").put("b", 3, 9).by(2, "n").get("a", 10, 11).by(4, "n"),
			Level{Reads: 2, Stale: 1, StaleMax: 1e6, StaleP99: 1e6, VersionsMax: 1},
		},
		{
			"not one's own write",
			with().put("a", 0, 1).by(1, "n").put("b", 2, 3).by(1, "n").get("a", 4, 5).by(1, "n").get("-", 6, 7).by(1, "n"),
			Level{
				Reads: 2, Stale: 2, StaleMax: 5e6, StaleP99: 5e6, VersionsMax: 2,
				ReadYourWrites: broken(2, 2, 3), MonotonicReads: broken(1, 1, 4),
				WritesFollowReads: none,
			},
		},
		{
			"back in time",
			with().put("a", 0, 1).by(1, "n").put("b", 2, 3).by(2, "n").get("b", 4, 5).by(3, "n").get("a", 6, 7).by(3, "n"),
			Level{Reads: 2, Stale: 1, StaleMax: 3e6, StaleP99: 3e6, VersionsMax: 1, MonotonicReads: broken(1, 1, 4)},
		},
		{
			"a client's writes in the wrong order",
			with().put("a", 0, 1).by(1, "n").put("b", 2, 3).by(1, "n").get("b", 4, 5).by(3, "n").get("a", 6, 7).by(3, "n"),
			Level{Reads: 2, Stale: 1, StaleMax: 3e6, StaleP99: 3e6, VersionsMax: 1, MonotonicReads: broken(1, 1, 4), MonotonicWrites: broken(1, 1, 4)},
		},
		{
			"what was read before a write, after it",
			with().put("a", 0, 1).by(1, "n").get("a", 2, 3).by(2, "n").put("b", 4, 5).by(2, "n").get("b", 6, 7).by(3, "n").get("a", 8, 9).by(3, "n"),
			Level{Reads: 3, Stale: 1, StaleMax: 3e6, StaleP99: 3e6, VersionsMax: 1, MonotonicReads: broken(1, 1, 5), WritesFollowReads: broken(1, 1, 5)},
		},
		{
			"appends",
			with().app("a", 0, 1).by(1, "n").app("b", 2, 3).by(1, "n").get("ab", 4, 5).by(2, "n").get("a", 6, 7).by(2, "n"),
			Level{Reads: 2, Stale: 1, StaleMax: 3e6, StaleP99: 3e6, VersionsMax: 1, MonotonicReads: broken(1, 1, 4), MonotonicWrites: broken(1, 1, 4)},
		},
		{
			"what was deleted",
			with().put("a", 0, 1).by(1, "n").add("delete", 2, 3, func(*history.Op) {}).by(2, "n").get("a", 10, 11).by(2, "n").get("-", 12, 13).by(2, "n"),
			Level{Reads: 1, Stale: 1, StaleMax: 7e6, StaleP99: 7e6, VersionsMax: 1, ReadYourWrites: broken(1, 1, 3)},
		},
		{
			"what nobody wrote is not judged, nor what two wrote",
			with().put("a", 0, 1).by(1, "n").get("z", 2, 3).by(1, "n").put("d", 4, 5).by(1, "n").put("d", 4, 5).by(2, "n").get("d", 6, 7).by(1, "n").get("a", 6, 7).by(3, "n"),
			Level{Reads: 1, Stale: 1, StaleMax: 1e6, StaleP99: 1e6, VersionsMax: 2},
		},
		{
			"what a swap finds counts for its client, and is no read",
			with().put("a", 0, 1).by(1, "n").put("b", 2, 3).by(1, "n").cas("b", "c", "b", 4, 5).by(2, "n").get("a", 6, 7).by(2, "n"),
			Level{Reads: 1, Stale: 1, StaleMax: 3e6, StaleP99: 3e6, VersionsMax: 2, ReadYourWrites: broken(1, 1, 4), MonotonicReads: broken(1, 1, 4), MonotonicWrites: broken(1, 1, 4)},
		},
		{
			"who returned when it was called may come after it",
			with().put("a", 0, 4).by(1, "n").put("b", 4, 5).by(2, "n").get("b", 5, 6).by(3, "n").get("a", 5, 6).by(4, "n").get("a", 6, 7).by(3, "n"),
			Level{Reads: 3, MonotonicReads: held(1)},
		},
		{
			"a read when the next write returned is not stale",
			with().put("a", 0, 1).by(1, "n").put("b", 2, 4).by(2, "n").put("c", 2, 3).by(3, "n").get("a", 4, 5).by(4, "n"),
			Level{Reads: 1, Stale: 1, StaleMax: 1e6, StaleP99: 1e6, VersionsMax: 1},
		},
		{
			"nor is one that was called at that instant, if there is no other write",
			with().put("a", 0, 1).by(1, "n").put("b", 2, 4).by(2, "n").get("a", 4, 5).by(4, "n"),
			Level{Reads: 1},
		},
		{
			"what is older than what was read before a write, after it",
			with().put("a", 0, 1).by(1, "n").put("b", 2, 3).by(1, "n").get("b", 4, 5).by(2, "n").put("c", 6, 7).by(2, "n").get("c", 8, 9).by(3, "n").get("a", 10, 11).by(3, "n"),
			Level{Reads: 3, Stale: 1, StaleMax: 7e6, StaleP99: 7e6, VersionsMax: 2, MonotonicReads: broken(1, 1, 6), WritesFollowReads: broken(1, 1, 6)},
		},
		{
			"found before it was written, and again",
			with().get("a", 0, 1).by(2, "n").put("a", 4, 5).by(1, "n").get("a", 6, 7).by(2, "n"),
			Level{Reads: 2, MonotonicReads: held(1)},
		},
		{
			"the newest that was found counts, in whatever order",
			with().put("a", 0, 1).by(1, "n").put("b", 2, 3).by(2, "n").get("a", 2, 3).by(3, "n").get("b", 4, 5).by(3, "n").get("a", 6, 7).by(3, "n").get("a", 8, 9).by(3, "n"),
			Level{Reads: 4, Stale: 2, StaleMax: 5e6, StaleP99: 5e6, VersionsMax: 1, MonotonicReads: broken(3, 2, 5)},
		},
		{
			"absent, then there, then the same again",
			with().get("-", 0, 1).by(3, "n").put("a", 2, 3).by(1, "n").get("a", 4, 5).by(3, "n").get("a", 6, 7).by(3, "n"),
			Level{Reads: 3, MonotonicReads: held(2)},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Levels(tt.h.ops, func(o *history.Op) string { return o.Node })
			tt.want.Mode = "n"
			if len(got) != 1 || got[0] != tt.want {
				t.Errorf("Levels = %+v\nwant     [%+v]", got, tt.want)
			}
		})
	}
}

// TestLevelsOfOddKeys: an empty value is in every other, so nothing is told of its
// key; and how many writes a read missed is counted so far.
func TestLevelsOfOddKeys(t *testing.T) {
	mode := func(o *history.Op) string { return o.Node }
	if got := Levels(with().put("", 0, 1).by(1, "n").get("-", 2, 3).by(2, "n").ops, mode); len(got) != 0 {
		t.Errorf("of a key with an empty value: %+v", got)
	}
	h := with().put("first", 0, 1).by(1, "n")
	for i := range int64(maxMissed + 5) {
		h.put(fmt.Sprint(i), 2+2*i, 3+2*i).by(1, "n")
	}
	h.get("first", 9000, 9001).by(2, "n")
	if got := Levels(h.ops, mode); len(got) != 1 || got[0].VersionsMax != maxMissed {
		t.Errorf("a read that missed %d writes: %+v", maxMissed+5, got)
	}
}

func TestLevelsAreByMode(t *testing.T) {
	h := with().put("a", 0, 1).by(1, "n1").put("b", 2, 3).by(1, "n1").get("b", 4, 5).by(2, "n1").get("a", 6, 7).by(3, "n2").get("a", 6, 7).by(4, "")
	got := Levels(h.ops, func(o *history.Op) string { return o.Node })
	if len(got) != 2 || got[0].Mode != "n1" || got[0].Stale != 0 || got[1].Mode != "n2" || got[1].Stale != 1 {
		t.Errorf("Levels = %+v", got)
	}
}
