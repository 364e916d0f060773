package scenarios

import (
	"errors"
	"testing"

	"brownout/cluster"
)

func TestWhoDoesNotAnswerHasNotAppliedNothing(t *testing.T) {
	st := []cluster.Status{{Node: "n1", Applied: 7}, {Node: "n2", Err: errors.New("silence")}}
	if got, want := applied(st), "n1 7, n2 does not answer"; got != want || agreed(st) {
		t.Errorf("%q, agreed %v; want %q", got, agreed(st), want)
	}
}
