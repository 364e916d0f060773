package kvserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A single shard has the data directory to itself; of several, shard i has
// shards-N/i below it.
const shardsDir = "shards-"

// groupDir is the directory of a shard.
func (c Config) groupDir(shard int) string {
	if c.Shards == 1 || c.Dir == "" {
		return c.Dir
	}
	return filepath.Join(c.Dir, shardsDir+strconv.Itoa(c.Shards), strconv.Itoa(shard))
}

// checkLayout refuses to start with another number of shards than before: the
// keys would be elsewhere.
func (c Config) checkLayout() error {
	if c.Log == "memory" {
		return nil
	}
	found, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look at data directory: %w", err)
	}
	for _, e := range found {
		was := strings.TrimPrefix(e.Name(), shardsDir)
		switch {
		case e.Name() == "wal" || e.Name() == "bolt":
			was = "1"
		case was == e.Name():
			continue
		}
		if was != strconv.Itoa(c.Shards) {
			return fmt.Errorf("shards: configured are %d, but %s was started with %s", c.Shards, c.Dir, was)
		}
	}
	return nil
}
