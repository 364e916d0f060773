package kvserver

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// redisVersion is told to clients that adapt to the server's age.
const redisVersion = "7.0.0"

// A Status is the answer to GET /status.
type Status struct {
	ID           string `json:"id"`
	Role         string `json:"role"` // leader, follower, candidate, shutdown
	Term         uint64 `json:"term"`
	Leader       string `json:"leader"`        // id, "" if none is known
	LeaderClient string `json:"leader_client"` // where clients reach it
	Readable     bool   `json:"readable"`      // leader, and the barrier of its term is applied
	Commit       uint64 `json:"commit"`
	Applied      uint64 `json:"applied"` // of Raft; entries of commands and of Raft itself
	LastIndex    uint64 `json:"last_index"`
	Snapshot     uint64 `json:"snapshot"` // index of the last snapshot
	Keys         int    `json:"keys"`
	Won          int    `json:"won"`  // how often this process became leader
	Lost         int    `json:"lost"` // and ceased to be
	Log          string `json:"log"`
	Reads        string `json:"reads"`
	Lock         string `json:"lock"`
	LockShards   int    `json:"lock_shards,omitempty"` // of mode sharded
	Peers        []Peer `json:"peers"`
	UptimeNS     int64  `json:"uptime_ns"`
	Go           string `json:"go"`
}

func (s *server) status() Status {
	g := s.groups[0]
	_, leader := g.raft.LeaderWithID()
	st := Status{
		ID: s.c.ID, Role: strings.ToLower(g.raft.State().String()), Term: g.raft.CurrentTerm(), Leader: string(leader),
		Commit: g.raft.CommitIndex(), Applied: g.raft.AppliedIndex(), LastIndex: g.raft.LastIndex(),
		Log: s.c.Log, Reads: s.c.Reads, Lock: s.c.Lock, LockShards: s.c.LockShards, Peers: s.c.Peers,
		UptimeNS: time.Since(s.started).Nanoseconds(), Go: runtime.Version(),
	}
	st.Snapshot, _ = strconv.ParseUint(g.raft.Stats()["last_snapshot_index"], 10, 64)
	for _, p := range s.c.Peers {
		if p.ID == st.Leader {
			st.LeaderClient = p.Client
		}
	}
	if term, ok := g.reads.leads(); ok {
		st.Readable = g.reads.readyFor(term)
	}
	st.Keys = g.fsm.keys.reader().size()
	g.changes.Lock()
	st.Won, st.Lost = g.changes.won, g.changes.lost
	g.changes.Unlock()
	return st
}

// serveAdmin serves the admin endpoint, HTTP and JSON, until ctx ends.
//
//	GET  /status       Status
//	GET  /metrics      Metrics
//	GET  /statehash    {"applied":n,"sha256":"..."}: equal on replicas that applied the same commands
//	POST /kick         stand for election now
//	POST /transfer     {"to":"n2"}; without a body, to whoever is most up to date
//	POST /stepdown     the same, to whoever is most up to date
//	POST /snapshot     take a snapshot now
//	POST /fault/gcpause {"length_ns":n}: stop the world for so long; answers {"pause_ns":m}
//	GET  /clock        Clocks
//	POST /fault/clock  ClockRequest: set the wall clock wrong; {} makes it right
//	POST /fault/gcstorm StormRequest: keep the collector at work; a heap of 0 ends it
//	     /debug/pprof/
//
// Errors are {"error":"..."} with status 400 (bad request), 409 (not possible
// now), 501 (not on this system) or 504 (no answer in time). A call ends
// after ?timeout=, by default 10s; at most 5m.
func (s *server) serveAdmin(ctx context.Context) error {
	srv := &http.Server{Handler: s.adminMux(ctx), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(s.admin); ctx.Err() == nil {
		return fmt.Errorf("serve admin: %w", err)
	}
	return nil
}

// An action answers one admin request; in is the request's body.
type action func(ctx context.Context, in json.RawMessage) (any, error)

func (s *server) adminMux(ctx context.Context) *http.ServeMux {
	mux := http.NewServeMux()
	for pattern, do := range map[string]action{
		"GET /status":         func(context.Context, json.RawMessage) (any, error) { return s.status(), nil },
		"GET /metrics":        func(context.Context, json.RawMessage) (any, error) { return s.metrics(), nil },
		"GET /statehash":      s.stateHash,
		"POST /kick":          func(context.Context, json.RawMessage) (any, error) { return done, s.groups[0].kick() },
		"POST /transfer":      s.transfer,
		"POST /stepdown":      func(ctx context.Context, _ json.RawMessage) (any, error) { return s.transfer(ctx, nil) },
		"POST /snapshot":      s.snapshot,
		"POST /fault/gcpause": s.gcPause,
		"GET /clock":          s.clock.read,
		"POST /fault/clock":   s.clock.serve,
		"POST /fault/gcstorm": s.storm.serve,
	} {
		mux.Handle(pattern, adminHandler(ctx, do))
	}
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

var done = struct {
	OK bool `json:"ok"`
}{true}

// errBadRequest marks what the caller did wrong.
var errBadRequest = errors.New("bad request")

func adminHandler(server context.Context, do action) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), adminTimeout(r))
		defer cancel()
		defer context.AfterFunc(server, cancel)()
		var in json.RawMessage
		if r.ContentLength != 0 {
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&in); err != nil {
				adminReply(w, nil, fmt.Errorf("%w: %v", errBadRequest, err))
				return
			}
		}
		out, err := do(ctx, in)
		adminReply(w, out, err)
	})
}

func adminTimeout(r *http.Request) time.Duration {
	if d, err := time.ParseDuration(r.URL.Query().Get("timeout")); err == nil && d > 0 {
		return min(d, 5*time.Minute)
	}
	return 10 * time.Second
}

func adminReply(w http.ResponseWriter, out any, err error) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case err == nil:
	case errors.Is(err, errBadRequest):
		w.WriteHeader(http.StatusBadRequest)
	case errors.Is(err, errors.ErrUnsupported):
		w.WriteHeader(http.StatusNotImplemented)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		w.WriteHeader(http.StatusGatewayTimeout)
	default:
		w.WriteHeader(http.StatusConflict)
	}
	if err != nil {
		out = map[string]string{"error": err.Error()}
	}
	json.NewEncoder(w).Encode(out) // a caller that has gone needs no answer
}

func (s *server) stateHash(context.Context, json.RawMessage) (any, error) {
	v := s.groups[0].fsm.view()
	defer v.release()
	sum := v.hash()
	return struct {
		Applied uint64 `json:"applied"` // last entry that holds commands
		SHA256  string `json:"sha256"`
	}{v.applied, hex.EncodeToString(sum[:])}, nil
}

func (s *server) transfer(ctx context.Context, in json.RawMessage) (any, error) {
	var req struct {
		To string `json:"to"`
	}
	if in != nil {
		if err := json.Unmarshal(in, &req); err != nil {
			return nil, fmt.Errorf("%w: %v", errBadRequest, err)
		}
	}
	if req.To == "" {
		return done, await(ctx, s.groups[0].raft.LeadershipTransfer())
	}
	for _, p := range s.c.Peers {
		if p.ID == req.To {
			return done, await(ctx, s.groups[0].raft.LeadershipTransferToServer(raft.ServerID(p.ID), raft.ServerAddress(p.Raft)))
		}
	}
	return nil, fmt.Errorf("%w: no peer is called %q", errBadRequest, req.To)
}

func (s *server) snapshot(ctx context.Context, _ json.RawMessage) (any, error) {
	err := await(ctx, s.groups[0].raft.Snapshot())
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		err = nil
	}
	return done, err
}

const maxPause = time.Minute

func (s *server) gcPause(_ context.Context, in json.RawMessage) (any, error) {
	var req struct {
		LengthNS int64 `json:"length_ns"`
	}
	if err := json.Unmarshal(in, &req); err != nil {
		return nil, fmt.Errorf("%w: %v", errBadRequest, err)
	}
	if req.LengthNS <= 0 || req.LengthNS > int64(maxPause) {
		return nil, fmt.Errorf("%w: length_ns must be in 1..%d", errBadRequest, int64(maxPause))
	}
	pause, err := stopTheWorld(time.Duration(req.LengthNS))
	return struct {
		PauseNS int64 `json:"pause_ns"`
	}{pause.Nanoseconds()}, err
}
