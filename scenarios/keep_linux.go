package scenarios

import (
	"context"
	"fmt"
)

// keep closes the run's record while the nodes still run, so that it can be
// judged, and then holds them as long as people want to look at them: what
// happens meanwhile is theirs, and no part of the run. It returns when ctx ends
// or somebody takes the cluster down.
func (s *session) keep(ctx context.Context) error {
	finish, cancel := context.WithTimeoutCause(ctx, closeWithin, fmt.Errorf("not within %v", closeWithin))
	defer cancel()
	if err := s.load.Finish(finish); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	s.end(ctx, nil)
	h := &holder{id: s.Short, dir: s.Dir, cluster: s.cluster, nemesis: s.nemesis}
	l, err := h.listen()
	if err != nil {
		return err
	}
	if !s.Keep(h.info(ctx)) {
		return l.Close()
	}
	return h.hold(ctx, l)
}
