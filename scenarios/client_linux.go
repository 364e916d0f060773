package scenarios

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/plan"
)

// socketPrefix begins the abstract socket names of running clusters.
const socketPrefix = "@bo-up-"

// Running lists the ids of the clusters that are up on this host.
func Running() ([]string, error) {
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var ids []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		// Connected ends carry the name too: only the listener has the flag.
		const acceptCon = "00010000"
		if id, ok := strings.CutPrefix(f[len(f)-1], socketPrefix); ok && f[3] == acceptCon && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// A Remote is a running cluster, seen from another process.
type Remote struct{ id string }

// Connect finds the running cluster called id, or the only one if id is "".
func Connect(id string) (*Remote, error) {
	ids, err := Running()
	if err != nil {
		return nil, err
	}
	var hits []string
	for _, have := range ids {
		if strings.HasPrefix(have, id) {
			hits = append(hits, have)
		}
	}
	switch {
	case len(hits) == 1:
		return &Remote{hits[0]}, nil
	case len(ids) == 0:
		return nil, errors.New("no cluster is up on this host (sudo brownout up starts one)")
	case len(hits) == 0:
		return nil, fmt.Errorf("no cluster %q is up; these are: %s", id, strings.Join(ids, ", "))
	}
	return nil, fmt.Errorf("several clusters are up (%s): name one with --cluster", strings.Join(hits, ", "))
}

// callWithin bounds a request; adding a fault waits for its baseline reading.
const callWithin = 60 * time.Second

func (r *Remote) call(ctx context.Context, req request) (reply, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callWithin, fmt.Errorf("no answer within %v", callWithin))
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socketPrefix+r.id)
	if err != nil {
		return reply{}, fmt.Errorf("cluster %s: %w", r.id, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return reply{}, fmt.Errorf("cluster %s: %w", r.id, err)
	}
	var rep reply
	if err := json.NewDecoder(bufio.NewReader(conn)).Decode(&rep); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return reply{}, fmt.Errorf("cluster %s: %w", r.id, err)
	}
	switch {
	case rep.Unsupported:
		return rep, cannot(rep.Error)
	case rep.Error != "":
		return rep, errors.New(rep.Error)
	}
	return rep, nil
}

// Info asks for the cluster's nodes and roles.
func (r *Remote) Info(ctx context.Context) (Info, error) {
	rep, err := r.call(ctx, request{Verb: "info"})
	if err != nil || rep.Info == nil {
		return Info{}, err
	}
	return *rep.Info, nil
}

// Add applies a fault and returns its id.
func (r *Remote) Add(ctx context.Context, f plan.Fault) (string, error) {
	rep, err := r.call(ctx, request{Verb: "add", Fault: &f})
	return rep.ID, err
}

// Faults lists the faults in force.
func (r *Remote) Faults(ctx context.Context) ([]FaultState, error) {
	rep, err := r.call(ctx, request{Verb: "list"})
	return rep.Faults, err
}

// Remove heals the fault called id.
func (r *Remote) Remove(ctx context.Context, id string) error {
	_, err := r.call(ctx, request{Verb: "remove", ID: id})
	return err
}

// Down stops the cluster and returns once the process that held it has ended.
func (r *Remote) Down(ctx context.Context) error {
	info, err := r.Info(ctx)
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(info.PID, 0) // before the request: the pid cannot be reused yet
	if err != nil {
		return fmt.Errorf("cluster %s: pidfd: %w", r.id, err)
	}
	defer unix.Close(fd)
	if _, err := r.call(ctx, request{Verb: "down"}); err != nil {
		return err
	}
	for end := time.Now().Add(callWithin); ; {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 100)
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("cluster %s: wait: %w", r.id, err)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Now().After(end):
			return fmt.Errorf("cluster %s: process %d that holds it is still there after %v; after kill -9 %[2]d, brownout clean finds what is left", r.id, info.PID, callWithin)
		}
	}
}
