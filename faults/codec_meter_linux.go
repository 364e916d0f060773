package faults

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"brownout/cluster"
	"brownout/kvserver"
)

// A codecMeter reads the nodes' logs from their disks: what form entries have
// there, and how many bytes for each command. It writes a little itself, so that
// there is something to be read.
type codecMeter struct {
	b     *bench
	names []string
	ask   kvserver.CodecRequest

	probe *lockProbe
	nodes []*codecNode
	begun bool
}

// A codecNode is a node that is looked at.
type codecNode struct {
	*cluster.Node
	tail   *kvserver.LogTail
	own    kvserver.Codec // as configured, and what coding had cost before the fault
	before kvserver.Codec // the latter when it began
	saw    codecSeen
}

// A codecSeen is what was seen of a node's log, and what was expected of it.
type codecSeen struct {
	entries, asked, own int // all; as asked for; as configured
	commands, bytes     int
	askedBytes          int // of the same commands, as asked for
	ownBytes            int
	codec               string // of the last
}

// Bounds of what is looked at.
const (
	codecLeast = 5 // entries
	codecBase  = 200 * time.Millisecond
	codecEvery = 100 * time.Millisecond
	codecLook  = 16 << 10        // bytes at a time, or one entry
	codecWait  = 5 * time.Second // for so many entries
	codecAlike = 0.02            // gob numbers types as they come, which may take a byte more
	codecShare = 0.9             // of entries: some are on their way when the fault comes
)

func meterCodec(b *bench, site Site, d Dose) (Meter, error) {
	ask, err := codecOf(d)
	if err == nil && len(site.Nodes) == 0 {
		err = errors.New("no nodes")
	}
	return &codecMeter{b: b, names: site.Nodes, ask: ask}, err
}

func (m *codecMeter) Baseline(ctx context.Context) (_ Reading, err error) {
	nodes, err := m.b.nodes(m.names)
	if err != nil {
		return Reading{}, err
	}
	var all []netip.Addr
	for _, n := range m.b.Cluster.Nodes() {
		all = append(all, n.IP4())
	}
	m.probe = startLockProbe(m.b.Cluster.ClientNetNS(), nodes[0].IP4(), all, 4*time.Millisecond)
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	for _, n := range nodes {
		c := &codecNode{Node: n}
		if c.own, err = codecAccount(ctx, n); err != nil {
			return Reading{}, err
		}
		// The backing of a node's disk is on the host, unless it has a device of its own.
		for _, dir := range []string{filepath.Join(n.Dir(), "data"), n.Data()} {
			c.tail = kvserver.TailLog(dir)
			if err = c.tail.Next(func([]byte) {}); !errors.Is(err, kvserver.ErrNoLog) {
				break
			}
		}
		if err != nil {
			return Reading{}, fmt.Errorf("read %s's log, which needs log: wal: %w", n.Name(), err)
		}
		m.nodes = append(m.nodes, c)
	}
	if err := m.watch(ctx, codecBase, codecWait); err != nil {
		return Reading{}, err
	}
	values := map[string]any{}
	for _, c := range m.nodes {
		values["bytes"], values["n"] = c.saw.perCommand(c.saw.bytes), c.saw.commands
		if c.saw.same() {
			return Reading{}, fmt.Errorf("%s encodes as asked for already: %s, %d bytes a command", c.Name(), c.saw.codec, c.saw.perCommand(c.saw.bytes))
		}
	}
	return Reading{values}, nil
}

// codecAccount asks a node what coding costs it.
func codecAccount(ctx context.Context, n *cluster.Node) (kvserver.Codec, error) {
	var got kvserver.Metrics
	a := adminOf(n)
	defer a.close()
	if err := a.call(ctx, http.MethodGet, "/metrics", nil, &got); err != nil {
		return kvserver.Codec{}, fmt.Errorf("ask %s how it encodes: %w", n.Name(), err)
	}
	return got.Codec, nil
}

// watch looks at what is appended for a time, and longer, up to most, until
// there is enough of it.
func (m *codecMeter) watch(ctx context.Context, least, most time.Duration) error {
	for _, c := range m.nodes {
		if err := c.tail.Next(func([]byte) {}); err != nil {
			return err
		}
		c.saw = codecSeen{}
	}
	for begun := time.Now(); ; {
		if !sleep(ctx, least) {
			return ctx.Err()
		}
		few := ""
		for _, c := range m.nodes {
			if err := m.look(c); err != nil {
				return err
			}
			if c.saw.entries < codecLeast {
				few = fmt.Sprintf("%d entries came into %s's log in %v", c.saw.entries, c.Name(), time.Since(begun).Round(time.Millisecond))
			}
		}
		if few == "" {
			return nil
		}
		if time.Since(begun) > most {
			return errors.New(few)
		}
	}
}

// look takes a few of the entries that a node has appended to its log since the
// last look: to read them costs as much as it costs the node.
func (m *codecMeter) look(c *codecNode) error {
	var some [][]byte
	taken := 0
	err := c.tail.Next(func(entry []byte) {
		if taken < codecLook {
			some = append(some, bytes.Clone(entry))
			taken += len(entry)
		}
	})
	if err != nil {
		return err
	}
	s := &c.saw
	for _, entry := range some {
		e, err := kvserver.ReadEntry(entry)
		if err != nil {
			return fmt.Errorf("an entry in %s's log: %w", c.Name(), err)
		}
		own, err := e.As(c.own.Name, c.own.BloatBytes, c.own.Fields)
		if err != nil {
			return err
		}
		codec := cmp.Or(m.ask.Codec, c.own.Name)
		asked, err := e.As(codec, c.own.BloatBytes+m.ask.BloatBytes, c.own.Fields+m.ask.Fields)
		if err != nil {
			return err
		}
		s.entries, s.commands, s.bytes, s.codec = s.entries+1, s.commands+e.Commands, s.bytes+e.Bytes, e.Codec
		s.ownBytes, s.askedBytes = s.ownBytes+own, s.askedBytes+asked
		if e.Codec == c.own.Name && alike(e.Bytes, own) {
			s.own++
		}
		if e.Codec == codec && alike(e.Bytes, asked) {
			s.asked++
		}
	}
	return nil
}

func alike(a, b int) bool { return a == b || max(a, b)-min(a, b) <= int(codecAlike*float64(max(a, b))) }

func (l *codecSeen) perCommand(bytes int) int { return bytes / max(l.commands, 1) }

// same reports whether what is asked for is what was seen before.
func (l *codecSeen) same() bool { return l.asked == l.entries }

func (m *codecMeter) Measure(ctx context.Context, d Dose) (Reading, Answer, error) {
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if ask, err := codecOf(d); err == nil && ask != m.ask {
		m.ask, m.begun = ask, false // what was seen was of another dose
	}
	if !m.begun {
		m.begun = true
		for _, c := range m.nodes {
			err := c.tail.Next(func([]byte) {})
			if err == nil {
				c.before, err = codecAccount(short, c.Node)
			}
			if err != nil {
				return Reading{}, Answer{}, err
			}
			c.saw = codecSeen{}
		}
	}
	for sleep(ctx, codecEvery) { // not later: the fault may be over then
		for _, c := range m.nodes {
			if err := m.look(c); err != nil {
				return Reading{}, Answer{}, err
			}
		}
	}
	values := map[string]any{}
	var whys, bads []string
	for _, c := range m.nodes {
		now, err := codecAccount(short, c.Node)
		if err != nil {
			return Reading{}, Answer{}, err
		}
		why, bad := c.judge(now, values)
		whys = append(whys, c.Name()+": "+why)
		if bad != "" {
			bads = append(bads, c.Name()+": "+bad)
		}
	}
	why := strings.Join(whys, "; ")
	if bads != nil {
		return Reading{values}, Answer{false, strings.Join(bads, "; ") + " (" + why + ")"}, nil
	}
	return Reading{values}, Answer{true, why}, nil
}

// judge says what was seen of a node, and what of it is not as asked for, "" for nothing.
func (c *codecNode) judge(now kvserver.Codec, values map[string]any) (why, bad string) {
	s := &c.saw
	got, want, usual := s.perCommand(s.bytes), s.perCommand(s.askedBytes), s.perCommand(s.ownBytes)
	encode, decode := perCommand(now.Encode, c.before.Encode), perCommand(now.Decode, c.before.Decode)
	values["bytes"], values["asked_bytes"], values["usual_bytes"], values["n"] = got, want, usual, s.commands
	values["encode_ns"], values["decode_ns"] = int64(encode), int64(decode)
	why = fmt.Sprintf("%d bytes a command in its log (%s, n=%d in %d entries looked at), which would take %d as configured; by its own account it encodes a command in %s and decodes it in %s",
		got, s.codec, s.commands, s.entries, usual, short(encode), short(decode))
	switch {
	case s.entries < codecLeast:
		bad = fmt.Sprintf("%d entries came into its log", s.entries)
	case float64(s.asked) < codecShare*float64(s.entries):
		bad = fmt.Sprintf("%d bytes a command asked for, %d of %d entries have that form", want, s.asked, s.entries)
	}
	return why, bad
}

// perCommand is the mean of what was counted since.
func perCommand(now, was kvserver.Coding) time.Duration {
	if now.Commands < was.Commands { // a new process
		was = kvserver.Coding{}
	}
	return time.Duration((now.Entry.SumNS - was.Entry.SumNS) / max(int64(now.Commands-was.Commands), 1))
}

func (m *codecMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	if err := m.watch(ctx, codecBase, codecWait); err != nil {
		return Reading{}, Answer{}, err
	}
	values := map[string]any{}
	for _, c := range m.nodes {
		values["bytes"], values["n"] = c.saw.perCommand(c.saw.bytes), c.saw.commands
		if c.saw.own < c.saw.entries-1 { // one may have been on its way
			return Reading{values}, Answer{false, fmt.Sprintf("%s: %d of %d entries are as configured, %d bytes a command",
				c.Name(), c.saw.own, c.saw.entries, c.saw.perCommand(c.saw.bytes))}, nil
		}
	}
	return Reading{values}, Answer{true, fmt.Sprintf("entries are as configured, %d bytes a command (n=%d)", values["bytes"], values["n"])}, nil
}

func (m *codecMeter) Close() error {
	if m.probe != nil {
		m.probe.close()
		m.probe = nil
	}
	return nil
}
