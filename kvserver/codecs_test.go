package kvserver

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/raft"
)

var updateGolden = flag.Bool("update", false, "write testdata anew")

// sameOps compares commands: an argument that is empty is one whether it is nil or not, a session is not.
var sameOps = cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b op) bool {
	return a.kind == b.kind && slices.EqualFunc(a.args, b.args, bytes.Equal) && a.seq == b.seq &&
		(a.session == nil) == (b.session == nil) && bytes.Equal(a.session, b.session)
})}

// entryAs encodes with a codec.
func entryAs(tb testing.TB, codec string, ops []op, bloat, fields int) []byte {
	tb.Helper()
	c, err := newCoding(codec, bloat, fields)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := c.encode(ops, 0)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// sampleOps are commands of all kinds, with all bytes.
func sampleOps() []op {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	return []op{
		words(opSet, "k", "v"),
		{kind: opSetNX, args: [][]byte{all, {}}},
		words(opSetXX, "<&>", "]]>\"'\r\n"),
		{kind: opAppend, args: [][]byte{{}, {0}}, session: []byte("s"), seq: math.MaxUint64},
		{kind: opCAS, args: [][]byte{[]byte("k"), all, nil}, session: []byte{}, seq: 0},
		words(opDel, "a", "b", "c"), words(opMSet, "a", "1", "b", "2"), words(opSession, "s"),
		words(opGet, "k"), words(opMGet, "k", "l"), words(opExists, "k"), words(opStrlen, "é\xff"), words(opDBSize),
	}
}

func TestCodecsRoundTrip(t *testing.T) {
	for _, name := range codecNames() {
		for _, tt := range []struct {
			what          string
			ops           []op
			bloat, fields int
		}{
			{"no command", nil, 0, 0},
			{"one command", []op{words(opSet, "k", "v")}, 0, 0},
			{"all commands", sampleOps(), 0, 0},
			{"padding", sampleOps(), 4096, 0},
			{"fields", sampleOps(), 0, 20},
			{"padding and fields", sampleOps(), 1, 1},
			{"a large value", []op{{kind: opSet, args: [][]byte{[]byte("k"), bytes.Repeat([]byte{0xfe}, maxValue)}}}, 0, 0},
		} {
			t.Run(name+"/"+tt.what, func(t *testing.T) {
				b := entryAs(t, name, tt.ops, tt.bloat, tt.fields)
				before := []op{words(opGet, "x")}
				got, err := decodeEntry(b, before)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(append(before, tt.ops...), got, sameOps); diff != "" {
					t.Errorf("round trip (-want +got):\n%s", diff)
				}
				if least := len(tt.ops) * tt.bloat; len(b) < least {
					t.Errorf("entry has %d bytes, its padding %d", len(b), least)
				}
				if c, err := codecOf(b); err != nil || c.name != name {
					t.Errorf("codec by the first byte: %v, %v", c, err)
				}
			})
		}
	}
}

// TestEntriesOnDisksStayReadable holds every codec to what earlier versions
// wrote. What they write may change only in ways that these versions read: if
// it does, add to the file and do not replace.
func TestEntriesOnDisksStayReadable(t *testing.T) {
	const path = "testdata/entries.golden"
	golden := []op{words(opSet, "key1", "value1"), {kind: opAppend, args: [][]byte{[]byte("k"), {0, 255}}, session: []byte("s"), seq: 7}, words(opDel, "a", "b")}
	if *updateGolden {
		var out []byte
		for _, name := range codecNames() {
			for _, n := range []int{0, 2} {
				out = fmt.Appendf(out, "%s %d %s\n", name, n, strconv.QuoteToASCII(string(entryAs(t, name, golden, 3*n, n))))
			}
		}
		if err := os.WriteFile(path, out, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[string]bool{}
	for s := bufio.NewScanner(f); s.Scan(); {
		parts := strings.SplitN(s.Text(), " ", 3)
		n, _ := strconv.Atoi(parts[1])
		entry, err := strconv.Unquote(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		seen[parts[0]] = true
		got, err := decodeEntry([]byte(entry), nil)
		if err != nil {
			t.Errorf("%s, %d fields: %v", parts[0], n, err)
		} else if diff := cmp.Diff(golden, got, sameOps); diff != "" {
			t.Errorf("%s, %d fields (-want +got):\n%s", parts[0], n, diff)
		}
		if now := entryAs(t, parts[0], golden, 3*n, n); parts[0] != "gob" && string(now) != entry { // gob numbers its types as they come
			t.Errorf("%s, %d fields, is written differently now:\n%q, was\n%q", parts[0], n, now, entry)
		}
	}
	for _, name := range codecNames() {
		if !seen[name] {
			t.Errorf("%s has no entry in %s (-update makes one)", name, path)
		}
	}
}

func TestEntriesThatCannotBeReadSayWhy(t *testing.T) {
	for _, tt := range []struct {
		name, entry, want string
	}{
		{"nothing", "", "cut short"},
		{"an unknown codec", "\xc8rest", "codec 200 is unknown: this version knows 1 (binary) to 7 (avro)"},
		{"codec 0", "\x00", "codec 0 is unknown"},
		{"text that ends early", "\x03{\"commands\":[", "json: unexpected end"},
		{"a command nobody knows", `` + "\x03" + `{"commands":[{"command":"flushall","args":[]}]}`, `command "flushall" with 0 arguments is unknown`},
		{"arguments that do not fit", `` + "\x03" + `{"commands":[{"command":"set","args":["aw=="]}]}`, `command "set" with 1 arguments is unknown`},
		{"an empty kind", "\x04<entry><command></command></entry>", `command "" with 0 arguments`},
		{"two documents", "\x04<entry></entry><entry></entry>", "bytes too many"},
		{"a kind beyond the last", "\x02\x0a\x03\x08\x90\x02", "command kind 272"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := decodeEntry([]byte(tt.entry), nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

// TestDamagedEntriesAreReadInBounds cuts and changes entries of all codecs
// everywhere: no panic, and no more memory than a bound that does not depend on
// lengths that an entry claims.
func TestDamagedEntriesAreReadInBounds(t *testing.T) {
	const most = 192 << 20 // in all; gob takes steps of 10 MiB
	for _, name := range codecNames() {
		t.Run(name, func(t *testing.T) {
			b := entryAs(t, name, sampleOps()[:6], 10, 2)
			var peak uint64
			var before, after runtime.MemStats
			try := func(b []byte) {
				runtime.ReadMemStats(&before)
				decodeEntry(b, nil) // any answer will do
				runtime.ReadMemStats(&after)
				peak = max(peak, after.TotalAlloc-before.TotalAlloc)
			}
			for i := 0; i < len(b); i += 1 + len(b)/400 {
				try(b[:i])
				for _, v := range []byte{0x00, 0x7f, 0x80, 0xff, b[i] ^ 1} {
					bad := bytes.Clone(b)
					bad[i] = v
					try(bad)
				}
				bad := append(bytes.Clone(b[:i]), 0xff, 0xff, 0xff, 0xff, 0x07, 0xff, 0xff, 0xff, 0xff, 0x01)
				try(append(bad, b[i:]...))
			}
			if peak > most {
				t.Errorf("decoding %d bytes took %d bytes of memory, more than %d", len(b), peak, most)
			}
			t.Logf("at most %d KiB for %d bytes", peak>>10, len(b))
		})
	}
}

// TestACodecIsANodesOwn runs nodes with different codecs, hands leadership round,
// restarts all of them with yet others, and looks for everything in everybody.
func TestACodecIsANodesOwn(t *testing.T) {
	next := 0
	k := startCluster(t, 3, func(c *Config) {
		c.Codec, c.CodecBloat, c.CodecFields = codecs[next].name, 10*next, next
		next++
	}, nil)
	wrote := 0
	write := func() {
		c := k.dial(k.leader())
		for range 20 {
			c.must("OK", "SET", fmt.Sprint("k", wrote), fmt.Sprint("v", wrote))
			wrote++
		}
	}
	check := func() {
		t.Helper()
		for i := range k.nodes {
			c := k.dial(i)
			c.must("OK", "READONLY")
			last := wrote - 1
			eventually(t, "node that caught up", func() bool { return c.do("GET", fmt.Sprint("k", last)) == fmt.Sprintf("%q", fmt.Sprint("v", last)) })
			for n := range wrote {
				c.must(strconv.Quote(fmt.Sprint("v", n)), "GET", fmt.Sprint("k", n))
			}
		}
	}
	for i := range k.nodes {
		if lead := k.leader(); lead != i {
			var out any
			if status := k.admin(lead, "POST", "/transfer", fmt.Sprintf(`{"to":%q}`, k.conf[i].ID), &out); status != 200 {
				t.Fatalf("transfer: %d %v", status, out)
			}
			eventually(t, "the new leader", func() bool { return k.nodes[i].s.status().Readable })
		}
		write()
		var m Metrics
		k.admin(i, "GET", "/metrics", "", &m)
		if m.Codec.Name != k.conf[i].Codec || m.Codec.Encode.Commands < 20 || m.Codec.Decode.Commands < m.Codec.Encode.Commands || m.Codec.Decode.Bytes == 0 {
			t.Errorf("%s's account: %+v", k.conf[i].ID, m.Codec)
		}
	}
	check()
	for i := range k.nodes {
		k.stop(i)
		k.conf[i].Codec, k.conf[i].CodecBloat = codecs[3+i].name, 0
	}
	for i := range k.nodes {
		k.start(i, nil)
	}
	write()
	check()
}

func TestBatchesOfFatCommandsStayInBounds(t *testing.T) {
	k := startCluster(t, 1, func(c *Config) {
		c.Codec, c.CodecBloat, c.MaxBatchBytes = "json", 64<<10, 256<<10
	}, nil)
	c := k.dial(0)
	var all [][]string
	for i := range 64 {
		all = append(all, []string{"SET", fmt.Sprint("k", i), "v"})
	}
	c.pipeline(all...)
	var m Metrics
	k.admin(0, "GET", "/metrics", "", &m)
	if m.EntryCommands != 64 || m.Entries < 16 {
		t.Errorf("%d commands of 64 KiB in %d entries of 256 KiB", m.EntryCommands, m.Entries)
	}
}

// TestProfilesTellCodecs looks at a goroutine's labels, which are those of CPU
// profiles, while it encodes.
func TestProfilesTellCodecs(t *testing.T) {
	var seen strings.Builder
	look := &codec{name: "look", encode: func(b []byte, _ []op, _ *extras) ([]byte, error) {
		return b, pprof.Lookup("goroutine").WriteTo(&seen, 1)
	}}
	s := &codecState{}
	if _, err := s.encode(&coding{codec: look, extras: &extras{}, labels: profiled("encode", look.name)}, nil, 0); err != nil {
		t.Fatal(err)
	}
	const labels = `{"codec":"look", "stage":"encode"}`
	if !strings.Contains(seen.String(), labels) {
		t.Errorf("no goroutine has the labels %s:\n%s", labels, seen.String())
	}
	seen.Reset()
	if err := pprof.Lookup("goroutine").WriteTo(&seen, 1); err != nil || strings.Contains(seen.String(), labels) {
		t.Errorf("%v; the labels are still there", err)
	}
}

// BenchmarkCodec is what an entry costs in each codec: 256-byte values, one
// command and 64 in an entry.
func BenchmarkCodec(b *testing.B) {
	for _, n := range []int{1, 64} {
		ops := make([]op, n)
		for i := range ops {
			ops[i] = op{kind: opSet, args: [][]byte{[]byte(benchKey(int64(i))), bytes.Repeat([]byte{'v'}, benchValue)}}
		}
		for _, name := range codecNames() {
			c, err := newCoding(name, 0, 0)
			if err != nil {
				b.Fatal(err)
			}
			entry := entryAs(b, name, ops, 0, 0)
			size := 8 + n*c.weight(&ops[n-1])
			s := &codecState{}
			b.Run(fmt.Sprintf("%s/batch=%d/encode", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					s.encode(c, ops, size)
				}
				perCommand(b, n, len(entry))
			})
			b.Run(fmt.Sprintf("%s/batch=%d/decode", name, n), func(b *testing.B) {
				b.ReportAllocs()
				var to []op
				for b.Loop() {
					to, _ = s.decode(entry, to[:0])
				}
				perCommand(b, n, len(entry))
			})
		}
	}
}

func perCommand(b *testing.B, n, bytes int) {
	b.ReportMetric(float64(bytes)/float64(n), "bytes/command")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/command")
}

func fuzzSeeds(f *testing.F) {
	for _, name := range codecNames() {
		f.Add(entryAs(f, name, nil, 0, 0))
		f.Add(entryAs(f, name, sampleOps(), 0, 0))
		f.Add(entryAs(f, name, sampleOps()[:2], 3, 2))
	}
}

// FuzzEntry reads anything as an entry. What is one can be applied, and written
// by every codec so that it reads the same.
func FuzzEntry(f *testing.F) {
	fuzzSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		ops, err := decodeEntry(b, nil)
		if err != nil {
			return
		}
		for _, name := range codecNames() {
			again, err := decodeEntry(entryAs(t, name, ops, 0, 0), nil)
			if err != nil {
				t.Fatalf("what was decoded does not decode again as %s: %v", name, err)
			}
			if diff := cmp.Diff(ops, again, sameOps); diff != "" {
				t.Fatalf("round trip through %s (-first +second):\n%s", name, diff)
			}
		}
		newFSM(Config{}).ApplyBatch([]*raft.Log{{Index: 1, Data: b}})
	})
}

// TestACodecIsSwitchedLive switches the leader's codec and back, and reads what
// comes into everybody's log from the files.
func TestACodecIsSwitchedLive(t *testing.T) {
	k := startCluster(t, 3, func(c *Config) { c.CodecFields = 1 }, nil)
	lead := k.leader()
	c := k.dial(lead)
	tails := make([]*LogTail, len(k.conf))
	for i, conf := range k.conf {
		tails[i] = TailLog(conf.Dir)
	}
	for i, tt := range []struct {
		request, codec string
		bloat, fields  int
	}{{`{"codec":"xml","bloat_bytes":1000}`, "xml", 1000, 1}, {`{"fields":3}`, "binary", 0, 4}, {`{}`, "binary", 0, 1}} {
		var out any
		if status := k.admin(lead, "POST", "/fault/codec", tt.request, &out); status != 200 {
			t.Fatalf("%s: %d %v", tt.request, status, out)
		}
		var last []byte
		for n := range 10 {
			c.must("OK", "SET", fmt.Sprint("k", i), fmt.Sprint("v", n))
		}
		for n, tail := range tails {
			eventually(t, "the last write in "+k.conf[n].ID+"'s log", func() bool {
				err := tail.Next(func(entry []byte) { last = bytes.Clone(entry) })
				if err != nil {
					t.Fatal(err)
				}
				ops, err := decodeEntry(last, nil)
				return err == nil && len(ops) == 1 && string(ops[0].args[1]) == "v9" && string(ops[0].args[0]) == fmt.Sprint("k", i)
			})
			e, err := ReadEntry(last)
			if err != nil {
				t.Fatal(err)
			}
			if want, err := e.As(tt.codec, tt.bloat, tt.fields); err != nil || e.Codec != tt.codec || e.Bytes != want {
				t.Errorf("%s in %s's log: %s of %d bytes, want %s of %d (%v)", tt.request, k.conf[n].ID, e.Codec, e.Bytes, tt.codec, want, err)
			}
		}
	}
	for _, bad := range []string{`{"codec":"yaml"}`, `{"bloat_bytes":-1}`, `{"fields":1000}`, `[]`} {
		var out map[string]string
		if status := k.admin(lead, "POST", "/fault/codec", bad, &out); status != 400 {
			t.Errorf("%s: %d %v, want 400", bad, status, out)
		}
	}
}

// TestLogTailSeesEveryEntryOnce follows a log over many segments and snapshots.
func TestLogTailSeesEveryEntryOnce(t *testing.T) {
	k := startCluster(t, 1, func(c *Config) { c.SegmentBytes = 1 << 20 }, nil)
	c := k.dial(0)
	tail := TailLog(k.conf[0].Dir)
	value := strings.Repeat("v", 100<<10)
	seen := map[string]int{}
	for i := range 40 {
		c.must("OK", "SET", fmt.Sprint("k", i), value)
		err := tail.Next(func(entry []byte) {
			ops, err := decodeEntry(entry, nil)
			if err != nil {
				t.Fatal(err)
			}
			seen[string(ops[0].args[0])]++
		})
		if err != nil || seen[fmt.Sprint("k", i)] != 1 || len(seen) != i+1 {
			t.Fatalf("after write %d: %v, %d keys were seen", i, err, len(seen))
		}
	}
	if len(tail.read) < 4 {
		t.Errorf("%d segments: the test has not tried hard", len(tail.read))
	}
	if err := TailLog(t.TempDir()).Next(nil); !errors.Is(err, ErrNoLog) {
		t.Errorf("an empty directory: %v", err)
	}
}
