package faultfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"

	"brownout/internal/needs"
)

const childEnv = "BROWNOUT_TEST_CHILD"

// The tests run in a mount namespace of their own, and the server in a process
// beside them, as in a node: who uses the mount must not serve it.
func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		if os.Geteuid() == 0 {
			os.Exit(inside())
		}
	case "serve":
		serve(os.Args[1], os.Args[2], os.Args[3] == "passthrough")
		os.Exit(0)
	case "sync": // one write and fsync after the other, at most for a minute
		f, err := os.Create(os.Args[1])
		fmt.Println(err)
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			_, _ = f.WriteAt(make([]byte, 4096), 0)
			_ = f.Sync()
		}
		os.Exit(0)
	case "user": // as somebody else
		fmt.Println(user(os.Args[1]))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func inside() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), childEnv+"=inside")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Println(err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

type order struct {
	Rules   *Rules
	Unmount bool
	Arm     bool
	Lose    bool // and mount again, armed
	Torn    float64
}

type answer struct {
	Error string
	Stats Stats
	Loss  Loss
}

// serve is a server that takes orders.
func serve(backing, point string, passthrough bool) {
	out, in := json.NewEncoder(os.Stdout), json.NewDecoder(os.Stdin)
	s, err := Mount(backing, point, Options{Passthrough: passthrough})
	_ = out.Encode(answer{Error: fmt.Sprint(err)})
	if err != nil {
		return
	}
	for {
		var o order
		if in.Decode(&o) != nil {
			return
		}
		var err error
		var loss Loss
		switch {
		case o.Arm:
			err = s.Arm(true)
		case o.Lose:
			loss, err = s.Lose(o.Torn)
			if err == nil {
				s, err = Mount(backing, point, Options{Passthrough: passthrough})
			}
			if err == nil {
				err = s.Arm(true)
			}
		case o.Rules != nil:
			err = s.SetRules(*o.Rules)
		case o.Unmount:
			err = s.Unmount()
		}
		_ = out.Encode(answer{fmt.Sprint(err), s.Stats(), loss})
	}
}

// A mounted is a mount with its server.
type mounted struct {
	t              testing.TB
	backing, point string
	cmd            *exec.Cmd
	mu             sync.Mutex
	in             *json.Encoder
	out            *json.Decoder
}

func mountFor(t testing.TB, how string) *mounted {
	t.Helper()
	needs.Host(t, needs.Root, needs.Need{Name: "fuse", Check: func() string {
		if err := Probe(); err != nil {
			return err.Error()
		}
		return ""
	}})
	m := &mounted{t: t, backing: t.TempDir(), point: t.TempDir()}
	m.cmd = exec.Command("/proc/self/exe", m.backing, m.point, how)
	m.cmd.Env = append(os.Environ(), childEnv+"=serve")
	m.cmd.Stderr = os.Stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	w, err := m.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
		_ = unix.Unmount(m.point, unix.MNT_DETACH)
	})
	m.in, m.out = json.NewEncoder(w), json.NewDecoder(r)
	m.answer()
	return m
}

func (m *mounted) answer() answer {
	m.t.Helper()
	var a answer
	if err := m.out.Decode(&a); err != nil || a.Error != "<nil>" {
		m.t.Fatalf("server: %s %v", a.Error, err)
	}
	return a
}

func (m *mounted) ask(o order) answer {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.in.Encode(o); err != nil {
		m.t.Fatal(err)
	}
	return m.answer()
}

func (m *mounted) order(o order) Stats { m.t.Helper(); return m.ask(o).Stats }

// lose loses power; a share below 0 tears no write.
func (m *mounted) lose(torn float64) Loss {
	m.t.Helper()
	return m.ask(order{Lose: true, Torn: torn}).Loss
}

func (m *mounted) rules(op Op, add time.Duration) {
	m.t.Helper()
	m.order(order{Rules: &Rules{Delay: map[Op][]Delay{op: {{Add: add}}}}})
}

func (m *mounted) heal()        { m.t.Helper(); m.order(order{Rules: &Rules{}}) }
func (m *mounted) stats() Stats { m.t.Helper(); return m.order(order{}) }

func (m *mounted) path(name string) string { return filepath.Join(m.point, name) }

// timed is f n times, sorted.
func timed(t testing.TB, n int, f func(i int) error) []time.Duration {
	t.Helper()
	ds := make([]time.Duration, n)
	for i := range ds {
		begin := time.Now()
		if err := f(i); err != nil {
			t.Fatal(err)
		}
		ds[i] = time.Since(begin)
	}
	slices.Sort(ds)
	return ds
}

func median(ds []time.Duration) time.Duration { return ds[len(ds)/2] }

func create(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Each class is measured from outside, without, with 5 ms, with 20 ms, and
// again without: the wait is there, in proportion, and in its class only.
func TestDelayIsWhatWasAsked(t *testing.T) {
	m := mountFor(t, "")
	f := create(t, m.path("f"))
	block := make([]byte, 4096)
	cold, err := os.OpenFile(m.path("f"), os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer cold.Close()
	aligned, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(aligned)
	d, err := os.Open(m.point)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, tt := range []struct {
		name  string
		op    Op
		other Op
		do    func(i int) error
	}{
		{"fdatasync", Fsync, Write, func(i int) error {
			_, err := f.WriteAt(block, int64(i)*4096)
			return errors.Join(err, unix.Fdatasync(int(f.Fd())))
		}},
		{"fsync", Fsync, Rename, func(i int) error { _, err := f.WriteAt(block, 0); return errors.Join(err, f.Sync()) }},
		{"fsync of a directory", Fsync, Open, func(int) error { return d.Sync() }},
		{"write", Write, Read, func(i int) error { _, err := f.WriteAt(block, int64(i)*4096); return err }},
		{"read past the cache", Read, Write, func(int) error { _, err := cold.ReadAt(aligned, 0); return err }},
		{"open", Open, Read, func(int) error {
			f, err := os.Open(m.path("f"))
			if err == nil {
				f.Close()
			}
			return err
		}},
		{"create", Open, Meta, func(i int) error {
			f, err := os.Create(m.path(fmt.Sprintf("new%d-%d", i, time.Now().UnixNano())))
			if err == nil {
				f.Close()
			}
			return err
		}},
		{"rename", Rename, Open, func(i int) error {
			a, b := m.path("a"), m.path("b")
			if _, err := os.Lstat(a); err != nil {
				a, b = b, a
			}
			return os.Rename(a, b)
		}},
		{"truncate", Meta, Rename, func(i int) error { return f.Truncate(int64(8192 + i)) }},
		{"all", All, "", func(int) error { return f.Sync() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(m.path("a"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			_ = os.Remove(m.path("b"))
			const n = 15
			before := timed(t, n, tt.do)
			m.rules(tt.op, 5*time.Millisecond)
			five := timed(t, n, tt.do)
			m.rules(tt.op, 20*time.Millisecond)
			twenty := timed(t, n, tt.do)
			other := before
			if tt.other != "" {
				m.rules(tt.other, 20*time.Millisecond)
				if tt.name != "fdatasync" { // which writes, too
					other = timed(t, n, tt.do)
				}
			}
			m.heal()
			after := timed(t, n, tt.do)
			t.Logf("median %v, +5ms %v, +20ms %v, healed %v", median(before), median(five), median(twenty), median(after))
			// A wait is never shorter. The machine may make any of them longer, but hardly all.
			if five[0] < 5*time.Millisecond || twenty[0] < 20*time.Millisecond {
				t.Errorf("shortest with +5ms %v, with +20ms %v", five[0], twenty[0])
			}
			if d := five[0] - before[0]; d > 15*time.Millisecond {
				t.Errorf("+5ms was %v at the least", d)
			}
			if d := twenty[0] - five[0]; d < 8*time.Millisecond || d > 40*time.Millisecond {
				t.Errorf("+20ms was %v more than +5ms at the least", d)
			}
			for what, ds := range map[string][]time.Duration{"healed": after, "while another class waits": other} {
				if ds[0] > 5*time.Millisecond {
					t.Errorf("%s, the shortest took %v", what, ds[0])
				}
			}
		})
	}
	s := m.stats()
	fs := s.Ops[Fsync]
	if fs.Delayed < 60 || fs.N < fs.Delayed || fs.Delay < 60*5*time.Millisecond || fs.MaxDelay < 20*time.Millisecond || fs.Backing == 0 || len(fs.Delays) == 0 || len(fs.Backings) == 0 {
		t.Errorf("fsyncs counted: %+v", fs)
	}
	if s.Ops[Write].Bytes == 0 || s.Ops[Read].Bytes == 0 || s.Panics != 0 || s.Waiting != 0 {
		t.Errorf("counted: %+v", s)
	}
}

// A file system like any other, with the backing directory under it.
func TestSemantics(t *testing.T) {
	m := mountFor(t, "")
	f := create(t, m.path("f"))
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	_, err := f.WriteString("hello")
	check("write", err)
	check("fallocate", unix.Fallocate(int(f.Fd()), 0, 0, 1<<16))
	check("truncate", f.Truncate(5))
	check("rename", os.Rename(m.path("f"), m.path("g")))
	b, err := os.ReadFile(filepath.Join(m.backing, "g"))
	if string(b) != "hello" {
		t.Errorf("backing holds %q, %v", b, err)
	}
	ap, err := os.OpenFile(m.path("g"), os.O_APPEND|os.O_WRONLY, 0)
	check("open to append", err)
	_, err = ap.WriteString(" world")
	check("append", errors.Join(err, ap.Close()))
	if b, err := os.ReadFile(m.path("g")); string(b) != "hello world" {
		t.Errorf("read %q, %v", b, err)
	}
	check("link", os.Link(m.path("g"), m.path("h")))
	check("symlink", os.Symlink("g", m.path("s")))
	if b, err := os.ReadFile(m.path("s")); string(b) != "hello world" {
		t.Errorf("read by link %q, %v", b, err)
	}
	check("mkdir", os.MkdirAll(m.path("d/e"), 0o777))
	if err := os.Rename(m.path("d"), m.path("d/e/x")); err == nil {
		t.Error("a directory was moved into itself")
	}
	entries, err := os.ReadDir(m.point)
	if len(entries) != 4 || err != nil {
		t.Errorf("entries = %v, %v; want 4", entries, err)
	}
	check("unlink an open file", os.Remove(m.path("g")))
	check("unlink its other name", os.Remove(m.path("h")))
	_, err = f.WriteAt([]byte("J"), 0)
	check("write after unlink", err)
	got := make([]byte, 5)
	_, err = f.ReadAt(got, 0)
	if string(got) != "Jello" {
		t.Errorf("read after unlink %q, %v", got, err)
	}
	time.Sleep(1100 * time.Millisecond) // the kernel forgets attributes
	if st, err := f.Stat(); err != nil || st.Size() != 11 {
		t.Errorf("stat after unlink = %v, %v", st, err)
	}
	check("sync after unlink", f.Sync())
	check("truncate after unlink", f.Truncate(1))
	// Shared writable mapping, as some stores have it.
	mm := create(t, m.path("m"))
	check("size", mm.Truncate(8192))
	mem, err := unix.Mmap(int(mm.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check("mmap", err)
	copy(mem[4096:], "mapped")
	check("msync", unix.Msync(mem, unix.MS_SYNC))
	check("munmap", unix.Munmap(mem))
	if b, err := os.ReadFile(filepath.Join(m.backing, "m")); err != nil || string(b[4096:4102]) != "mapped" {
		t.Errorf("backing of a mapping: %v", err)
	}
	// O_DSYNC reaches the fsync class, so that its users are slowed down, too.
	before := m.stats().Ops[Fsync].N
	ds, err := os.OpenFile(m.path("ds"), os.O_CREATE|os.O_WRONLY|unix.O_DSYNC, 0o644)
	check("open O_DSYNC", err)
	_, err = ds.WriteString("x")
	check("write O_DSYNC", errors.Join(err, ds.Close()))
	t.Logf("a write with O_DSYNC is %d fsyncs", m.stats().Ops[Fsync].N-before)
	// Locks are the kernel's.
	l1, l2 := create(t, m.path("lock")), create(t, m.path("lock"))
	check("flock", unix.Flock(int(l1.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	if err := unix.Flock(int(l2.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("second flock = %v", err)
	}
	if s := m.stats(); s.Panics != 0 {
		t.Errorf("%d panics", s.Panics)
	}
}

func TestModesAreTheCallers(t *testing.T) {
	m := mountFor(t, "")
	old := unix.Umask(0)
	defer unix.Umask(old)
	f, err := os.OpenFile(m.path("f"), os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.Mkdir(m.path("d"), 0o777); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"f": 0o666, "d": 0o777 | os.ModeDir} {
		for _, dir := range []string{m.point, m.backing} {
			if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode() != want {
				t.Errorf("mode of %s = %v, %v; want %v", filepath.Join(dir, name), st.Mode(), err, want)
			}
		}
	}
}

const nobody = 54321

// user does as an unprivileged node does, and returns what went wrong.
func user(dir string) error {
	name := filepath.Join(dir, "theirs/f")
	if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
		return err
	}
	if err := os.Rename(name, name+"2"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("could write to root's directory: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "secret")); !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("could read root's file: %q, %v", b, err)
	}
	if err := os.Symlink("/etc/shadow", filepath.Join(dir, "theirs/link")); err != nil {
		return err
	}
	if _, err := os.ReadFile(filepath.Join(dir, "theirs/link")); err == nil {
		return errors.New("could read a file of the host by a link")
	}
	return nil
}

func TestOtherUsersHaveTheirOwnRights(t *testing.T) {
	m := mountFor(t, "")
	for dir := m.point; len(dir) > 4; dir = filepath.Dir(dir) { // down to the mount
		st, err := os.Stat(dir)
		if err == nil && st.Mode()&0o005 != 0o005 {
			if err := os.Chmod(dir, st.Mode()|0o055); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(os.Mkdir(m.path("theirs"), 0o700), os.Chown(m.path("theirs"), nobody, nobody), os.WriteFile(m.path("secret"), []byte("s"), 0o600)); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin, err := os.Open(exe) // its directory may be closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer bin.Close()
	cmd := exec.Command("/proc/self/fd/3", m.point)
	cmd.ExtraFiles = []*os.File{bin}
	cmd.Env = append(os.Environ(), childEnv+"=user")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if strings.TrimSpace(string(out)) != "<nil>" || err != nil {
		t.Fatalf("as another user: %s, %v", out, err)
	}
	st, err := os.Stat(filepath.Join(m.backing, "theirs/f2"))
	if err != nil || st.Sys().(*syscall.Stat_t).Uid != nobody || st.Mode() != 0o600 {
		t.Errorf("the file belongs to %v, %v", st, err)
	}
}

func boltPuts(t testing.TB, dir string, n int) []time.Duration {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, "bolt"), 0o600, &bbolt.Options{Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	value := make([]byte, 1024)
	ds := timed(t, n, func(i int) error {
		return db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			return b.Put(fmt.Appendf(nil, "%08d", i), value)
		})
	})
	if err := db.View(func(tx *bbolt.Tx) error {
		if got := tx.Bucket([]byte("b")).Stats().KeyN; got != n {
			return fmt.Errorf("%d keys, want %d", got, n)
		}
		for err := range tx.Check() {
			return err
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return ds
}

func walLogs(t testing.TB, dir string, n int) []time.Duration {
	t.Helper()
	dir = filepath.Join(dir, "wal")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	open := func() (*wal.WAL, func() error) {
		meta := &metadb.BoltMetaDB{} // raft-wal's Close leaves it open
		w, err := wal.Open(dir, wal.WithSegmentSize(256<<10), wal.WithMetaStore(meta))
		if err != nil {
			t.Fatal(err)
		}
		return w, func() error { return errors.Join(w.Close(), meta.Close()) }
	}
	w, shut := open()
	first, err := w.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 1024)
	ds := timed(t, n, func(i int) error {
		return w.StoreLogs([]*raft.Log{{Index: first + uint64(i) + 1, Term: 1, Data: data}})
	})
	if err := shut(); err != nil {
		t.Fatal(err)
	}
	w, shut = open()
	defer shut()
	var l raft.Log
	if last, err := w.LastIndex(); err != nil || last != first+uint64(n) || w.GetLog(last, &l) != nil || len(l.Data) != 1024 {
		t.Errorf("after reopening the last index is %d, %v; want %d", last, err, first+uint64(n))
	}
	return ds
}

func TestStoresWork(t *testing.T) {
	for _, how := range []string{"", "passthrough"} {
		t.Run("slowfs "+how, func(t *testing.T) {
			m := mountFor(t, how)
			before, beforeWal := boltPuts(t, m.point, 100), walLogs(t, m.point, 600) // some segments
			m.rules(Fsync, 5*time.Millisecond)
			bolt, logs := boltAgain(t, m.point, 20), walLogs(t, m.point, 20)
			if bolt[0] < 5*time.Millisecond || logs[0] < 5*time.Millisecond {
				t.Errorf("with slow fsyncs the shortest put took %v, the shortest append %v", bolt[0], logs[0])
			}
			s := m.stats()
			t.Logf("put %v then %v, append %v then %v; %d writes seen, %d files passed through", median(before), median(bolt), median(beforeWal), median(logs), s.Ops[Write].N, s.Passthrough)
			if s.Panics != 0 {
				t.Errorf("%d panics", s.Panics)
			}
			if how == "" && s.Ops[Write].N == 0 {
				t.Error("no writes were seen")
			}
		})
	}
}

func boltAgain(t testing.TB, dir string, n int) []time.Duration {
	t.Helper()
	sub := filepath.Join(dir, "again")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	return boltPuts(t, sub, n)
}

// With fsyncs waiting, writes of others do not.
func TestWaitsDoNotHoldOthersUp(t *testing.T) {
	m := mountFor(t, "")
	f := create(t, m.path("f"))
	alone := timed(t, 200, func(i int) error { _, err := f.WriteAt(make([]byte, 512), int64(i)); return err })
	m.rules(Fsync, 20*time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 8 {
		g := create(t, m.path(fmt.Sprint("g", i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				_ = g.Sync()
			}
		})
	}
	beside := timed(t, 200, func(i int) error { _, err := f.WriteAt(make([]byte, 512), int64(i)); return err })
	cancel()
	wg.Wait()
	t.Logf("a write: alone median %v, p99 %v; beside 8 waiting fsyncs %v, %v", median(alone), alone[197], median(beside), beside[197])
	if median(beside) > 5*time.Millisecond {
		t.Errorf("beside waiting fsyncs a write takes %v", median(beside))
	}
}

// startSync runs a process that syncs all the time and waits until it waits.
func startSync(t *testing.T, m *mounted) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", m.path("synced"))
	cmd.Env = append(os.Environ(), childEnv+"=sync")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for end := time.Now().Add(20 * time.Second); m.stats().Waiting == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody waits")
		}
	}
	return cmd
}

func TestKillEndsAWait(t *testing.T) {
	for _, interrupted := range []bool{false, true} {
		t.Run(fmt.Sprintf("interrupted before: %v", interrupted), func(t *testing.T) {
			m := mountFor(t, "")
			m.rules(Fsync, 30*time.Second)
			cmd := startSync(t, m)
			if interrupted { // it can be only once by FUSE's means: the kill that follows is not told
				if err := cmd.Process.Signal(syscall.SIGURG); err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
				if s := m.stats(); s.Waiting != 1 || s.Killed != 0 {
					t.Errorf("a signal that kills nobody ended the wait: %+v", s)
				}
			}
			begin := time.Now()
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			took := time.Since(begin)
			t.Logf("killed in %v", took)
			if took > 5*time.Second {
				t.Errorf("a caller in a delayed fsync took %v to die", took)
			}
			if s := m.stats(); s.Killed != 1 || s.Waiting != 0 {
				t.Errorf("counted: %+v", s)
			}
		})
	}
}

func TestReleaseEndsWaits(t *testing.T) {
	m := mountFor(t, "")
	m.rules(Fsync, 30*time.Second)
	f := create(t, m.path("f"))
	done := make(chan time.Duration)
	begin := time.Now()
	go func() { _ = f.Sync(); done <- time.Since(begin) }()
	for m.stats().Waiting == 0 {
		time.Sleep(time.Millisecond)
	}
	m.heal()
	select {
	case d := <-done:
		t.Errorf("healing alone ended a wait after %v", d)
	case <-time.After(100 * time.Millisecond):
	}
	m.order(order{Rules: &Rules{Release: true}})
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("a released wait goes on")
	}
	if s := m.stats(); s.Released != 1 {
		t.Errorf("counted: %+v", s)
	}
}

func TestDeadServerIsNotConnected(t *testing.T) {
	m := mountFor(t, "")
	m.rules(Fsync, 30*time.Second)
	f := create(t, m.path("f"))
	failed := make(chan error)
	go func() { failed <- f.Sync() }()
	for m.stats().Waiting == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := m.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = m.cmd.Wait()
	select {
	case err := <-failed:
		if !errors.Is(err, syscall.ECONNABORTED) && !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("a waiting fsync returned %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a caller hangs on a dead server")
	}
	if _, err := os.Stat(m.path("f")); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("stat = %v, want ENOTCONN", err)
	}
	if err := unix.Unmount(m.point, unix.MNT_DETACH); err != nil {
		t.Error(err)
	}
}

func TestUnmount(t *testing.T) {
	m := mountFor(t, "")
	f, err := os.Create(m.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	m.order(order{Unmount: true})
	if es, err := os.ReadDir(m.point); err != nil || len(es) != 0 {
		t.Errorf("after unmounting: %v, %v", es, err)
	}
	if es, err := os.ReadDir(m.backing); err != nil || len(es) != 1 {
		t.Errorf("backing: %v, %v", es, err)
	}
}

// The mount is seen in its own namespace only and ends with it.
func TestNothingIsLeftOutside(t *testing.T) {
	m := mountFor(t, "")
	here, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", os.Getppid()))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(here), m.point+" fuse.slowfs") {
		t.Errorf("not mounted here:\n%s", here)
	}
	if strings.Contains(string(out), m.point) {
		t.Errorf("seen outside:\n%s", out)
	}
}

func TestTheConnectionIsNotInherited(t *testing.T) {
	m := mountFor(t, "")
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", m.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); to != "/dev/fuse" {
			continue
		}
		found = true
		info, err := os.ReadFile(strings.Replace(fd, "/fd/", "/fdinfo/", 1))
		if err != nil {
			t.Fatal(err)
		}
		var flags int
		if _, after, ok := strings.Cut(string(info), "flags:\t"); ok {
			_, _ = fmt.Sscanf(after, "%o", &flags)
		}
		if flags&unix.O_CLOEXEC == 0 {
			t.Errorf("%s is open to children: %s", fd, info)
		}
	}
	if !found {
		t.Error("no connection found")
	}
}

func TestMountErrors(t *testing.T) {
	needs.Host(t, needs.Root)
	for _, tt := range []struct{ name, backing, point string }{
		{"no backing directory", filepath.Join(t.TempDir(), "none"), t.TempDir()},
		{"no mount point", t.TempDir(), filepath.Join(t.TempDir(), "none")},
	} {
		if s, err := Mount(tt.backing, tt.point, Options{Log: io.Discard}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v, %v; want not exist", tt.name, s, err)
		}
	}
}

func TestProbeSaysWhatIsMissing(t *testing.T) {
	needs.Host(t, needs.Root)
	if err := unix.Mount("none", "/dev", "tmpfs", 0, ""); err != nil { // in the tests' own namespace
		t.Fatal(err)
	}
	defer unix.Unmount("/dev", unix.MNT_DETACH)
	err := Probe()
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "/dev/fuse does not exist (modprobe fuse; in a container: --device /dev/fuse") {
		t.Errorf("without /dev/fuse: %v", err)
	}
	if _, err := Mount(t.TempDir(), t.TempDir(), Options{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("mount without /dev/fuse: %v", err)
	}
	// A device that no driver answers for, as where the kernel module is missing.
	if err := unix.Mknod("/dev/fuse", unix.S_IFCHR|0o600, int(unix.Mkdev(240, 200))); err != nil {
		t.Fatal(err)
	}
	if err := Probe(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("without a driver: %v", err)
	}
}
