package foreign

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"

	"brownout/internal/history"
)

var (
	// "INFO  jepsen.util - 3 :invoke :cas [1 2]"; newer ones begin with a date
	// and name the thread: "… INFO [jepsen worker 3] jepsen.util: 3 …".
	logOp = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:.*\s)?jepsen\.util\s*[-:]\s+(:?\w+)\s+:(\w+)\s+:([\w-]+)\s+(.*?)\s*$`)
	})
	logNoise = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(?:.*\s)?(?:TRACE|DEBUG|INFO|WARN|ERROR|FATAL)\s`) })
	logPair  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\[(-?\d+|nil)[ ,]+(-?\d+|nil)\]$`) })
	logValue = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^-?\d+$`) })
)

func readJepsenLog(r io.Reader, b *builder) error {
	for line, err := range history.Lines(r) {
		if err != nil {
			return err
		}
		text := string(line.Text)
		m := logOp().FindStringSubmatch(text)
		if m == nil {
			if strings.TrimSpace(text) == "" || logNoise().MatchString(text) && !strings.Contains(text, "jepsen.util") {
				continue
			}
			return &history.LineError{Line: line.Number, Err: fmt.Errorf("%q is no line of a Jepsen log: want … jepsen.util - PROCESS :TYPE :FUNCTION VALUE", short(line.Text))}
		}
		if strings.HasPrefix(m[1], ":") { // the nemesis
			continue
		}
		e, err := logEvent(line.Number, m[1], m[2], m[3], m[4])
		if err != nil {
			return err
		}
		if err := b.take(e); err != nil {
			return err
		}
	}
	return nil
}

func logEvent(line int, proc, typ, f, value string) (*event, error) {
	e := &event{line: line, proc: proc, typ: typ, f: ":" + f}
	switch typ {
	case "invoke", "ok", "fail", "info":
	default:
		return nil, e.errorf("type :%s: want :invoke, :ok, :fail or :info", typ)
	}
	reason := strings.HasPrefix(value, ":") && typ != "invoke" && typ != "ok" // as :timed-out
	switch f {
	case "read":
		e.op.Kind = history.Get
		switch {
		case typ == "ok" && logValue().MatchString(value):
			e.op.Result = &value
		case value != "nil" && !reason:
			return nil, e.errorf("read of %q: want nil or a number", value)
		}
		if typ == "fail" || typ == "info" {
			e.typ, e.free = "ok", true // told nothing
		}
	case "write":
		e.op.Kind = history.Put
		switch {
		case logValue().MatchString(value):
			e.op.Value = &value
		case !reason:
			return nil, e.errorf("write of %q: want a number", value)
		}
		if typ == "fail" {
			e.typ = "info" // whether it can fail for certain is not said
		}
	case "cas":
		e.op.Kind = history.CAS
		pair := logPair().FindStringSubmatch(value)
		switch {
		case pair != nil:
			e.op.Expect, e.op.Value = orNil(pair[1]), orNil(pair[2])
		case !reason:
			return nil, e.errorf("cas of %q: want [from to]", value)
		}
		switch {
		case typ == "fail" && pair != nil:
			e.typ = "mismatch"
		case typ == "fail":
			e.typ = "info"
		}
	default:
		return nil, e.errorf("function :%s: want :read, :write or :cas", f)
	}
	if e.op.Kind == history.CAS && e.typ == "invoke" && e.op.Value == nil {
		return nil, e.errorf("cas to nil")
	}
	return e, nil
}

func orNil(s string) *string {
	if s == "nil" {
		return nil
	}
	return &s
}
