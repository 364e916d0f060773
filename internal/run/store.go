package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// StoreDir is where runs live unless a command is told otherwise, below the
// working directory.
const StoreDir = "runs"

// latestLink is the symbolic link to the newest run of a store.
const latestLink = "latest"

// NewID names a run: sortable by time, with the scenario and a short suffix
// that tells apart two runs of one second.
func NewID(now time.Time, scenario, suffix string) string {
	return now.UTC().Format("2006-01-02T15-04-05") + "_" + scenario + "_" + suffix
}

// MarkLatest points the store's "latest" link at the run called id. It
// replaces the link atomically: a reader sees the old run or the new one.
func MarkLatest(store, id string) error {
	tmp := filepath.Join(store, "."+latestLink+"-"+id)
	if err := os.Symlink(id, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(store, latestLink))
}

// List returns the ids of a store's runs, oldest first. A store that does not
// exist holds no runs.
func List(store string) ([]string, error) {
	entries, err := os.ReadDir(store)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && isRun(filepath.Join(store, e.Name())) {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return ids, nil
}

func isRun(dir string) bool {
	for _, name := range []string{ManifestFile, ResultFile, HistoryFile} { // a standing cluster has a plan, and is no run
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// Find returns the directory of the run that word names: "latest", "latest~2",
// an id, a prefix of one (or of its suffix after the last "_"), or a path.
func Find(store, word string) (string, error) {
	if word == "" {
		return "", errors.New(`run "": no name (want latest, latest~1, an id, a prefix of one, or a path)`)
	}
	if strings.ContainsRune(word, filepath.Separator) || word == "." || word == ".." {
		return existing(word)
	}
	ids, err := List(store)
	if err != nil {
		return "", fmt.Errorf("list runs: %w", err)
	}
	if word == latestLink || strings.HasPrefix(word, latestLink+"~") {
		return nth(store, ids, word)
	}
	var hits []string
	for _, id := range ids {
		if id == word {
			return filepath.Join(store, id), nil
		}
		if strings.HasPrefix(id, word) || strings.HasPrefix(id[strings.LastIndex(id, "_")+1:], word) {
			hits = append(hits, id)
		}
	}
	switch len(hits) {
	case 1:
		return filepath.Join(store, hits[0]), nil
	case 0:
		if dir, err := existing(word); err == nil {
			return dir, nil
		}
		return "", fmt.Errorf("run %q: none of the %d in %s has this name (see brownout ls)", word, len(ids), store)
	}
	return "", fmt.Errorf("run %q: %d match: %s", word, len(hits), strings.Join(hits, ", "))
}

func nth(store string, ids []string, word string) (string, error) {
	back := 0
	if n, ok := strings.CutPrefix(word, latestLink+"~"); ok {
		var err error
		if back, err = strconv.Atoi(n); err != nil || back < 0 {
			return "", fmt.Errorf("run %q: %q is no count (want latest~1, latest~2, ...)", word, n)
		}
	}
	if back >= len(ids) {
		return "", fmt.Errorf("run %q: %s holds %d runs", word, store, len(ids))
	}
	return filepath.Join(store, ids[len(ids)-1-back]), nil
}

func existing(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("run %q: %w", path, errors.Unwrap(err))
	}
	if st.IsDir() && !isRun(path) {
		return "", fmt.Errorf("run %q: holds none of %s, %s, %s: not a run's directory", path, ManifestFile, ResultFile, HistoryFile)
	}
	return path, nil
}
