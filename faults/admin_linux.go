package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"brownout/cluster"
)

// An admin talks to the admin socket of a node's program. Every call is a
// connection of its own: the program behind the path may have been restarted.
type admin struct{ http http.Client }

// errNoSocket says that the program has no admin socket.
var errNoSocket = errors.New("no admin socket")

// A statusError is an answer that is no success.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return fmt.Sprintf("%d: %s", e.code, e.text) }

func adminOf(n *cluster.Node) *admin {
	return &admin{http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "unix", n.Admin())
			if errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%w: %w", errNoSocket, err)
			}
			return c, err
		},
	}}}
}

func (a *admin) close() { a.http.CloseIdleConnections() }

// call sends in as JSON, unless nil, and decodes the answer into out, unless
// nil; a *string takes it as it is.
func (a *admin) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+path, body)
	if err != nil {
		return err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	const most = 16 << 20
	b, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return &statusError{resp.StatusCode, strings.TrimSpace(string(b))}
	}
	switch out := out.(type) {
	case nil:
		return nil
	case *string:
		*out = string(b)
		return nil
	default:
		return json.Unmarshal(b, out)
	}
}

// A gcAccount is what a Go runtime says of its collector's pauses.
type gcAccount struct {
	cycles int64
	pauses []gcPause // of the last 256 cycles, latest first
}

// A gcPause is the time that one cycle stopped the world for.
type gcPause struct {
	end    time.Time
	length time.Duration
}

// gcAccount reads runtime.MemStats, which the standard net/http/pprof prints
// below a heap profile: the runtime's own figures, not the program's.
func (a *admin) gcAccount(ctx context.Context) (gcAccount, error) {
	var text string
	if err := a.call(ctx, http.MethodGet, "/debug/pprof/heap?debug=1", nil, &text); err != nil {
		return gcAccount{}, err
	}
	return parseGCAccount(text)
}

func parseGCAccount(text string) (gcAccount, error) {
	var acc gcAccount
	var ends, lengths []int64
	found := 0
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "# "), " = ")
		if !ok {
			continue
		}
		var err error
		switch name {
		case "NumGC":
			acc.cycles, err = strconv.ParseInt(value, 10, 64)
		case "PauseNs":
			lengths, err = parseInts(value)
		case "PauseEnd":
			ends, err = parseInts(value)
		default:
			continue
		}
		if err != nil {
			return gcAccount{}, fmt.Errorf("parse %s: %w", name, err)
		}
		found++
	}
	if found != 3 || len(ends) == 0 || len(ends) != len(lengths) {
		return gcAccount{}, errors.New("parse heap profile: no account of GC pauses")
	}
	n := int64(len(lengths)) // a ring; cycle i (from 1) is at (i-1) mod n
	for i := acc.cycles; i > max(0, acc.cycles-n); i-- {
		at := (i - 1) % n
		acc.pauses = append(acc.pauses, gcPause{time.Unix(0, ends[at]), time.Duration(lengths[at])})
	}
	return acc, nil
}

func parseInts(s string) ([]int64, error) {
	var out []int64
	for _, f := range strings.Fields(strings.Trim(s, "[]")) {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}
