package run

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
)

// maxLine bounds one line of events.jsonl and telemetry.jsonl, in bytes.
const maxLine = 4 << 20

// maxDocument bounds the JSON documents of a run, in bytes.
const maxDocument = 256 << 20

// ReadJSON decodes the file called name into v. Unknown fields and anything
// after the document are errors, which name the file and where they can the line.
func ReadJSON(fsys fs.FS, name string, v any) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > maxDocument {
		return fmt.Errorf("read %s: larger than %d MiB", name, maxDocument>>20)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%s:%d: %w", name, lineOf(b, dec.InputOffset(), err), plain(err))
	}
	if rest := bytes.TrimSpace(b[dec.InputOffset():]); len(rest) > 0 {
		return fmt.Errorf("%s:%d: something after the document", name, lineOf(b, dec.InputOffset(), nil))
	}
	return nil
}

// plain tells of a file that is cut off in words.
func plain(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the file is cut off")
	}
	return err
}

// lineOf finds the line of a decoding error.
func lineOf(b []byte, at int64, err error) int {
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = s.Offset
	}
	if u, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		at = u.Offset
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		at = int64(len(b))
	}
	return 1 + bytes.Count(b[:min(max(at, 0), int64(len(b)))], []byte("\n"))
}

// ReadManifest reads manifest.json.
func ReadManifest(fsys fs.FS) (Manifest, error) {
	var m Manifest
	err := ReadJSON(fsys, ManifestFile, &m)
	if err == nil && m.Schema != ManifestSchema {
		err = fmt.Errorf("%s: schema %q, this program reads %q", ManifestFile, m.Schema, ManifestSchema)
	}
	return m, err
}

// ReadResult reads result.json.
func ReadResult(fsys fs.FS) (Result, error) {
	var r Result
	err := ReadJSON(fsys, ResultFile, &r)
	if err == nil && r.Schema != ResultSchema {
		err = fmt.Errorf("%s: schema %q, this program reads %q", ResultFile, r.Schema, ResultSchema)
	}
	return r, err
}

// WriteResult writes result.json into the directory dir: it appears whole or not at all.
func WriteResult(dir string, r Result) error {
	return writeWhole(filepath.Join(dir, ResultFile), r)
}

// WriteManifest writes manifest.json into the directory dir.
func WriteManifest(dir string, m Manifest) error {
	return writeWhole(filepath.Join(dir, ManifestFile), m)
}

func writeWhole(path string, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

var eventTypes = []EventType{
	PhaseStarted, LoadStarted, LoadEnded, FaultFired, FaultMeasured, FaultHealed, FaultVerified, FaultFailed, FaultChanged, RoleMoved,
	LeaderChanged, NodeStarted, NodeReady, NodeExited, TestbedFailed, ReplicaState, Violated, HostNoise, CacheReport, WireReport, Interrupted, RunEnded, Note,
}

// ReadEvents reads events.jsonl, in the file's order.
func ReadEvents(fsys fs.FS) ([]Event, error) {
	var events []Event
	for e, err := range readLines[Event](fsys, EventsFile) {
		if err != nil {
			return nil, err
		}
		if !slices.Contains(eventTypes, e.Type) {
			return nil, fmt.Errorf("%s:%d: unknown type of event %q", EventsFile, len(events)+1, e.Type)
		}
		events = append(events, e)
	}
	return events, nil
}

// A Change is one line of cleanup.json, as far as judging cares: something that
// the run made on the host, and how it stands.
type Change struct {
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	Born  uint64 `json:"born,omitempty"`
	Run   string `json:"run,omitempty"`
	State string `json:"state"` // made, undone, failed
	Error string `json:"error,omitempty"`
}

// Residue says what a run is not known to have undone, by its journal. What a
// killed run left may be gone by now; its own record cannot tell. A run without
// a journal changed nothing.
func Residue(fsys fs.FS) []string {
	left := []string{}
	for c, err := range readLines[Change](fsys, CleanupFile) {
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && c.State == "undone":
		case err != nil:
			left = append(left, err.Error())
		case c.Error != "":
			left = append(left, fmt.Sprintf("%s %s: %s", c.Kind, c.Name, c.Error))
		default:
			left = append(left, fmt.Sprintf("%s %s: not undone when the record stops; brownout clean removes it if it is still there", c.Kind, c.Name))
		}
	}
	return left
}

// Samples reads telemetry.jsonl one sample at a time.
func Samples(fsys fs.FS) iter.Seq2[Sample, error] { return readLines[Sample](fsys, TelemetryFile) }

// readLines decodes a file of one JSON object a line and stops at the first
// error, which names file and line.
func readLines[T any](fsys fs.FS, name string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		f, err := fsys.Open(name)
		if err != nil {
			yield(none, err)
			return
		}
		defer f.Close()
		sc := bufio.NewScanner(f)
		sc.Buffer(make([]byte, 64<<10), maxLine)
		n := 0
		for sc.Scan() {
			n++
			var v T
			dec := json.NewDecoder(bytes.NewReader(sc.Bytes()))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&v); err != nil {
				yield(none, fmt.Errorf("%s:%d: %w", name, n, cutLine(err)))
				return
			}
			if len(bytes.TrimSpace(sc.Bytes()[dec.InputOffset():])) > 0 {
				yield(none, fmt.Errorf("%s:%d: something after the object", name, n))
				return
			}
			if !yield(v, nil) {
				return
			}
		}
		if err := sc.Err(); err != nil {
			yield(none, fmt.Errorf("%s:%d: %w", name, n+1, err))
		}
	}
}

func cutLine(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the line is cut off")
	}
	return err
}
