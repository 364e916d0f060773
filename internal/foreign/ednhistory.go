package foreign

import (
	"bufio"
	"io"
	"strings"

	"brownout/internal/history"
)

// readEDN reads maps of events, one after the other or in one list.
func readEDN(br *bufio.Reader, b *builder) error {
	r := &ednReader{br: br, line: 1}
	c, err := r.next()
	if err == io.EOF {
		return nil
	}
	if err != nil {
		return err
	}
	var end byte
	start := r.line
	switch c {
	case '[':
		end = ']'
	case '(':
		end = ')'
	default:
		r.unread(c)
	}
	for {
		c, err := r.next() // for the line on which the event begins
		if err == io.EOF && end == 0 {
			return nil
		}
		if err == io.EOF {
			return r.errorf("the file ends, but what line %d opened is not closed", start)
		}
		if err != nil {
			return err
		}
		if c == end && end != 0 {
			break
		}
		r.unread(c)
		line := r.line
		r.began = line
		v, err := r.value()
		switch {
		case err == io.EOF && end == 0: // only what #_ skipped
			return nil
		case err == errClose:
			if c, _ := r.next(); c == end && end != 0 {
				return rest(r)
			}
			return r.errorf("a closing bracket that nothing opened")
		case err == io.EOF:
			return r.torn()
		case err != nil:
			return err
		}
		e, err := ednEvent(b.h, line, v)
		if err != nil {
			return err
		}
		if e == nil {
			continue
		}
		if err := b.take(e); err != nil {
			return err
		}
	}
	return rest(r)
}

// rest says what stands after the end of the list.
func rest(r *ednReader) error {
	if c, err := r.next(); err != io.EOF {
		if err != nil {
			return err
		}
		return r.errorf("%q after the end of the history", c)
	}
	return nil
}

// ednEvent makes an event of a map; nil for one that is no client's.
func ednEvent(h *History, line int, v any) (*event, error) {
	e := &event{line: line}
	d, ok := v.(dict)
	if !ok {
		return nil, e.errorf("%s is no event: want a map of :process, :type, :f and :value", show(v))
	}
	for _, k := range []string{":process", ":type", ":f"} {
		if _, ok := d[k]; !ok {
			return nil, e.errorf("%s is missing", k)
		}
	}
	if _, client := d[":process"].(int64); !client { // the nemesis
		if _, ok := d[":process"].(keyword); !ok {
			return nil, e.errorf(":process %s: want a number", show(d[":process"]))
		}
		return nil, nil
	}
	e.proc = show(d[":process"])
	typ, _ := d[":type"].(keyword)
	switch typ {
	case ":invoke", ":ok", ":fail", ":info":
		e.typ = string(typ[1:])
	default:
		return nil, e.errorf(":type %s: want :invoke, :ok, :fail or :info", show(d[":type"]))
	}
	if t, ok := d[":time"]; ok && t != nil {
		n, ok := t.(int64)
		if !ok || n < 0 {
			return nil, e.errorf(":time %s: want ns from the start", show(t))
		}
		e.time = &n
	}
	f, ok := d[":f"].(keyword)
	if !ok {
		return nil, e.errorf(":f %s: want a keyword", show(d[":f"]))
	}
	e.f = string(f)
	if e.typ == "fail" || e.typ == "info" {
		return e, nil // whatever it says as its value, nothing follows
	}
	value, key := d[":value"], d[":key"]
	if h.Model == KV && h.Format == EDN && key == nil {
		pair, ok := value.([]any)
		if !ok || len(pair) != 2 {
			return nil, e.errorf(":value %s: of model kv, want :key or [key value]", show(value))
		}
		key, value = pair[0], pair[1]
	}
	if key != nil {
		e.op.Key = plain(key, h.Format != KVLog)
	}
	return e, e.function(h, e.f, value)
}

// What a mutex is.
const (
	free = "free"
	held = "held"
)

func (e *event) function(h *History, f string, v any) error {
	switch h.Model {
	case Mutex:
		return e.mutex(f)
	case AppendList:
		return e.appendList(f, v)
	}
	if h.Format == KVLog {
		return e.kvLog(f, v)
	}
	return e.register(h, f, v)
}

func (e *event) mutex(f string) error {
	from, to := free, held
	switch f {
	case ":acquire", ":lock":
	case ":release", ":unlock":
		from, to = held, free
	default:
		return e.errorf(":f %s: of model mutex, want :acquire or :release", f)
	}
	e.op.Kind, e.op.Expect, e.op.Value = history.CAS, &from, &to
	return nil
}

// register takes a cas-register's function, or that of one of many (kv).
func (e *event) register(h *History, f string, v any) error {
	switch f {
	case ":read", ":r", ":get":
		e.op.Kind = history.Get
		if pair, ok := v.([]any); ok && e.typ == "invoke" && len(pair) == 2 && pair[1] == nil && h.Model == CASRegister {
			return e.errorf(":value %s: a read of one of many keys; --model kv reads such histories", show(v))
		}
		e.found(v)
	case ":write", ":w", ":put":
		e.op.Kind = history.Put
		if e.op.Value = printed(v); v == nil {
			e.op.Kind = history.Delete
		}
	case ":cas":
		pair, ok := v.([]any)
		if !ok || len(pair) != 2 || pair[1] == nil {
			return e.errorf(":value %s: want [from to]", show(v))
		}
		e.op.Kind, e.op.Expect, e.op.Value = history.CAS, printed(pair[0]), printed(pair[1])
	default:
		return e.errorf(":f %s: want :read, :write or :cas", f)
	}
	return nil
}

// found notes what a read found; nil constrains nothing.
func (e *event) found(v any) {
	if e.typ == "ok" {
		e.op.Result, e.free = printed(v), v == nil
	}
}

// appendList takes a list's function. A list is the string of its elements,
// each with a space after it.
func (e *event) appendList(f string, v any) error {
	switch f {
	case ":append", ":add":
		e.op.Kind = history.Append
		if _, nested := v.([]any); nested || v == nil {
			return e.errorf(":value %s: want one element", show(v))
		}
		s := show(v) + " "
		e.op.Value = &s
	case ":read", ":r":
		e.op.Kind = history.Get
		if e.typ != "ok" {
			return nil
		}
		if v == nil {
			e.free = true
			return nil
		}
		elems, ok := v.([]any)
		if !ok {
			return e.errorf(":value %s: want a list, or nil", show(v))
		}
		var b strings.Builder
		for _, x := range elems {
			b.WriteString(show(x) + " ")
		}
		if s := b.String(); s != "" {
			e.op.Result = &s
		}
	default:
		return e.errorf(":f %s: of model append-list, want :append or :read", f)
	}
	return nil
}

// kvLog takes a function of porcupine's key-value logs, where absent reads as "".
func (e *event) kvLog(f string, v any) error {
	s, isText := v.(str)
	if v != nil && !isText {
		return e.errorf(":value %s: want a string, or nil", show(v))
	}
	switch f {
	case ":get":
		e.op.Kind = history.Get
		if e.typ == "ok" && s != "" {
			e.op.Result = (*string)(&s)
		}
		return nil
	case ":put":
		e.op.Kind = history.Put
		if s == "" {
			e.op.Kind = history.Delete
		}
	case ":append":
		e.op.Kind = history.Append
	default:
		return e.errorf(":f %s: of model kv, want :get, :put or :append", f)
	}
	if !isText {
		return e.errorf(":value %s: want a string", show(v))
	}
	if s != "" {
		e.op.Value = (*string)(&s)
	} else if e.op.Kind == history.Append { // appends nothing: as a read of which nothing is known
		e.op.Kind, e.free = history.Get, true
	}
	return nil
}

// printed prints a register's value; nil is none.
func printed(v any) *string {
	if v == nil {
		return nil
	}
	s := show(v)
	return &s
}

// plain prints a key: a string without its quotes, unless others than strings are
// there and it would look like one of them.
func plain(v any, mixed bool) string {
	s, ok := v.(str)
	if !ok || mixed && (s == "" || strings.ContainsAny(string(s[:1]), ":[({#\"+-0123456789") || s == "nil" || s == "true" || s == "false") {
		return show(v)
	}
	return string(s)
}
