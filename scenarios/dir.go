package scenarios

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// makeDir creates a run's directory and proves that it can be written, before
// anything is started. A directory that already holds something is refused:
// a run's data is never overwritten.
func makeDir(dir string) (err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return &DirError{dir, fmt.Errorf("create: %w", err)}
		}
		defer func() {
			if err != nil {
				_ = os.Remove(dir) // as empty as it was made
			}
		}()
	case err != nil:
		return &DirError{dir, err}
	case len(entries) > 0:
		return &DirError{dir, errors.New("not empty; a run never overwrites another's data, name a new directory")}
	}
	if err := probeSpace(dir); err != nil {
		return &DirError{dir, err}
	}
	return nil
}

// minSpace is what a short run with its nodes' logs and data may need.
const minSpace = 256 << 20

// probeSpace writes and syncs a little, because a read-only or full file system
// shows itself only then.
func probeSpace(dir string) error {
	if free, err := freeBytes(dir); err == nil && free < minSpace {
		return fmt.Errorf("%d MiB free, a run needs at least %d MiB", free>>20, minSpace>>20)
	}
	f, err := os.CreateTemp(dir, ".space-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		return err
	}
	return f.Sync()
}

// A DirError says why a run's directory cannot be used.
type DirError struct {
	Dir string
	Err error
}

func (e *DirError) Error() string { return fmt.Sprintf("run directory %s: %v", e.Dir, e.Err) }
func (e *DirError) Unwrap() error { return e.Err }

// writeJSON writes one file whole: a reader sees the old or the new one, and
// after a crash it is not torn.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(b, '\n'))
}

func writeFile(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
