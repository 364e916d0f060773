package stages

import (
	"bytes"
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
		{Kind: Send, Peer: 2, A: 12, B: 13, T: [9]int64{SendAcked: 1 << 60}},
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

func TestARecorderKeepsSomeRequestsAndAllElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stages.bin")
	r, err := Open(path, Header{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	for range perDrain * 3 {
		r.Note(&Record{Kind: Request})
		r.Note(&Record{Kind: Store})
	}
	r.mu.Lock()
	r.lost = 5
	r.mu.Unlock()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	_, recs := readAll(t, b)
	n := map[Kind]int{}
	lost := uint64(0)
	for _, rec := range recs {
		n[rec.Kind]++
		if rec.Kind == Lost {
			lost += rec.A
		}
	}
	if n[Request] < perDrain || n[Request] >= 3*perDrain || n[Store] != 3*perDrain || lost != 5 {
		t.Errorf("%v, %d lost", n, lost)
	}
}

func TestNoRecorderTakesEverything(t *testing.T) {
	var r *Recorder
	r.Note(&Record{})
	if r.Now() != 0 || r.Wants() || r.Close() != nil {
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
