package stages

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func readAll(t *testing.T, b []byte) (nodes []string, recs []Record) {
	t.Helper()
	err := Read(bytes.NewReader(b), func(h *Header, r *Record) {
		nodes = append(nodes, h.Node)
		recs = append(recs, *r)
	})
	if err != nil {
		t.Fatal(err)
	}
	return nodes, recs
}

func TestWhatIsNotedIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes", "stages.bin")
	want := []Record{
		{Kind: Request, Code: 3, Peer: NoPeer, N: 7, A: Hash("k1", []byte("v")), B: 12, T: [9]int64{1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{Kind: Send, Peer: 2, Group: 3, A: 12, B: 13, T: [9]int64{SendAcked: 1 << 60}},
	}
	for range 2 { // also by one that was started again
		r, err := Open(path, Header{Node: "n1", Members: []string{"n1", "n2"}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			r.Note(&want[i])
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		// And half a record, as of one that was killed.
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.Write(want[0].Append(nil)[:Size/2])
		f.Close()
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	nodes, got := readAll(t, b)
	if d := cmp.Diff(append(want, want...), got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"n1", "n1", "n1", "n1"}, nodes); d != "" {
		t.Error(d)
	}
}

func TestARecorderWantsSomeRequestsAndTheSlowest(t *testing.T) {
	r := &Recorder{quota: perDrain, slow: perDrain, from: math.MaxInt64}
	ask := func(took int64, n int) (kept, slow int) {
		for range n {
			k, s := r.Wants(took, 1)
			if k {
				kept++
			}
			if s {
				slow++
			}
		}
		return kept, slow
	}
	if kept, slow := ask(1e6, 3*perDrain); kept != perDrain || slow != 0 {
		t.Errorf("%d kept, %d of them as slow", kept, slow)
	}
	ask(50e6, 2) // the slowest hundredth of 600 are 6
	ask(20e6, 5)
	r.quota, r.slow, r.from = perDrain, perDrain, r.took.slowest()
	if r.from > 20e6 || r.from < 17e6 {
		t.Errorf("slow from %d ns, want a little under 20 ms", r.from)
	}
	ask(1e6, perDrain)
	if kept, _ := ask(1e6, 100); kept != 0 {
		t.Errorf("%d more kept, and they were not slow", kept)
	}
	if kept, slow := ask(30e6, 2*perDrain); kept != perDrain || slow != perDrain {
		t.Errorf("%d slow ones kept, %d marked", kept, slow)
	}
	if r.took.slowest(); r.took.slowest() != math.MaxInt64 {
		t.Error("something is slow where nothing was")
	}
}

func TestBuckets(t *testing.T) {
	last := -1
	for _, ns := range []int64{0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 1000, 1e6, 1e9, math.MaxInt64} {
		i := bucket(uint64(ns))
		if i < last || floor(i) > ns || floor(i) < ns-ns/8 {
			t.Errorf("%d ns is in bucket %d, from %d", ns, i, floor(i))
		}
		last = i
	}
}

func TestARecorderDropsTheOldest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stages.bin")
	r, err := Open(path, Header{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil { // nobody drains from here on
		t.Fatal(err)
	}
	if r.file, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	for part := range uint64(3) {
		for i := range uint64(4) {
			if err := r.write((&Record{Kind: Store, A: 10*part + i}).Append(nil)); err != nil {
				t.Fatal(err)
			}
		}
		if part < 2 {
			if err := r.turn(); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.file.Close()
	var got []uint64
	for _, name := range []string{Old(path), path} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, recs := readAll(t, b)
		for _, rec := range recs {
			if rec.Kind == Lost {
				rec.A += 1000
			}
			got = append(got, rec.A)
		}
	}
	if d := cmp.Diff([]uint64{10, 11, 12, 13, 1004, 20, 21, 22, 23}, got); d != "" {
		t.Error(d)
	}
}

func TestARecorderSaysWhatItLost(t *testing.T) {
	full := &Recorder{buf: make([]Record, room)}
	full.Note(&Record{Kind: Store})
	if full.lost != 1 || len(full.buf) != room {
		t.Errorf("%d lost, %d kept", full.lost, len(full.buf))
	}
	path := filepath.Join(t.TempDir(), "stages.bin")
	r, err := Open(path, Header{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.lost = 5
	r.mu.Unlock()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	if _, recs := readAll(t, b); len(recs) != 1 || recs[0].Kind != Lost || recs[0].A != 5 {
		t.Errorf("%+v", recs)
	}
}

func TestNoRecorderTakesEverything(t *testing.T) {
	var r *Recorder
	r.Note(&Record{})
	if keep, _ := r.Wants(1, 1); r.Now() != 0 || keep || r.Close() != nil {
		t.Error("a nil recorder does something")
	}
}

func TestReadRefusesOtherFiles(t *testing.T) {
	for name, b := range map[string]string{
		"no header":           string((&Record{Kind: Store}).Append(nil)),
		"another format":      "{\"format\":\"x/1\"}\n",
		"not a header":        "{...}\n",
		"a kind that is none": "{\"format\":\"" + Format + "\"}\n" + string((&Record{Kind: kinds}).Append(nil)),
	} {
		if err := Read(bytes.NewReader([]byte(b)), func(*Header, *Record) {}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("{\"format\":\"" + Format + "\"}\n" + string((&Record{Kind: Store, T: [9]int64{1}}).Append(nil))))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		_ = Read(bytes.NewReader(b), func(h *Header, r *Record) {
			if h == nil || r.Kind == 0 {
				t.Fatal("a record of nobody")
			}
			n++
		})
		if n > len(b)/Size {
			t.Fatalf("%d records in %d bytes", n, len(b))
		}
	})
}
