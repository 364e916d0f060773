package history

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func readSpool(t *testing.T, data []byte) ([]Op, error) {
	t.Helper()
	var ops []Op
	for op, err := range ReadSpool(bytes.NewReader(data), int64(len(data))) {
		if err != nil {
			return ops, err
		}
		ops = append(ops, op)
	}
	return ops, nil
}

var spoolOps = []Op{
	{ID: 1, Client: 0, Key: "k7", Kind: Put, Value: text("v1"), Outcome: OK, Due: 100, Call: 110, Return: 900, Node: "n1"},
	{ID: 65, Client: 0, Key: "k0", Kind: Get, Result: text("v1+a2+a3"), Outcome: OK, Due: 2000, Call: 2001, Return: 2900, Node: "n2"},
	{ID: 66, Client: 0, Key: "other", Kind: Get, Outcome: OK, Due: 2001, Call: 2950, Return: 3000, Node: "n2"},
	{ID: 99, Client: 64, Key: "k00", Kind: CAS, Value: text("v99"), Expect: text("x4"), Result: text("v1~~~ damaged\x00"), Swapped: true, Outcome: OK, Due: 4000, Call: 4000, Return: 4500, Node: "n2"},
	{ID: 120, Client: 64, Key: "k1", Kind: Append, Value: text("+a120"), Outcome: Unknown, Due: 5000, Call: 5100, Return: 1e9, Node: "n2", Error: "timeout"},
	{ID: 121, Client: 128, Key: "k1", Kind: Delete, Value: text("x121"), Outcome: Fail, Due: 6000, Call: 2e9, Return: 2e9 + 1, Node: "n2", Error: "timeout"},
	{ID: 122, Client: 128, Key: "k", Kind: Delete, Outcome: Unknown, Due: 6001, Call: 2e9 + 5, Return: 2e9 + 6, Error: "connection refused"},
	{ID: 123, Client: 128, Key: "k1", Kind: Put, Value: text(""), Expect: text("v007"), Outcome: "odd", Due: 6001, Call: 2e9 + 7, Return: 2e9 + 6, Node: "n3", Phase: "final"},
	{ID: 124, Client: 1, Key: "k99999999999999999999", Kind: "strange", Value: text("+a7v8x9"), Result: text(""), Due: -5, Call: 2e9 + 9, Return: 1 << 62, Phase: "final"},
}

func TestSpoolKeepsEveryField(t *testing.T) {
	var out bytes.Buffer
	r := NewRecorder(&out)
	l := r.Log()
	for _, op := range spoolOps {
		l.Add(&op)
	}
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := readSpool(t, out.Bytes())
	if diff := cmp.Diff(spoolOps, got); diff != "" || err != nil {
		t.Errorf("%v; (-want +got):\n%s", err, diff)
	}
}

func TestSpoolCutAnywhereIsGoodUpToItsLastBlock(t *testing.T) {
	var out bytes.Buffer
	r := NewRecorder(&out)
	l := r.Log()
	ends := map[int]int{len(spoolMagic): 0} // size → operations
	for i, op := range spoolOps {
		l.Add(&op)
		if err := r.Flush(); err != nil {
			t.Fatal(err)
		}
		ends[out.Len()] = i + 1
	}
	want := 0
	for cut := range out.Len() + 1 {
		n, whole := ends[cut]
		if whole {
			want = n
		}
		got, err := readSpool(t, out.Bytes()[:cut])
		if len(got) != want || (err == nil) != whole || err != nil && !errors.Is(err, ErrTorn) {
			t.Fatalf("cut at %d: %d operations, %v; want %d and torn %v", cut, len(got), err, want, !whole)
		}
	}
	damaged := slices.Clone(out.Bytes())
	damaged[len(spoolMagic)+4] ^= 1
	if _, err := readSpool(t, damaged); err == nil || errors.Is(err, ErrTorn) {
		t.Errorf("a flipped bit in the first block: %v, want an error that is not ErrTorn", err)
	}
}

func TestFlushWhileClientsAppendLosesNothingAndSortsByCall(t *testing.T) {
	const clients, each = 8, 5000
	var out bytes.Buffer
	r := NewRecorder(&out)
	var wg sync.WaitGroup
	for c := range clients {
		l := r.Log()
		wg.Go(func() {
			for i := range each {
				id := int64(i*clients + c + 1)
				value := fmt.Sprintf("v%d", id)
				if i%1000 == 999 {
					value = strings.Repeat("x", 2*chunkSize)
				}
				l.Add(&Op{ID: id, Client: c, Key: "k1", Kind: Put, Value: &value, Outcome: OK, Due: id, Call: id * 10, Return: id*10 + 5, Node: "n1"})
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for alive := true; alive; {
		select {
		case <-done:
			alive = false
		default:
		}
		if err := r.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	n := int64(0)
	for op, err := range ReadSpool(bytes.NewReader(out.Bytes()), int64(out.Len())) {
		if n++; err != nil || op.ID != n {
			t.Fatalf("operation %d: ID %d, %v", n, op.ID, err)
		}
	}
	if n != clients*each {
		t.Errorf("%d operations, want %d", n, clients*each)
	}
	if int64(out.Len()) != r.Bytes() {
		t.Errorf("Bytes = %d, want %d", r.Bytes(), out.Len())
	}
}

type fullDisk struct{ left int }

func (d *fullDisk) Write(b []byte) (int, error) {
	if len(b) > d.left {
		return d.left, errors.New("no space left on device")
	}
	d.left -= len(b)
	return len(b), nil
}

func TestFlushRepeatsItsFirstError(t *testing.T) {
	r := NewRecorder(&fullDisk{left: 30})
	l := r.Log()
	var first error
	for i := range 10 {
		l.Add(&spoolOps[0])
		err := r.Flush()
		if first != nil && err != first {
			t.Fatalf("flush %d: %v after %v", i, err, first)
		}
		first = err
	}
	if first == nil {
		t.Error("no error from a full disk")
	}
}

func FuzzSpoolRoundTrip(f *testing.F) {
	f.Add(int64(17), int64(4), "k7", "put", "v17", "x3", "v1+a2", "ok", int64(1), int64(2), int64(3), "n2", "final", "why", byte(7))
	f.Fuzz(func(t *testing.T, id, client int64, key, kind, value, expect, result, outcome string, due, call, ret int64, node, phase, why string, bits byte) {
		op := Op{
			ID: id, Client: int(client), Key: key, Kind: Kind(kind), Outcome: Outcome(outcome),
			Due: due, Call: call, Return: ret, Node: node, Phase: phase, Error: why, Swapped: bits&1 != 0,
		}
		if bits&2 != 0 {
			op.Value = &value
		}
		if bits&4 != 0 {
			op.Expect = &expect
		}
		if bits&8 != 0 {
			op.Result = &result
		}
		var enc delta
		buf := enc.append(enc.append(nil, &spoolOps[0]), &op)
		dec := spoolReader{in: buf}
		for _, want := range []Op{spoolOps[0], op} {
			if got, ok := dec.next(); !ok || cmp.Diff(want, got) != "" {
				t.Fatalf("round trip: %v\n%s", ok, cmp.Diff(want, got))
			}
		}
	})
}

// FuzzReadSpool: what is read from any bytes is written and read the same.
func FuzzReadSpool(f *testing.F) {
	var out bytes.Buffer
	r := NewRecorder(&out)
	a, b := r.Log(), r.Log()
	for i := range spoolOps {
		[]*Log{a, b}[i%2].Add(&spoolOps[i])
	}
	_ = r.Flush()
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := readSpool(t, data)
		if err != nil && !errors.Is(err, ErrTorn) {
			return
		}
		var again bytes.Buffer
		r := NewRecorder(&again)
		l := r.Log()
		for i := range first {
			l.Add(&first[i])
		}
		_ = r.Flush()
		second, err := readSpool(t, again.Bytes())
		if diff := cmp.Diff(first, second); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

// benchOps is what one of 64 clients sees at 2000 operations a second.
func benchOps() []Op {
	ops := make([]Op, 4096)
	for i := range ops {
		id := int64(i*64 + 5)
		due := id * 500_000
		op := &ops[i]
		*op = Op{ID: id, Client: 5, Key: fmt.Sprintf("k%d", id*7919%1000), Outcome: OK, Due: due, Call: due + 60_000 + id%9000, Return: due + 1_900_000 + id%700_000, Node: "n1"}
		switch i % 10 {
		case 0, 1, 2, 3, 4:
			op.Kind, op.Result = Get, text(fmt.Sprintf("v%d", max(1, id-id%20_000)))
		case 9:
			op.Kind, op.Value, op.Expect, op.Result, op.Swapped = CAS, text(fmt.Sprintf("v%d", id)), text(fmt.Sprintf("v%d", max(1, id-900))), text(fmt.Sprintf("v%d+a%d", max(1, id-900), id-10)), false
		case 8:
			op.Kind, op.Value = Append, text(fmt.Sprintf("+a%d", id))
		default:
			op.Kind, op.Value = Put, text(fmt.Sprintf("v%d", id))
		}
	}
	return ops
}

func BenchmarkRecorder(b *testing.B) {
	ops := benchOps()
	r := NewRecorder(io.Discard)
	l := r.Log()
	i := 0
	for b.Loop() {
		l.Add(&ops[i%len(ops)])
		if i++; i%500 == 0 { // a quarter of a second
			_ = r.Flush()
		}
	}
	_ = r.Flush()
	b.ReportMetric(float64(r.Bytes())/float64(i), "bytes/op")
}

func BenchmarkReadSpool(b *testing.B) {
	ops := benchOps()
	var out bytes.Buffer
	r := NewRecorder(&out)
	for range 16 {
		l := r.Log()
		for i := range ops {
			l.Add(&ops[i])
		}
	}
	_ = r.Flush()
	n := 0
	for b.Loop() {
		for range ReadSpool(bytes.NewReader(out.Bytes()), int64(out.Len())) {
			n++
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
}
