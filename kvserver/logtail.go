package kvserver

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"
)

// A LogTail reads what nodes with log: wal append to their logs, from the files
// alone, while nodes write them. It needs nothing of the nodes.
type LogTail struct {
	dir  string
	read map[string]int64 // by file: up to here, the end of a commit
}

// TailLog follows all logs below a node's data directory, from their very start.
func TailLog(dir string) *LogTail { return &LogTail{dir, map[string]int64{}} }

// ErrNoLog says that there is no file of a wal.
var ErrNoLog = errors.New("no wal")

// Next calls each for every entry of commands that was appended since the last
// call. Entries may appear twice if a node wrote them twice, as followers do
// whose leader was replaced. An entry is valid until each returns.
func (t *LogTail) Next(each func(entry []byte)) error {
	var files []string
	err := filepath.WalkDir(t.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasSuffix(path, ".wal") {
			files = append(files, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a node deletes what it needs no more
		}
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("look for a wal: %w", err)
	case files == nil:
		return fmt.Errorf("%s: %w", t.dir, ErrNoLog)
	}
	for _, name := range files { // in order: their names begin with an index
		end, err := readSegment(name, t.read[name], each)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read %s: %w", filepath.Base(name), err)
		}
		t.read[name] = end
	}
	return nil
}

// The form of raft-wal's segments, see segment/format.go there: a header, then
// frames of multiples of 8 bytes. A commit's number is the checksum of all from
// the end of the commit before it, or the file's start.
const (
	segmentMagic  = 0x58eb6b0d
	segmentHeader = 32
	frameSize     = 8

	frameEntry  = 1
	frameIndex  = 2
	frameCommit = 3
)

// readSegment reads whole commits from an offset on, and returns where the last one ends.
func readSegment(name string, from int64, each func([]byte)) (end int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return from, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return from, err
	}
	in := bufio.NewReaderSize(io.NewSectionReader(f, from, info.Size()-from), 64<<10)
	var batch []byte
	take := func(n int) (ok bool) {
		at := len(batch)
		batch = append(batch, make([]byte, n)...)
		_, err := io.ReadFull(in, batch[at:])
		return err == nil // what is cut off is not there yet
	}
	if from == 0 && (!take(segmentHeader) || binary.LittleEndian.Uint32(batch) != segmentMagic) {
		return 0, nil // nothing is written yet
	}
	var entries [][2]int // in batch
	for {
		at := len(batch)
		if !take(frameSize) {
			return from, nil
		}
		kind, number := batch[at], binary.LittleEndian.Uint32(batch[at+4:])
		switch kind {
		case frameEntry, frameIndex:
			if int64(number) > info.Size() || !take(int(number+7)&^7) {
				return from, nil
			}
			if kind == frameEntry {
				entries = append(entries, [2]int{at + frameSize, at + frameSize + int(number)})
			}
		case frameCommit:
			if crc32.Checksum(batch[:at], castagnoli) != number {
				return from, nil // it is being written
			}
			for _, e := range entries {
				if err := commandsOf(batch[e[0]:e[1]], each); err != nil {
					return from, err
				}
			}
			from += int64(len(batch))
			batch, entries = batch[:0], entries[:0]
		default:
			return from, nil
		}
	}
}

// commandsOf takes raft-wal's record of an entry apart.
func commandsOf(record []byte, each func([]byte)) error {
	r := reader{b: record}
	r.uvarint() // index
	r.uvarint() // term
	kind, data := raft.LogType(r.uvarint()), r.bytes()
	if r.short {
		return errShort
	}
	if kind == raft.LogCommand {
		each(data)
	}
	return nil
}

// An EntryForm is what one can see of an entry.
type EntryForm struct {
	Codec           string
	Commands, Bytes int

	ops []op
}

// ReadEntry reads an entry of any codec.
func ReadEntry(entry []byte) (EntryForm, error) {
	c, err := codecOf(entry)
	if err != nil {
		return EntryForm{}, err
	}
	ops, err := decodeEntry(entry, nil)
	return EntryForm{c.name, len(ops), len(entry), ops}, err
}

// As returns the bytes that the commands of the entry take in another form.
func (e EntryForm) As(codec string, bloat, fields int) (int, error) {
	c, err := newCoding(codec, bloat, fields)
	if err != nil {
		return 0, err
	}
	b, err := c.encode(e.ops, 0)
	return len(b), err
}
