package target

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"brownout/internal/clock"
)

// An Answer is what a kvserver said to one command.
type Answer struct {
	Text         string // as redis-cli prints it
	Error        bool   // it is an error
	Addr         string // that answered
	Call, Return int64  // when it was sent and answered; the host's monotonic clock, ns
}

// Ask sends one command about words[1], a key, to whichever node serves that key. Who
// that is, and the connection, is found before the clock starts, with a command that
// changes nothing: what is timed is the way of a client that knows its cluster.
func Ask(ctx context.Context, dial func(ctx context.Context, addr string) (net.Conn, error), addrs []string, words []string) (Answer, error) {
	if len(words) < 2 {
		return Answer{}, errors.New("ask: no command about a key")
	}
	var errs []error
	for _, addr := range addrs {
		for range 1 + maxRedirects {
			a, next, err := askAt(ctx, dial, addr, addrs, words)
			if err == nil && next == "" {
				return a, nil
			}
			if err != nil {
				errs = append(errs, err)
				break
			}
			addr = next
		}
	}
	return Answer{}, fmt.Errorf("ask: nobody serves %s: %w", words[1], errors.Join(errs...))
}

// askAt asks one node. It returns where else to ask if that node does not serve the key.
func askAt(ctx context.Context, dial func(ctx context.Context, addr string) (net.Conn, error), addr string, addrs, words []string) (a Answer, next string, err error) {
	conn, err := dial(ctx, addr)
	if err != nil {
		return a, "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	in := bufio.NewReader(conn)
	say := func(words ...string) (reply, error) {
		if _, err := conn.Write(appendCommand(nil, words...)); err != nil {
			return reply{}, fmt.Errorf("%s: %w", addr, err)
		}
		r, err := readReply(in, 0)
		if err != nil {
			return r, fmt.Errorf("%s: %w", addr, errors.Join(err, context.Cause(ctx)))
		}
		return r, nil
	}
	r, err := say("EXISTS", words[1])
	if err != nil {
		return a, "", err
	}
	if to, ok := redirect(r, addrs); ok {
		return a, to, nil
	}
	if r.kind == '-' {
		return a, "", fmt.Errorf("%s: %s", addr, r.text)
	}
	a = Answer{Addr: addr, Call: clock.Raw()}
	r, err = say(words...)
	a.Return = clock.Raw()
	if err != nil {
		return a, "", err
	}
	if to, ok := redirect(r, addrs); ok { // the leader changed just now: not done
		return a, to, nil
	}
	a.Text, a.Error = r.String(), r.kind == '-'
	return a, "", nil
}

// redirect is where a -MOVED sends its reader. Only known nodes are followed.
func redirect(r reply, known []string) (addr string, ok bool) {
	f := strings.Fields(r.text)
	if r.kind != '-' || len(f) != 3 || f[0] != "MOVED" || !slices.Contains(known, f[2]) {
		return "", false
	}
	return f[2], true
}

// String writes a reply as redis-cli does.
func (r reply) String() string {
	switch {
	case r.null:
		return "(nil)"
	case r.kind == '-':
		return "(error) " + r.text
	case r.kind == '+':
		return r.text
	case r.kind == ':':
		return fmt.Sprintf("(integer) %d", r.n)
	case r.kind == '$':
		return strconv.Quote(r.text)
	}
	lines := make([]string, 0, len(r.list))
	for i, e := range r.list {
		lines = append(lines, fmt.Sprintf("%d) %s", i+1, e))
	}
	if len(lines) == 0 {
		return "(empty array)"
	}
	return strings.Join(lines, "\n")
}
