package history

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// ReadFiles reads a history from the first of the named files that is there, in
// whichever of the two forms it is, and says from which. Errors name the file, and the line
// where there are lines. They match [fs.ErrNotExist] if there is none.
func ReadFiles(fsys fs.FS, names ...string) (ops []Op, from string, err error) {
	var missing error
	for _, name := range names {
		f, err := fsys.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			missing = errors.Join(missing, err)
			continue
		}
		if err != nil {
			return nil, name, err
		}
		defer f.Close()
		ops, err := ReadAny(bufio.NewReaderSize(f, 1<<18))
		if le, ok := errors.AsType[*LineError](err); ok {
			return nil, name, fmt.Errorf("%s:%d: %w", name, le.Line, le.Err)
		}
		if err != nil {
			return nil, name, fmt.Errorf("%s: %w", name, err)
		}
		return ops, name, nil
	}
	return nil, "", missing
}

// ReadAny reads a history of lines, or a spool. A spool that was cut off is an error
// here: it is no whole history.
func ReadAny(in *bufio.Reader) ([]Op, error) {
	head, err := in.Peek(len(spoolMagic))
	if err != nil && err != io.EOF {
		return nil, err
	}
	if !IsSpool(head) {
		return ReadAll(in)
	}
	all, err := io.ReadAll(in) // some 18 bytes an operation
	if err != nil {
		return nil, err
	}
	if !bytes.HasSuffix(all, endMark) {
		return nil, ErrTorn
	}
	ops := make([]Op, 0, len(all)/18)
	for op, err := range ReadSpool(bytes.NewReader(all), int64(len(all))) {
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, nil
}
