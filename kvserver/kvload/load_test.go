package kvload

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// serve answers every command of three bulks or two with reply, and counts what comes in the wrong form.
func serve(conn net.Conn, reply func(words []string) string) {
	r := bufio.NewReader(conn)
	for {
		var n int
		if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
			return
		}
		words := make([]string, n)
		for i := range words {
			var size int
			if _, err := fmt.Fscanf(r, "$%d\r\n", &size); err != nil {
				return
			}
			b := make([]byte, size+2)
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			words[i] = string(b[:size])
		}
		if _, err := io.WriteString(conn, reply(words)); err != nil {
			return
		}
	}
}

func pipe(t *testing.T, reply func([]string) string) net.Conn {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	go serve(server, reply)
	return client
}

func TestRun(t *testing.T) {
	get := func(b []byte, i int64) []byte { return Append(b, "GET", fmt.Sprint("k", i)) }
	answer := func(words []string) string {
		v := "value of " + words[1]
		return fmt.Sprintf("$%d\r\n%s\r\n", len(v), v)
	}
	t.Run("a count of commands, each once", func(t *testing.T) {
		seen := make(chan string, 1000)
		note := func(words []string) string { seen <- words[1]; return answer(words) }
		got, err := Run(Spec{Conns: []net.Conn{pipe(t, note), pipe(t, note)}, Clients: 5, Count: 100, Command: get, Want: "$"})
		if err != nil || got.Ops != 100 || got.Quantile(0.5) <= 0 || got.Quantile(1) < got.Quantile(0.5) {
			t.Errorf("Run = %v, %v; want 100 commands with latencies", got, err)
		}
		once := map[string]bool{}
		for range len(seen) {
			once[<-seen] = true
		}
		if len(once) != 100 {
			t.Errorf("%d different commands came, want 100", len(once))
		}
	})
	t.Run("a time", func(t *testing.T) {
		got, err := Run(Spec{Conns: []net.Conn{pipe(t, answer)}, Clients: 2, Warm: time.Millisecond, Time: 20 * time.Millisecond, Command: get, Want: "$"})
		if err != nil || got.Ops == 0 || got.Elapsed != 20*time.Millisecond {
			t.Errorf("Run = %d in %v, %v; want some in 20ms", got.Ops, got.Elapsed, err)
		}
	})
	t.Run("a wrong reply is an error", func(t *testing.T) {
		refuse := func([]string) string { return "-MOVED 0 elsewhere\r\n" }
		_, err := Run(Spec{Conns: []net.Conn{pipe(t, refuse)}, Clients: 2, Count: 9, Command: get})
		if err == nil {
			t.Error("an error passed for any answer")
		}
		_, err = Run(Spec{Conns: []net.Conn{pipe(t, refuse)}, Clients: 2, Count: 9, Command: get, Want: "$"})
		if err == nil || !strings.Contains(err.Error(), "MOVED") {
			t.Errorf("error = %v, want the reply in it", err)
		}
	})
}
