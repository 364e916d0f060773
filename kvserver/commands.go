package kvserver

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/tidwall/redcon"
)

// newTable returns the protocol. Names are at most 16 bytes.
func newTable() table {
	t := table{}
	for _, s := range []*spec{
		{name: "set", arity: -3, parse: parseSet},
		{name: "get", arity: 2, kind: opGet},
		{name: "del", arity: -2, kind: opDel},
		{name: "exists", arity: -2, kind: opExists},
		{name: "append", arity: 3, kind: opAppend},
		{name: "strlen", arity: 2, kind: opStrlen},
		{name: "mget", arity: -2, kind: opMGet},
		{name: "mset", arity: -3, kind: opMSet},
		{name: "dbsize", arity: 1, kind: opDBSize},
		{name: "cas", arity: 4, kind: opCAS},
		{name: "session", arity: 2, kind: opSession},
		{name: "once", arity: -4, parse: parseOnce},
		{name: "ping", arity: -1, local: ping},
		{name: "echo", arity: 2, local: func(_ *front, c redcon.Conn, _ *client, a [][]byte) bool { c.WriteBulk(a[1]); return false }},
		{name: "quit", arity: -1, local: func(_ *front, c redcon.Conn, _ *client, _ [][]byte) bool { c.WriteString("OK"); return true }},
		{name: "select", arity: 2, local: selectDB},
		{name: "info", arity: -1, local: info},
		{name: "command", arity: -1, local: command},
		{name: "config", arity: -2, local: config},
		{name: "client", arity: -2, local: clientCommand},
		{name: "hello", arity: -1, local: hello},
		{name: "readonly", arity: 1, barrier: true, local: stale(true)},
		{name: "readwrite", arity: 1, barrier: true, local: stale(false)},
	} {
		t[s.name] = s
	}
	return t
}

func ping(_ *front, conn redcon.Conn, _ *client, args [][]byte) bool {
	switch len(args) {
	case 1:
		conn.WriteString("PONG")
	case 2:
		conn.WriteBulk(args[1])
	default:
		conn.WriteError("ERR wrong number of arguments for 'ping' command")
	}
	return false
}

func selectDB(_ *front, conn redcon.Conn, _ *client, args [][]byte) bool {
	switch n, err := strconv.Atoi(string(args[1])); {
	case err != nil:
		conn.WriteError("ERR invalid DB index")
	case n != 0:
		conn.WriteError("ERR DB index is out of range")
	default:
		conn.WriteString("OK")
	}
	return false
}

func info(f *front, conn redcon.Conn, _ *client, args [][]byte) bool {
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
	conn.WriteBulkString(all)
	return false
}

// command is asked by redis-cli for its hints (DOCS) and by libraries for key positions.
func command(f *front, conn redcon.Conn, _ *client, args [][]byte) bool {
	if len(args) > 1 && is(args[1], "count") {
		conn.WriteInt(len(f.table))
		return false
	}
	if len(args) > 1 {
		conn.WriteArray(0)
		return false
	}
	conn.WriteArray(len(f.table))
	for _, name := range sortedKeys(f.table) {
		conn.WriteArray(6) // name, arity, flags, first key, last key, step
		conn.WriteBulkString(name)
		conn.WriteInt(f.table[name].arity)
		conn.WriteArray(0)
		conn.WriteInt(0)
		conn.WriteInt(0)
		conn.WriteInt(0)
	}
	return false
}

// config answers what redis-benchmark asks before it starts.
func config(f *front, conn redcon.Conn, _ *client, args [][]byte) bool {
	if !is(args[1], "get") || len(args) < 3 {
		conn.WriteError("ERR only CONFIG GET is supported")
		return false
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
	conn.WriteArray(len(pairs))
	for _, s := range pairs {
		conn.WriteBulkString(s)
	}
	return false
}

func clientCommand(_ *front, conn redcon.Conn, cl *client, args [][]byte) bool {
	switch sub := args[1]; {
	case is(sub, "id"):
		conn.WriteInt64(cl.id)
	case is(sub, "getname"):
		conn.WriteBulkString(cl.name)
	case is(sub, "setname") && len(args) == 3 && len(args[2]) <= maxSession:
		cl.name = string(args[2])
		conn.WriteString("OK")
	case is(sub, "setinfo", "no-evict", "no-touch", "reply") && len(args) >= 3 && !is(args[2], "off", "skip"):
		conn.WriteString("OK")
	case is(sub, "list", "info"):
		conn.WriteBulkString("id=" + strconv.FormatInt(cl.id, 10) + " addr=" + conn.RemoteAddr() + " name=" + cl.name + "\n")
	default:
		conn.WriteError("ERR unknown subcommand or wrong number of arguments for 'client' command")
	}
	return false
}

// hello speaks RESP2 only; clients that ask for more go on without it.
func hello(f *front, conn redcon.Conn, cl *client, args [][]byte) bool {
	if len(args) > 1 && string(args[1]) != "2" {
		conn.WriteError("NOPROTO unsupported protocol version")
		return false
	}
	if len(args) > 2 && is(args[2], "auth") {
		conn.WriteError("ERR AUTH is not supported")
		return false
	}
	if len(args) == 4 && is(args[2], "setname") {
		cl.name = string(args[3])
	}
	conn.WriteArray(14)
	for _, s := range []string{"server", "kvserver", "version", redisVersion, "proto"} {
		conn.WriteBulkString(s)
	}
	conn.WriteInt(2)
	conn.WriteBulkString("id")
	conn.WriteInt64(cl.id)
	for _, s := range []string{"mode", "standalone", "role", f.role(), "modules"} {
		conn.WriteBulkString(s)
	}
	conn.WriteArray(0)
	return false
}

// stale switches a connection to local reads, as a Redis Cluster client asks a replica.
func stale(v bool) func(*front, redcon.Conn, *client, [][]byte) bool {
	return func(_ *front, conn redcon.Conn, cl *client, _ [][]byte) bool {
		cl.stale = v
		conn.WriteString("OK")
		return false
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
