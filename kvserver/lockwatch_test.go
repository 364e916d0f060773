package kvserver

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestALongWaitIsWrittenDown: while a reader waits, all goroutines are written to
// a file, its holder among them, and one file is enough for a while.
func TestALongWaitIsWrittenDown(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "notes")
	k := startCluster(t, 1, func(c *Config) {
		c.Log, c.Dumps, c.LockDump = "memory", dir, Duration(20*time.Millisecond)
	}, nil)
	writer, reader := k.dial(0), k.dial(0)
	writer.must("OK", "SET", "k", "v")
	reader.must("OK", "READONLY")
	reader.must(`"v"`, "GET", "k")
	files := func() []string { found, _ := filepath.Glob(filepath.Join(dir, "*")); return found }
	if got := files(); got != nil {
		t.Fatalf("%v, and nobody has waited", got)
	}
	if status, why := k.lockFault(LockRequest{Holds: []LockHold{{AddNS: int64(200 * time.Millisecond), Which: "apply", Share: 100}}}); status != 200 {
		t.Fatal(why)
	}
	for range 3 {
		if _, err := writer.conn.Write(appendCommand(nil, "SET", "k", "w")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "lock held", func() bool { return !k.nodes[0].s.groups[0].fsm.locks.rw.TryRLock() || unlocked(k) })
		reader.do("GET", "k")
		if _, err := writer.reply(); err != nil {
			t.Fatal(err)
		}
	}
	got := files()
	if len(got) != 1 {
		t.Fatalf("%v, want one file", got)
	}
	text, err := os.ReadFile(got[0])
	if err != nil || !bytes.Contains(text, []byte("somebody has waited")) || !bytes.Contains(text, []byte("kvserver.pass")) || !bytes.Contains(text, []byte("(*fsm).read")) {
		t.Errorf("%v: %s", err, text)
	}
}

// unlocked gives back what TryRLock took, and is false.
func unlocked(k *testCluster) bool {
	k.nodes[0].s.groups[0].fsm.locks.rw.RUnlock()
	return false
}

func TestDumpsAreBounded(t *testing.T) {
	w := &lockWatch{dir: t.TempDir()}
	for range maxDumps + 3 {
		if err := w.dump("n1", time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if found, _ := filepath.Glob(filepath.Join(w.dir, "*")); len(found) != maxDumps {
		t.Errorf("%d files, want %d", len(found), maxDumps)
	}
	for i := range len(w.waiting) + 1 { // more than there is room for
		if at := w.enter(int64(i + 1)); (at < 0) != (i == len(w.waiting)) {
			t.Errorf("waiter %d is at %d", i, at)
		}
	}
	if d := w.longest(1000); d != 999 {
		t.Errorf("the longest wait is %d", d)
	}
	for i := range w.waiting {
		w.leave(i)
	}
	w.leave(-1)
	if d := w.longest(1000); d != 0 {
		t.Errorf("nobody waits, for %d", d)
	}
}

func TestContentionIsProfiledOnDemand(t *testing.T) {
	k := startCluster(t, 1, func(c *Config) { c.Log = "memory" }, nil)
	profile := func() string {
		resp, err := k.request(t.Context(), 0, "GET", "/debug/pprof/mutex?debug=1", "")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := profile(); !strings.Contains(got, "sampling period=0") {
		t.Errorf("it is on from the start: %s", got)
	}
	var ok struct{ OK bool }
	if status := k.admin(0, "POST", "/profile", `{"mutex_fraction":1}`, &ok); status != 200 || !ok.OK {
		t.Fatal(status)
	}
	defer ProfileRequest{}.set()
	l := k.nodes[0].s.groups[0].fsm.locks
	eventually(t, "contention in the profile", func() bool {
		mine := l.beginRead(false)
		waits := make(chan struct{})
		go func() {
			defer close(waits)
			l.rw.Lock()
			defer l.rw.Unlock()
		}()
		eventually(t, "writer that waits", func() bool {
			if l.rw.TryRLock() {
				l.rw.RUnlock()
				return false
			}
			return true
		})
		l.end(&mine)
		<-waits
		got := profile()
		return strings.Contains(got, "sampling period=1") && strings.Contains(got, "kvserver")
	})
	var e struct{ Error string }
	if status := k.admin(0, "POST", "/profile", `{"mutex_fraction":-1}`, &e); status != 400 || e.Error == "" {
		t.Error(status, e)
	}
}
