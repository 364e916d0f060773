package kvserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/hashicorp/raft"
)

// redisVersion is told to clients that adapt to the server's age.
const redisVersion = "7.0.0"

// serveAdmin serves the admin endpoint, HTTP and JSON, until ctx ends.
//
//	GET  /status       Status
//	GET  /metrics      Metrics
//	GET  /statehash    StateHash
//	POST /kick         {"shard":0}: stand for election now
//	POST /transfer     {"shard":0,"to":"n2"}; without to, to whoever is most up to date
//	POST /stepdown     {"shard":0}: the same, to whoever is most up to date
//	POST /snapshot     take a snapshot of all shards now
//	POST /fault/gcpause {"length_ns":n}: stop the world for so long; answers {"pause_ns":m}
//	GET  /clock        Clocks
//	POST /fault/clock  ClockRequest: set the wall clock wrong; {} makes it right
//	POST /fault/gcstorm StormRequest: keep the collector at work; a heap of 0 ends it
//	POST /fault/lock   LockRequest: hold locks for longer, or in convoys; {} ends it
//	POST /fault/codec  CodecRequest: encode entries otherwise; {} as configured
//	POST /profile      ProfileRequest: how much of contention is written down
//	     /debug/pprof/
//
// Without a body, a POST is about shard 0.
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
		"POST /kick":          s.kick,
		"POST /transfer":      s.transfer,
		"POST /stepdown":      s.stepDown,
		"POST /snapshot":      s.snapshot,
		"POST /fault/gcpause": s.gcPause,
		"GET /clock":          s.clock.read,
		"POST /fault/clock":   s.clock.serve,
		"POST /fault/gcstorm": s.storm.serve,
		"POST /fault/lock":    s.lockFault,
		"POST /fault/codec":   s.codecFault,
		"POST /profile":       s.profile,
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

// A shardRequest says which shard is meant, and who is to lead it.
type shardRequest struct {
	Shard int    `json:"shard"`
	To    string `json:"to"`
}

// meant reads the body of a request about one shard; without one, it is shard 0.
func (s *server) meant(in json.RawMessage) (*group, shardRequest, error) {
	var req shardRequest
	if in != nil {
		if err := json.Unmarshal(in, &req); err != nil {
			return nil, req, fmt.Errorf("%w: %v", errBadRequest, err)
		}
	}
	if req.Shard < 0 || req.Shard >= len(s.groups) {
		return nil, req, fmt.Errorf("%w: shard %d is not in 0..%d", errBadRequest, req.Shard, len(s.groups)-1)
	}
	return s.groups[req.Shard], req, nil
}

func (s *server) kick(_ context.Context, in json.RawMessage) (any, error) {
	g, _, err := s.meant(in)
	if err != nil {
		return nil, err
	}
	return done, g.kick()
}

func (s *server) stepDown(ctx context.Context, in json.RawMessage) (any, error) {
	g, _, err := s.meant(in)
	if err != nil {
		return nil, err
	}
	return done, await(ctx, g.raft.LeadershipTransfer())
}

func (s *server) transfer(ctx context.Context, in json.RawMessage) (any, error) {
	g, req, err := s.meant(in)
	switch {
	case err != nil:
		return nil, err
	case req.To == "":
		return s.stepDown(ctx, in)
	}
	for _, p := range s.c.Peers {
		if p.ID == req.To {
			return done, await(ctx, g.raft.LeadershipTransferToServer(raft.ServerID(p.ID), raft.ServerAddress(p.Raft)))
		}
	}
	return nil, fmt.Errorf("%w: no peer is called %q", errBadRequest, req.To)
}

func (s *server) snapshot(ctx context.Context, _ json.RawMessage) (any, error) {
	var errs []error
	for _, g := range s.groups {
		if err := await(ctx, g.raft.Snapshot()); !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			errs = append(errs, err)
		}
	}
	return done, errors.Join(errs...)
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
