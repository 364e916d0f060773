package faultfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// crashPoints is how many power losses each of the tests survives.
const crashPoints = 200

// A disk is what a file system is by the words of [journal], without any of its
// code: every state of the names so far, and of each file what it holds and
// what of it is durable.
type disk struct {
	names   []map[string]*content // after each change
	changed []map[*content]bool   // what that change makes durable if it is synced
	durable int                   // index into names
}

type content struct{ now, durable []byte }

var rootDir = &content{}

func newDisk() *disk {
	return &disk{names: []map[string]*content{{"": rootDir}}, changed: []map[*content]bool{nil}}
}

func (d *disk) last() map[string]*content { return d.names[len(d.names)-1] }

func (d *disk) change(by []*content, f func(names map[string]*content)) {
	next := maps.Clone(d.last())
	f(next)
	set := map[*content]bool{}
	for _, c := range by {
		set[c] = true
	}
	d.names, d.changed = append(d.names, next), append(d.changed, set)
}

func (d *disk) sync(c *content) {
	c.durable = bytes.Clone(c.now)
	for i := range d.names {
		if i > d.durable && d.changed[i][c] {
			d.durable = i
		}
	}
}

// after is what is left of the disk.
func (d *disk) after() map[string]string {
	out := map[string]string{}
	for p, c := range d.names[d.durable] {
		out[p] = string(c.durable)
	}
	return out
}

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	if err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		if name == "." {
			name = ""
		}
		if name == Trash {
			return filepath.SkipDir
		}
		if e.IsDir() {
			out[name] = ""
			return nil
		}
		b, err := os.ReadFile(p)
		out[name] = string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestPowerLossIsExact does random things to files and directories, loses
// power, and compares all that is left with what the promises say.
func TestPowerLossIsExact(t *testing.T) {
	m := mountFor(t, "")
	m.order(order{Arm: true})
	var loss Loss
	for point := range crashPoints {
		rng := rand.New(rand.NewPCG(1, uint64(point)))
		dir := fmt.Sprint("p", point)
		if err := os.Mkdir(m.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		syncDir(t, m.path("."))
		d := newDisk()
		var done []string
		for range 5 + rng.IntN(60) {
			done = append(done, step(t, rng, m.path(dir), d))
		}
		l := m.lose(-1)
		loss.Files, loss.Bytes, loss.Names = loss.Files+l.Files, loss.Bytes+l.Bytes, loss.Names+l.Names
		want := d.after()
		for _, at := range []string{filepath.Join(m.backing, dir), m.path(dir)} {
			if diff := cmp.Diff(want, tree(t, at)); diff != "" {
				t.Fatalf("point %d, after %s:\n%s", point, strings.Join(done, "; "), diff)
			}
		}
	}
	t.Logf("%d power losses took %d bytes of %d files and %d names", crashPoints, loss.Bytes, loss.Files, loss.Names)
	if loss.Bytes == 0 || loss.Names == 0 {
		t.Error("nothing was ever lost: the test has tested nothing")
	}
}

func syncDir(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// step does one random thing, to the files and to the model.
func step(t *testing.T, rng *rand.Rand, dir string, d *disk) (did string) {
	t.Helper()
	now := d.last()
	var files, dirs []string
	for p, c := range now {
		if c.now == nil {
			dirs = append(dirs, p)
		} else {
			files = append(files, p)
		}
	}
	slices.Sort(files)
	slices.Sort(dirs)
	at := func(p string) string { return filepath.Join(dir, p) }
	up := func(p string) *content { return now[strings.TrimPrefix(filepath.Dir("/"+p), "/")] }
	fresh := func() string {
		return strings.TrimPrefix(dirs[rng.IntN(len(dirs))]+fmt.Sprintf("/n%d", rng.IntN(8)), "/")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", did, err)
		}
	}
	pick := func() string { return files[rng.IntN(len(files))] }
	data := make([]byte, 1+rng.IntN(9000))
	for i := range data {
		data[i] = byte(1 + rng.IntN(255))
	}
	switch op := rng.IntN(14); {
	case op <= 2 || len(files) == 0: // create
		p := fresh()
		did = "create " + p
		f, err := os.OpenFile(at(p), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if _, is := now[p]; is {
			if err == nil {
				t.Fatal(did, "it was there")
			}
			return did + ": there"
		}
		must(err)
		must(f.Close())
		c := &content{now: []byte{}, durable: []byte{}}
		d.change([]*content{c, up(p)}, func(n map[string]*content) { n[p] = c })
	case op <= 6: // write
		p := pick()
		c, off := now[p], rng.IntN(len(now[p].now)+2000)
		did = fmt.Sprintf("write %s %d+%d", p, off, len(data))
		f, err := os.OpenFile(at(p), os.O_WRONLY, 0)
		must(err)
		_, err = f.WriteAt(data, int64(off))
		must(errors.Join(err, f.Close()))
		if len(c.now) < off+len(data) {
			c.now = append(bytes.Clone(c.now), make([]byte, off+len(data)-len(c.now))...)
		} else {
			c.now = bytes.Clone(c.now)
		}
		copy(c.now[off:], data)
	case op == 7: // truncate, either way
		p := pick()
		c, size := now[p], rng.IntN(len(now[p].now)+4000)
		did = fmt.Sprintf("truncate %s %d", p, size)
		must(os.Truncate(at(p), int64(size)))
		next := make([]byte, size)
		copy(next, c.now)
		c.now = next
	case op <= 9: // fsync
		p := pick()
		did = "fsync " + p
		f, err := os.OpenFile(at(p), os.O_RDWR, 0)
		must(err)
		if rng.IntN(2) == 0 {
			must(f.Sync())
		} else {
			must(unix.Fdatasync(int(f.Fd())))
		}
		must(f.Close())
		d.sync(now[p])
	case op == 10: // fsync of a directory
		p := dirs[rng.IntN(len(dirs))]
		did = "fsync dir /" + p
		syncDir(t, at(p))
		d.sync(now[p])
	case op == 11: // rename, perhaps over another
		p, to := pick(), fresh()
		did = "rename " + p + " " + to
		if there, is := now[to]; is && there.now == nil {
			return did + ": a directory"
		}
		must(os.Rename(at(p), at(to)))
		if p == to {
			return did
		}
		c := now[p]
		d.change([]*content{c, up(p), up(to)}, func(n map[string]*content) { delete(n, p); n[to] = c })
	case op == 12: // unlink
		p := pick()
		did = "unlink " + p
		must(os.Remove(at(p)))
		d.change([]*content{up(p)}, func(n map[string]*content) { delete(n, p) })
	default: // mkdir, or rmdir
		p := fresh()
		did = "mkdir " + p
		c, is := now[p]
		empty := is && c.now == nil
		for q := range now {
			empty = empty && !strings.HasPrefix(q, p+"/")
		}
		switch {
		case empty:
			did = "rmdir " + p
			must(os.Remove(at(p)))
			d.change([]*content{up(p)}, func(n map[string]*content) { delete(n, p) })
		case !is:
			must(os.Mkdir(at(p), 0o755))
			c := &content{}
			d.change([]*content{c, up(p)}, func(n map[string]*content) { n[p] = c })
		}
	}
	return did
}

// TestPowerLossAmidWriters has files appended to and synced by several at once
// when the power goes. Of each file exactly what was synced is left; an fsync
// that was on may have been done or not.
func TestPowerLossAmidWriters(t *testing.T) {
	m := mountFor(t, "")
	m.order(order{Arm: true})
	const writers, record = 4, 100
	lostAny := false
	for point := range crashPoints {
		rng := rand.New(rand.NewPCG(2, uint64(point)))
		var wg sync.WaitGroup
		var synced, trying [writers]atomic.Int64
		for w := range writers {
			f := create(t, m.path(fmt.Sprintf("w%d.%d", w, point)))
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			every := 1 + rng.IntN(5)
			wg.Go(func() {
				defer f.Close()
				for i := int64(0); ; i++ {
					b := bytes.Repeat([]byte{byte(w + 1)}, record)
					binary.BigEndian.PutUint64(b, uint64(i))
					if _, err := f.WriteAt(b, i*record); err != nil {
						return
					}
					if (i+1)%int64(every) != 0 {
						continue
					}
					trying[w].Store(i + 1)
					if unix.Fdatasync(int(f.Fd())) != nil {
						return
					}
					synced[w].Store(i + 1)
				}
			})
		}
		time.Sleep(time.Duration(rng.IntN(8_000_000)))
		l := m.lose(-1)
		wg.Wait()
		lostAny = lostAny || l.Bytes > 0
		for w := range writers {
			name := fmt.Sprintf("w%d.%d", w, point)
			b, err := os.ReadFile(filepath.Join(m.backing, name))
			if err != nil {
				t.Fatal(err)
			}
			n, least, most := int64(len(b)), record*synced[w].Load(), record*trying[w].Load()
			if n != least && n != most {
				t.Fatalf("point %d: %s has %d bytes; %d were synced, an fsync of %d was on", point, name, n, least, most)
			}
			for i := range n / record {
				r := b[i*record : (i+1)*record]
				if binary.BigEndian.Uint64(r) != uint64(i) || r[record-1] != byte(w+1) {
					t.Fatalf("point %d: record %d of %s is %x", point, i, name, r)
				}
			}
		}
	}
	if !lostAny {
		t.Error("nothing was ever lost: the test has tested nothing")
	}
}

// TestTornWrite: of the last write a prefix of whole sectors survives, of what
// came before all.
func TestTornWrite(t *testing.T) {
	m := mountFor(t, "")
	m.order(order{Arm: true})
	a, b, c := bytes.Repeat([]byte("a"), 8192), bytes.Repeat([]byte("b"), 1000), bytes.Repeat([]byte("c"), 4096)
	f := create(t, m.path("f"))
	for _, err := range []error{
		second(f.WriteAt(a, 0)), f.Sync(), second(f.WriteAt(b, 100)), second(f.WriteAt(c, 6144)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	g := create(t, m.path("g")) // synced: nothing to tear
	if err := errors.Join(second(g.WriteAt(c, 0)), g.Sync()); err != nil {
		t.Fatal(err)
	}
	l := m.lose(0.6)
	want := bytes.Clone(a)
	copy(want[100:], b)
	want = append(want[:6144], c[:2048]...) // 6144 + 0.6·4096 = 8601.6, its sector begins at 8192
	got, err := os.ReadFile(m.path("f"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v: %d bytes, want %d; first difference at %d", err, len(got), len(want), differ(got, want))
	}
	if got, err := os.ReadFile(m.path("g")); err != nil || !bytes.Equal(got, c) {
		t.Errorf("a synced file has %d bytes, %v", len(got), err)
	}
	if l.Torn != 1 {
		t.Errorf("loss = %+v", l)
	}
}

func second[T any](_ T, err error) error { return err }

func differ(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
