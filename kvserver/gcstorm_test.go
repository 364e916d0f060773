package kvserver

import (
	"encoding/json"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestGCStormComesAndGoes(t *testing.T) {
	var g gcStorm
	ask := func(body string) error {
		_, err := g.serve(t.Context(), json.RawMessage(body))
		return err
	}
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	percent := debug.SetGCPercent(100)
	defer debug.SetGCPercent(percent)
	before := live()
	for _, bad := range []string{`{"heap_bytes":-1}`, `{"heap_bytes":1}`, `{"heap_bytes":1,"gogc":1,"alloc_bytes_per_s":-1}`, `x`} {
		if ask(bad) == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	const heap = 8 << 20
	for range 2 { // a second one takes the place of the first
		if err := ask(`{"heap_bytes":8388608,"gogc":20,"alloc_bytes_per_s":1048576}`); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); live() < before+heap*9/10; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("live heap is %d, %d before", live(), before)
		}
	}
	if err := ask(`{}`); err != nil {
		t.Fatal(err)
	}
	if got := live(); got > before+heap/2 {
		t.Errorf("live heap after the storm is %d, %d before", got, before)
	}
	if got := debug.SetGCPercent(100); got != 100 {
		t.Errorf("GOGC after the storm is %d, 100 before", got)
	}
	if err := ask(`{}`); err != nil {
		t.Errorf("ending none: %v", err)
	}
}
