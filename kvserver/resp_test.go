package kvserver

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCommands runs commands in order on one connection of one node.
func TestCommands(t *testing.T) {
	k := startCluster(t, 1, func(c *Config) { c.Log = "memory" }, nil)
	c := k.dial(0)
	big := strings.Repeat("x", maxValue)
	for _, tt := range []struct {
		name  string
		words []string
		want  string
	}{
		{"ping answers", []string{"PING"}, "PONG"},
		{"ping echoes its argument", []string{"ping", "hi"}, `"hi"`},
		{"echo echoes", []string{"ECHO", "hello"}, `"hello"`},
		{"an absent key is null", []string{"GET", "k"}, "(nil)"},
		{"set sets", []string{"SET", "k", "v"}, "OK"},
		{"get gets", []string{"GET", "k"}, `"v"`},
		{"words are known in any case", []string{"gEt", "k"}, `"v"`},
		{"an empty value is a value", []string{"SET", "empty", ""}, "OK"},
		{"an empty value is not null", []string{"GET", "empty"}, `""`},
		{"an empty key is a key", []string{"SET", "", "x"}, "OK"},
		{"values are binary", []string{"SET", "bin", "\x00\r\n\xff"}, "OK"},
		{"and come back as they were", []string{"GET", "bin"}, `"\x00\r\n\xff"`},
		{"set nx does nothing to a present key", []string{"SET", "k", "w", "NX"}, "(nil)"},
		{"set nx sets an absent key", []string{"SET", "k2", "w", "nx"}, "OK"},
		{"set xx sets a present key", []string{"SET", "k", "w", "xx"}, "OK"},
		{"set xx does nothing to an absent key", []string{"SET", "k3", "w", "XX"}, "(nil)"},
		{"nx and xx exclude each other", []string{"SET", "k", "w", "XX", "NX"}, "(error) ERR syntax error"},
		{"expiry is not offered", []string{"SET", "k", "w", "EX", "5"}, "(error) ERR EX is not supported: values do not expire"},
		{"keeping no expiry is", []string{"SET", "k", "w", "KEEPTTL"}, "OK"},
		{"set does not get", []string{"SET", "k", "w", "GET"}, "(error) ERR SET with GET is not supported: GET the value, then CAS"},
		{"setnx answers with a number", []string{"SETNX", "k", "x"}, "(integer) 0"},
		{"and sets an absent key", []string{"SETNX", "nx", "x"}, "(integer) 1"},
		{"unlink is del", []string{"UNLINK", "nx", "none"}, "(integer) 1"},
		{"values are strings", []string{"TYPE", "k"}, "string"},
		{"and nothing is none", []string{"TYPE", "none"}, "none"},
		{"a key lives for ever", []string{"TTL", "k"}, "(integer) -1"},
		{"or not at all", []string{"PTTL", "none"}, "(integer) -2"},
		{"what is not there is told with its reason", []string{"INCR", "n"}, "(error) ERR unknown command 'INCR', with args beginning with: 'n' (GET the value, then CAS)"},
		{"there is no password", []string{"AUTH", "x"}, "(error) ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"},
		{"exists counts each mention", []string{"EXISTS", "k", "k", "k3"}, "(integer) 2"},
		{"append returns the new length", []string{"APPEND", "k", "123"}, "(integer) 4"},
		{"append makes an absent key", []string{"APPEND", "log", "a,"}, "(integer) 2"},
		{"append is seen", []string{"GET", "k"}, `"w123"`},
		{"strlen counts bytes", []string{"STRLEN", "k"}, "(integer) 4"},
		{"mset sets all", []string{"MSET", "a", "1", "b", "2"}, "OK"},
		{"mset wants pairs", []string{"MSET", "a", "1", "b"}, "(error) ERR wrong number of arguments for 'mset' command"},
		{"mget gets all", []string{"MGET", "a", "none", "b"}, `["1" (nil) "2"]`},
		{"cas swaps and returns what was there", []string{"CAS", "a", "1", "9"}, `[(integer) 1 "1"]`},
		{"a failed cas returns what is there", []string{"CAS", "a", "1", "8"}, `[(integer) 0 "9"]`},
		{"cas never matches an absent key", []string{"CAS", "none", "", "8"}, `[(integer) 0 (nil)]`},
		{"a failed cas changes nothing", []string{"MGET", "a", "none"}, `["9" (nil)]`},
		{"del counts what was there", []string{"DEL", "a", "none", "b"}, "(integer) 2"},
		{"del deletes", []string{"EXISTS", "a", "b"}, "(integer) 0"},
		{"dbsize counts keys", []string{"DBSIZE"}, "(integer) 6"},
		{"a value of the largest size fits", []string{"SET", "big", big}, "OK"},
		{"a larger one does not", []string{"SET", "big", big + "x"}, "(error) ERR string exceeds maximum allowed size (8388608 bytes)"},
		{"nor by append", []string{"APPEND", "big", "x"}, "(error) ERR string exceeds maximum allowed size (8388608 bytes)"},
		{"a key has a limit too", []string{"GET", big}, "(error) ERR key exceeds maximum allowed size (65536 bytes)"},
		{"an unknown command is refused in Redis' words", []string{"LPUSH", "a", "b"}, "(error) ERR unknown command 'LPUSH', with args beginning with: 'a' 'b' (values are strings)"},
		{"what nobody has heard of too", []string{"NOPE", "a"}, "(error) ERR unknown command 'NOPE', with args beginning with: 'a' "},
		{"too few arguments", []string{"GET"}, "(error) ERR wrong number of arguments for 'get' command"},
		{"too many arguments", []string{"GET", "a", "b"}, "(error) ERR wrong number of arguments for 'get' command"},
		{"there is one database", []string{"SELECT", "0"}, "OK"},
		{"and no other", []string{"SELECT", "1"}, "(error) ERR DB index is out of range"},
		{"redis-benchmark asks for save", []string{"CONFIG", "GET", "save"}, `["save" ""]`},
		{"and for appendonly", []string{"CONFIG", "GET", "appendonly"}, `["appendonly" "no"]`},
		{"redis-cli asks for hints", []string{"COMMAND", "DOCS"}, "[]"},
		{"libraries name themselves", []string{"CLIENT", "SETINFO", "LIB-NAME", "x"}, "OK"},
		{"clients have names", []string{"CLIENT", "SETNAME", "me"}, "OK"},
		{"and may ask for them", []string{"CLIENT", "GETNAME"}, `"me"`},
		{"RESP3 is refused", []string{"HELLO", "3"}, "(error) NOPROTO unsupported protocol version"},
		{"once needs a session", []string{"ONCE", "s", "1", "SET", "o", "1"}, "(error) NOSESSION session is not known here, or was forgotten"},
		{"a session is opened", []string{"SESSION", "s"}, "(integer) 0"},
		{"once does", []string{"ONCE", "s", "1", "APPEND", "o", "x"}, "(integer) 1"},
		{"once does it once", []string{"ONCE", "s", "1", "APPEND", "o", "x"}, "(integer) 1"},
		{"the next is new", []string{"ONCE", "s", "2", "APPEND", "o", "y"}, "(integer) 2"},
		{"what is older is refused", []string{"ONCE", "s", "1", "APPEND", "o", "x"}, "(error) OLDSEQ a later write of this session has been done"},
		{"once was once", []string{"GET", "o"}, `"xy"`},
		{"an open session says how far it is", []string{"SESSION", "s"}, "(integer) 2"},
		{"once is for writes", []string{"ONCE", "s", "3", "GET", "o"}, "(error) ERR ONCE is for writes"},
		{"sequence numbers begin at one", []string{"ONCE", "s", "0", "SET", "o", "x"}, "(error) ERR sequence number is not a positive integer"},
		{"readonly is accepted", []string{"READONLY"}, "OK"},
		{"and reads on", []string{"GET", "o"}, `"xy"`},
		{"readwrite too", []string{"READWRITE"}, "OK"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := c.do(tt.words...); got != tt.want {
				t.Errorf("%.60q = %.200s, want %s", tt.words, got, tt.want)
			}
		})
	}
}

func TestPipelineIsAnsweredInOrder(t *testing.T) {
	k := startCluster(t, 1, func(c *Config) { c.Log = "memory" }, nil)
	c := k.dial(0)
	got := c.pipeline(
		[]string{"SET", "k", "1"}, []string{"GET", "k"}, []string{"PING"}, []string{"SET", "k", "2"}, []string{"NOPE"},
		[]string{"MGET", "k", "none"}, []string{"READONLY"}, []string{"GET", "k"}, []string{"APPEND", "k", "3"},
		[]string{"GET", "k"}, []string{"READWRITE"}, []string{"GET", "k"}, []string{"DEL", "k"}, []string{"EXISTS", "k"},
	)
	want := []string{
		"OK", `"1"`, "PONG", "OK", "(error) ERR unknown command 'NOPE', with args beginning with: ",
		`["2" (nil)]`, "OK", `"2"`, "(integer) 2", `"23"`, "OK", `"23"`, "(integer) 1", "(integer) 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("replies (-want +got):\n%s", diff)
	}
}

func TestInfoHasSections(t *testing.T) {
	k := startCluster(t, 1, func(c *Config) { c.Log = "memory" }, nil)
	c := k.dial(0)
	for _, want := range []string{"redis_version:", "role:master", "raft_role:leader", "leader:n1", "term:", "commit_index:", "log_store:memory", "reads:readindex"} {
		if all := c.do("INFO"); !strings.Contains(all, want) {
			t.Errorf("INFO has no %q: %s", want, all)
		}
	}
	if got := c.do("INFO", "raft"); !strings.HasPrefix(got, `"# Raft\r\n`) || strings.Contains(got, "# Server") {
		t.Errorf("INFO raft = %s, want that section alone", got)
	}
}

// Nothing of what a client meant to happen together happens by itself.
func TestRefusedTransactionDoesNothing(t *testing.T) {
	k := startCluster(t, 1, func(c *Config) { c.Log = "memory" }, nil)
	c := k.dial(0)
	if _, err := c.conn.Write([]byte("MULTI\r\nSET a 1\r\nSET b 2\r\nEXEC\r\n")); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(c.r)
	if want := "-ERR unknown command 'MULTI', with args beginning with: (there are no transactions: MSET is atomic, CAS is a swap)\r\n"; err != nil && !errors.Is(err, syscall.ECONNRESET) || string(all) != want {
		t.Errorf("%q, %v; want %q and the end", all, err, want)
	}
	if got := k.dial(0).do("MGET", "a", "b"); got != "[(nil) (nil)]" {
		t.Errorf("the parts of a refused transaction: %s", got)
	}
}

func TestQuitAnswersAndCloses(t *testing.T) {
	k := startCluster(t, 1, func(c *Config) { c.Log = "memory" }, nil)
	c := k.dial(0)
	if got := c.do("QUIT"); got != "OK" {
		t.Errorf("QUIT = %s, want OK", got)
	}
	if b, err := c.r.ReadByte(); err == nil {
		t.Errorf("after QUIT came %q, want the end", b)
	}
}
