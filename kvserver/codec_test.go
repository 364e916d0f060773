package kvserver

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

func FuzzSnapshot(f *testing.F) {
	f.Add(snapshotOf(f, newFSM(Config{})))
	f.Add(snapshotOf(f, filledFSM(20)))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := newFSM(Config{})
		if err := a.Restore(io.NopCloser(bytes.NewReader(b))); err != nil {
			return
		}
		c := newFSM(Config{})
		if err := c.Restore(io.NopCloser(bytes.NewReader(snapshotOf(t, a)))); err != nil {
			t.Fatalf("what was restored does not restore again: %v", err)
		}
		if a.view().hash() != c.view().hash() || a.applied != c.applied {
			t.Fatal("state differs after a round trip")
		}
	})
}

func filledFSM(n int) *fsm {
	f := newFSM(Config{})
	f.sessions.open("s")
	for i := range n {
		key := fmt.Append(nil, "k", i)
		f.apply(&op{kind: opSet, args: [][]byte{key, bytes.Repeat([]byte{byte(i)}, i)}})
		f.apply(&op{kind: opCAS, args: [][]byte{key, key, key}, session: []byte("s"), seq: uint64(i + 1)})
	}
	f.applied = uint64(n)
	return f
}

func snapshotOf(tb testing.TB, f *fsm) []byte {
	var b bytes.Buffer
	v := f.view()
	defer v.release()
	if err := v.write(&b); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestSnapshotRoundTrip(t *testing.T) {
	f := filledFSM(300)
	b := snapshotOf(t, f)
	g := filledFSM(7) // its state must go
	if err := g.Restore(io.NopCloser(bytes.NewReader(b))); err != nil {
		t.Fatal(err)
	}
	if f.view().hash() != g.view().hash() || g.applied != 300 || g.keys.size() != 300 {
		t.Errorf("restored state differs: applied %d, %d keys", g.applied, g.keys)
	}
}

func TestDamagedSnapshotChangesNothing(t *testing.T) {
	b := snapshotOf(t, filledFSM(50))
	f := filledFSM(3)
	want := f.view().hash()
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x40
		if err := f.Restore(io.NopCloser(bytes.NewReader(bad))); err == nil {
			t.Fatalf("a snapshot with byte %d changed was restored", i)
		}
		if err := f.Restore(io.NopCloser(bytes.NewReader(b[:i]))); err == nil {
			t.Fatalf("a snapshot of %d bytes of %d was restored", i, len(b))
		}
	}
	if f.view().hash() != want || f.keys.size() != 3 {
		t.Error("a refused snapshot changed the state")
	}
}

func TestViewIsNotDisturbed(t *testing.T) {
	f := filledFSM(500)
	v := f.view()
	want := v.hash()
	for i := range 500 {
		f.apply(&op{kind: opSet, args: [][]byte{fmt.Append(nil, "k", i), []byte("changed")}})
	}
	if v.hash() != want {
		t.Error("writes changed a view taken before them")
	}
	v.release()
	for i, p := range v.keys.(*frozenParts).part {
		if p.views != 0 || f.keys.(*partedMap).part[i].views != 0 {
			t.Fatalf("part %d is still held", i)
		}
	}
}

func TestOldestSessionIsForgotten(t *testing.T) {
	f := newFSM(Config{})
	open := func(i int) { f.apply(&op{kind: opSession, args: [][]byte{fmt.Append(nil, i)}}) }
	for i := range maxSessions {
		open(i)
	}
	f.apply(&op{kind: opSet, args: [][]byte{{1}, {1}}, session: []byte("0"), seq: 1}) // used: no longer the oldest
	open(maxSessions)
	for id, known := range map[string]bool{"0": true, "1": false, "2": true, fmt.Sprint(maxSessions): true} {
		if _, got := f.sessions.byID[id]; got != known {
			t.Errorf("session %s is known: %v, want %v", id, got, known)
		}
	}
	if n := f.sessions.order.Len(); n != maxSessions || n != len(f.sessions.byID) {
		t.Errorf("%d sessions, want %d", n, maxSessions)
	}
}

// TestBoltLogIsALogStore does the same to a boltLog and to Raft's own store.
func TestBoltLogIsALogStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	b, err := openBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	ref := raft.NewInmemStore()
	at := time.Unix(1, 23)
	var logs []*raft.Log
	for i := uint64(5); i < 30; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: i / 4, Type: raft.LogType(i % 3), Data: bytes.Repeat([]byte{1}, int(i)), AppendedAt: at})
	}
	logs[3].Extensions = []byte("ext")
	for _, s := range []raft.LogStore{b, ref} {
		if err := s.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
		for _, cut := range [][2]uint64{{1, 9}, {25, 99}} {
			if err := s.DeleteRange(cut[0], cut[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := b.SetUint64([]byte("term"), 7); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err = openBolt(path); err != nil {
		t.Fatal(err)
	}
	defer b.Close()

	first, _ := b.FirstIndex()
	last, _ := b.LastIndex()
	if first != 10 || last != 24 {
		t.Errorf("log is %d..%d, want 10..24", first, last)
	}
	for i := uint64(4); i < 31; i++ {
		var got, want raft.Log
		gotErr, wantErr := b.GetLog(i, &got), ref.GetLog(i, &want)
		if gotErr != wantErr {
			t.Errorf("GetLog(%d): %v, want %v", i, gotErr, wantErr)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("entry %d (-want +got):\n%s", i, diff)
		}
	}
	if v, err := b.GetUint64([]byte("term")); v != 7 || err != nil {
		t.Errorf("GetUint64(term) = %d, %v; want 7", v, err)
	}
	if _, err := b.Get([]byte("none")); err == nil || err.Error() != "not found" {
		t.Errorf("Get(none): %v, want not found, which Raft understands", err)
	}
}

func TestHistogramBuckets(t *testing.T) {
	for _, v := range []uint64{0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 1000, 123456789, math.MaxInt64} {
		i := bucketOf(v)
		if top := bucketTop(i); int64(v) > top || i > 0 && int64(v) <= bucketTop(i-1) {
			t.Errorf("%d is in bucket %d, which ends at %d and begins after %d", v, i, top, bucketTop(max(i-1, 0)))
		}
	}
	var h histogram
	for i := range 1000 {
		h.record(time.Duration(i))
	}
	if got := h.summary(); got.Count != 1000 || got.MaxNS != 999 || got.P50NS < 499 || got.P50NS > 499*9/8 || got.P99NS < 989 || got.P99NS > 999 {
		t.Errorf("summary of 0..999 = %+v", got)
	}
}
