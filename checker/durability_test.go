package checker

import (
	"slices"
	"strings"
	"testing"
)

func TestDurability(t *testing.T) {
	for _, tt := range []struct {
		name  string
		h     *script
		want  Verdict
		lost  []int64
		why   string
		acked int
	}{
		{"the last write is there", with().put("a", 0, 1).put("b", 2, 3).get("b", 9, 10).final(), OK, nil, "", 2},
		{"an older one is there instead", with().put("a", 0, 1).put("b", 2, 3).get("a", 9, 10).final(), Lost, []int64{2}, "", 2},
		{"either of two at once may be there", with().put("a", 0, 5).put("b", 2, 6).get("a", 9, 10).final(), OK, nil, "", 2},
		{"nothing is there", with().put("a", 0, 1).get("-", 9, 10).final(), Lost, []int64{1}, "", 1},
		{"nothing is there, after an acknowledged delete", with().put("a", 0, 1).add("delete", 2, 3, none).get("-", 9, 10).final(), OK, nil, "", 2},
		{"nothing is there, after a delete that is unknown", with().put("a", 0, 1).add("delete", 2, 3, none).unknown().get("-", 9, 10).final(), OK, nil, "", 1},
		{"nothing is there, but the delete came before", with().add("delete", 0, 1, none).put("a", 2, 3).get("-", 9, 10).final(), Lost, []int64{2}, "", 2},
		{"a delete did not last", with().put("a", 0, 1).add("delete", 2, 3, none).get("a", 9, 10).final(), Lost, []int64{2}, "", 2},
		{"an appended element is missing", with().app("a,", 0, 1).app("b,", 2, 3).app("c,", 4, 5).get("a,c,", 9, 10).final(), Lost, []int64{2}, "", 3},
		{"elements before a put are gone by right", with().app("a,", 0, 1).put("x", 2, 3).app("c,", 4, 5).get("xc,", 9, 10).final(), OK, nil, "", 3},
		{"a put at the same time may have taken an element away", with().app("a,", 0, 5).put("x", 2, 6).get("x", 9, 10).final(), OK, nil, "", 2},
		{"an unknown write may come late and take everything away", with().put("a", 0, 1).put("u", 2, 3).unknown().put("b", 4, 5).get("u", 9, 10).final(), OK, nil, "", 2},
		{"but not once it was seen", with().put("u", 2, 3).unknown().get("u", 4, 5).put("b", 6, 7).get("u", 9, 10).final(), Lost, []int64{3}, "", 1},
		{"a swap counts", with().put("a", 0, 1).cas("a", "b", "a", 2, 3).get("a", 9, 10).final(), Lost, []int64{2}, "", 2},
		{"a swap that did not happen does not", with().put("a", 0, 1).cas("z", "b", "a", 2, 3).get("a", 9, 10).final(), OK, nil, "", 1},
		{"a write after the final read cannot be in it", with().put("a", 0, 1).put("b", 8, 12).get("a", 9, 10).final(), OK, nil, "", 2},
		{"a write that returned as the final read was called is at the same time", with().put("a", 0, 1).put("b", 8, 9).get("a", 9, 10).final(), OK, nil, "", 2},
		{"no final read", with().put("a", 0, 1).get("a", 9, 10), Unknown, nil, "no final read of 1 keys with acknowledged writes: [k7]", 1},
		{"a final read that failed is none", with().put("a", 0, 1).get("a", 9, 10).final().unknown(), Unknown, nil, "no final read of 1 keys", 1},
		{"a final value that nobody wrote", with().put("a", 0, 1).get("z", 9, 10).final(), Unknown, nil, "does not tell which writes made it: [k7]", 1},
		{"a final write is no read", with().put("a", 0, 1).put("b", 9, 10).final(), Unknown, nil, "no final read of 1 keys", 2},
		{"a put after a delete is lost", with().add("delete", 0, 1, none).put("a", 2, 3).put("b", 4, 5).get("a", 9, 10).final(), Lost, []int64{3}, "", 3},
		{"nothing was acknowledged", with().put("a", 0, 1).unknown(), OK, nil, "", 0},
		{"nothing at all", with(), OK, nil, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Durability(tt.h.ops)
			var lost []int64
			for _, l := range d.Lost {
				lost = append(lost, l.Op)
				if !strings.Contains(l.Text, "was acknowledged, but") {
					t.Errorf("text = %q", l.Text)
				}
			}
			if d.Verdict != tt.want || len(lost) != len(tt.lost) || len(lost) > 0 && lost[0] != tt.lost[0] || !strings.Contains(d.Why, tt.why) || d.Acknowledged != tt.acked {
				t.Errorf("Durability = %+v; want %s %v, %d acknowledged, %q\n%s", d, tt.want, tt.lost, tt.acked, tt.why, dump(tt.h.ops))
			}
			if d.Verdict == Lost && reference(tt.h.ops) {
				t.Error("lost, although the history with its final reads is linearizable")
			}
		})
	}
}

// TestLossesAreTold: what is gone, who found what instead, and why that proves it.
func TestLossesAreTold(t *testing.T) {
	for _, tt := range []struct {
		h    *script
		want string
	}{
		{with().put("a", 0, 1).put("b", 2, 3).get("a", 9, 10).final(), `"b" of client 2's put (op 2, n2, 0.002000 to 0.003000 s) was acknowledged, but client 3's get (op 3, n3, 0.009000 to 0.010000 s) found "a", which begins with "a", written before it`},
		{with().app("a,", 0, 1).get("-", 9, 10).final(), `"a," of client 1's append (op 1, n1, 0.000000000 to 0.001000 s) was acknowledged, but client 2's get (op 2, n2, 0.009000 to 0.010000 s) found absent, although nothing could have removed it`},
		{with().put("a", 0, 1).add("delete", 2, 3, none).get("a", 9, 10).final(), "k7: client 2's delete (op 2, n2, 0.002000 to 0.003000 s) was acknowledged, but"},
	} {
		if d := Durability(tt.h.ops); len(d.Lost) != 1 || !strings.Contains(d.Lost[0].Text, tt.want) {
			t.Errorf("%+v, want %s", d.Lost, tt.want)
		}
	}
	for n, want := range map[int]string{5: "[k k k k k]", 6: "[k k k k k] and 1 more"} {
		if got := some(slices.Repeat([]string{"k"}, n)); got != want {
			t.Errorf("some of %d = %q, want %q", n, got, want)
		}
	}
}
