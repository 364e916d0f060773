package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/mattn/go-isatty"
)

// output is how a command prints: facts to out, talk to talk.
type output struct {
	out, talk io.Writer
	json      bool
	colour    bool
	tty       bool // talk can be redrawn
}

// newOutput reads the format word and the environment. Nobody else asks for a
// terminal or a colour.
func newOutput(format string) (*output, error) {
	o := &output{out: stdout, talk: os.Stderr}
	switch format {
	case "text", "":
	case "json":
		o.json = true
	default:
		return nil, &usageError{fmt.Errorf("--output %q: want text or json", format)}
	}
	dumb := os.Getenv("TERM") == "dumb" || os.Getenv("CI") != ""
	o.colour = isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == "" && !dumb
	o.tty = isTerminal(os.Stderr) && !dumb
	return o, nil
}

// stdout remembers that facts could not be written: a full disk behind it must
// not look like success.
var stdout = &checked{w: os.Stdout}

type checked struct {
	w   io.Writer
	err error // the first
}

func (c *checked) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	if err != nil && c.err == nil {
		c.err = err
	}
	return n, err
}

// print writes v as indented JSON.
func (o *output) print(v any) error {
	enc := json.NewEncoder(o.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func isTerminal(f *os.File) bool { return isatty.IsTerminal(f.Fd()) }
