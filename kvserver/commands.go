package kvserver

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// newTable returns the protocol. Names are at most 16 bytes.
func newTable() table {
	t := table{}
	for _, s := range []*spec{
		{name: "set", arity: -3, parse: parseSet},
		{name: "get", arity: 2, kind: opGet},
		{name: "setnx", arity: 3, kind: opSetNX, answer: didSet},
		{name: "del", arity: -2, kind: opDel},
		{name: "unlink", arity: -2, kind: opDel},
		{name: "exists", arity: -2, kind: opExists},
		{name: "append", arity: 3, kind: opAppend},
		{name: "strlen", arity: 2, kind: opStrlen},
		{name: "type", arity: 2, kind: opExists, answer: typeOf},
		{name: "ttl", arity: 2, kind: opExists, answer: endless},
		{name: "pttl", arity: 2, kind: opExists, answer: endless},
		{name: "mget", arity: -2, kind: opMGet},
		{name: "mset", arity: -3, kind: opMSet},
		{name: "dbsize", arity: 1, kind: opDBSize},
		{name: "cas", arity: 4, kind: opCAS},
		{name: "session", arity: 2, kind: opSession},
		{name: "once", arity: -4, parse: parseOnce},
		{name: "ping", arity: -1, local: ping},
		{name: "echo", arity: 2, local: func(_ *front, w *respWriter, _ *client, args [][]byte) { w.bytes(args[1]) }},
		{name: "quit", arity: -1, barrier: true, local: quit},
		{name: "select", arity: 2, local: selectDB},
		{name: "time", arity: 1, local: timeCommand},
		{name: "info", arity: -1, local: info},
		{name: "command", arity: -1, local: command},
		{name: "config", arity: -2, local: config},
		{name: "client", arity: -2, local: clientCommand},
		{name: "cluster", arity: -2, local: clusterCommand},
		{name: "hello", arity: -1, local: hello},
		{name: "auth", arity: -2, local: noPassword},
		{name: "multi", arity: 1, barrier: true, local: multi},
		{name: "readonly", arity: 1, barrier: true, local: stale(true)},
		{name: "readwrite", arity: 1, barrier: true, local: stale(false)},
	} {
		t[s.name] = s
	}
	return t
}

// didSet answers 1 or 0 where SET says OK or null.
func didSet(w *respWriter, r *result) {
	if r.code == resOK {
		w.number(1)
	} else {
		w.number(0)
	}
}

func typeOf(w *respWriter, r *result) {
	if r.n == 0 {
		w.word("none")
	} else {
		w.word("string")
	}
}

// endless answers how long a key will live: for ever, or not at all.
func endless(w *respWriter, r *result) { w.number(r.n - 2) }

func ping(_ *front, w *respWriter, _ *client, args [][]byte) {
	switch len(args) {
	case 1:
		w.word("PONG")
	case 2:
		w.bytes(args[1])
	default:
		w.fail("ERR wrong number of arguments for 'ping' command")
	}
}

func selectDB(_ *front, w *respWriter, _ *client, args [][]byte) {
	switch n, err := strconv.Atoi(string(args[1])); {
	case err != nil:
		w.fail("ERR invalid DB index")
	case n != 0:
		w.fail("ERR DB index is out of range")
	default:
		w.word("OK")
	}
}

func info(f *front, w *respWriter, _ *client, args [][]byte) {
	all := f.info()
	if len(args) > 1 && !is(args[1], "all", "everything", "default") {
		var some strings.Builder
		for _, section := range strings.SplitAfter(all, "\r\n\r\n") {
			name, _, _ := strings.Cut(strings.TrimPrefix(section, "# "), "\r\n")
			for _, want := range args[1:] {
				if strings.EqualFold(name, string(want)) {
					some.WriteString(section)
				}
			}
		}
		all = some.String()
	}
	w.bulk(all)
}

// command is asked by redis-cli for its hints (DOCS) and by libraries for key positions.
func command(f *front, w *respWriter, _ *client, args [][]byte) {
	names := slices.DeleteFunc(sortedKeys(f.table), func(name string) bool { return refused()[name] != "" })
	if len(args) > 1 && is(args[1], "count") {
		w.number(int64(len(names)))
		return
	}
	if len(args) > 1 {
		w.array(0)
		return
	}
	w.array(len(names))
	for _, name := range names {
		s := f.table[name]
		w.array(6) // name, arity, flags, first key, last key, step
		w.bulk(name)
		w.number(int64(s.arity))
		first, last, step := s.places()
		switch {
		case first == 0:
			w.array(0)
		case s.kind.isRead():
			w.array(1)
			w.word("readonly")
		default:
			w.array(1)
			w.word("write")
		}
		w.number(first)
		w.number(last)
		w.number(step)
	}
}

// places says which of a command's words are keys, as clients of Redis Cluster ask.
func (s *spec) places() (first, last, step int64) {
	switch {
	case s.local != nil || s.kind == opDBSize:
		return 0, 0, 0
	case s.kind == opMSet:
		return 1, -1, 2
	case s.kind != 0 && s.arity < 0:
		return 1, -1, 1
	}
	return 1, 1, 1
}

// config answers what redis-benchmark asks before it starts.
func config(f *front, w *respWriter, _ *client, args [][]byte) {
	if !is(args[1], "get") || len(args) < 3 {
		w.fail("ERR only CONFIG GET is supported")
		return
	}
	known := map[string]string{
		"save": "", "appendonly": "yes", "appendfsync": "always", "databases": "1",
		"maxclients": strconv.Itoa(f.c.MaxClients), "dir": f.c.Dir, "timeout": "0",
	}
	if f.c.Log == "memory" {
		known["appendonly"], known["appendfsync"] = "no", "no"
	}
	var pairs []string
	for _, name := range sortedKeys(known) {
		for _, want := range args[2:] {
			if w := strings.ToLower(string(want)); w == name || w == "*" {
				pairs = append(pairs, name, known[name])
				break
			}
		}
	}
	w.array(len(pairs))
	for _, s := range pairs {
		w.bulk(s)
	}
}

func clientCommand(_ *front, w *respWriter, cl *client, args [][]byte) {
	switch sub := args[1]; {
	case is(sub, "id"):
		w.number(cl.id)
	case is(sub, "getname"):
		w.bulk(cl.name)
	case is(sub, "setname") && len(args) == 3 && len(args[2]) <= maxSession:
		cl.name = string(args[2])
		w.word("OK")
	case is(sub, "setinfo", "no-evict", "no-touch", "reply") && len(args) >= 3 && !is(args[2], "off", "skip"):
		w.word("OK")
	case is(sub, "list", "info"):
		w.bulk("id=" + strconv.FormatInt(cl.id, 10) + " addr=" + cl.conn.RemoteAddr().String() + " name=" + cl.name + "\n")
	default:
		w.fail("ERR unknown subcommand or wrong number of arguments for 'client' command")
	}
}

// hello speaks RESP2 only; clients that ask for more go on without it.
func hello(f *front, w *respWriter, cl *client, args [][]byte) {
	if len(args) > 1 && string(args[1]) != "2" {
		w.fail("NOPROTO unsupported protocol version")
		return
	}
	if len(args) > 2 && is(args[2], "auth") {
		w.fail("ERR AUTH is not supported")
		return
	}
	if len(args) == 4 && is(args[2], "setname") {
		cl.name = string(args[3])
	}
	w.array(14)
	for _, s := range []string{"server", "kvserver", "version", redisVersion, "proto"} {
		w.bulk(s)
	}
	w.number(2)
	w.bulk("id")
	w.number(cl.id)
	for _, s := range []string{"mode", f.mode(), "role", f.role(), "modules"} {
		w.bulk(s)
	}
	w.array(0)
}

func quit(_ *front, w *respWriter, cl *client, _ [][]byte) {
	w.word("OK")
	cl.quit = true
}

// stale switches a connection to local reads, as a Redis Cluster client asks a replica.
func stale(v bool) func(*front, *respWriter, *client, [][]byte) {
	return func(_ *front, w *respWriter, cl *client, _ [][]byte) {
		cl.stale = v
		w.word("OK")
	}
}

// is reports whether word is one of the given ones, whatever its case.
func is(word []byte, among ...string) bool {
	for _, s := range among {
		if bytes.EqualFold(word, []byte(s)) {
			return true
		}
	}
	return false
}
