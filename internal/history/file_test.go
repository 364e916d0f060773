package history

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestReadFilesReadsEitherForm(t *testing.T) {
	var ops []Op
	var lines, spool bytes.Buffer
	w, rec := NewWriter(&lines), NewRecorder(&spool)
	log := rec.Log()
	for i := range int64(1000) {
		v := fmt.Sprint("v", i+1)
		op := Op{ID: i + 1, Client: int(i % 3), Key: fmt.Sprint("k", i%7), Kind: Put, Value: &v, Outcome: OK, Due: i, Call: i, Return: i + 5, Node: "n1"}
		ops = append(ops, op)
		log.Add(&op)
		if err := w.Write(&op); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Flush(), rec.End()); err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{"h.jsonl": {Data: lines.Bytes()}, "h.bin": {Data: spool.Bytes()}}
	for _, names := range [][]string{{"h.jsonl", "h.bin"}, {"h.bin"}, {"none", "h.bin"}} {
		got, from, err := ReadFiles(files, names...)
		if want := names[len(names)-1]; err != nil || len(names) < 2 && from != want {
			t.Fatalf("%v: from %s, %v", names, from, err)
		}
		if d := cmp.Diff(ops, got); d != "" {
			t.Errorf("%v: %s", names, d)
		}
	}
	if _, _, err := ReadFiles(files, "a", "b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for name, text := range map[string]string{"cut.bin": spool.String()[:spool.Len()-len(endMark)-3], "open.bin": spool.String()[:spool.Len()-len(endMark)], "cut.jsonl": lines.String()[:lines.Len()-9]} {
		files[name] = &fstest.MapFile{Data: []byte(text)}
		if _, _, err := ReadFiles(files, name); err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"cut.bin", "open.bin"} {
		if _, _, err := ReadFiles(files, name); !errors.Is(err, ErrTorn) {
			t.Errorf("a spool that was cut off: %v", err)
		}
	}
}
