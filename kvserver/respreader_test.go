package kvserver

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// readAll reads commands until the end and returns them quoted, with the error at the end.
func readAll(r *respReader) (commands []string, err error) {
	for {
		for {
			args, err := r.next()
			if err != nil {
				return commands, err
			}
			if args == nil {
				break
			}
			commands = append(commands, fmt.Sprintf("%q", args))
		}
		if err := r.fill(); err != nil {
			return commands, err
		}
	}
}

func TestReadCommands(t *testing.T) {
	long := strings.Repeat("x", maxLine+2)
	for _, tt := range []struct {
		name, in string
		want     []string
		err      string
	}{
		{"an array of bulks", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", []string{`["GET" "k"]`}, "EOF"},
		{"bulks are binary", "*1\r\n$4\r\n\r\n\x00\xff\r\n", []string{`["\r\n\x00\xff"]`}, "EOF"},
		{"an empty bulk is an argument", "*1\r\n$0\r\n\r\n", []string{`[""]`}, "EOF"},
		{"a pipeline", "*1\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\nPING\r\n", []string{`["a"]`, `["b"]`, `["PING"]`}, "EOF"},
		{"empty arrays and lines are nothing", "*0\r\n*-1\r\n\r\n\n*1\r\n$1\r\na\r\n", []string{`["a"]`}, "EOF"},
		{"a command cut short is none", "*2\r\n$3\r\nGET\r\n$1\r\nk", nil, "EOF"},
		{"words on a line", "set  k\tv\n", []string{`["set" "k" "v"]`}, "EOF"},
		{"double quotes", `set "a b" "\x41\n\"\q\\"` + "\r\n", []string{`["set" "a b" "A\n\"q\\"]`}, "EOF"},
		{"single quotes", `set 'a \'b\n' ''` + "\r\n", []string{`["set" "a 'b\\n" ""]`}, "EOF"},
		{"a quote inside a word", `a"b c"` + "\n", []string{`["ab c"]`}, "EOF"},
		{"a quote without end", "get \"k\r\n", nil, "Protocol error: unbalanced quotes in request"},
		{"a quote that ends inside a word", "get \"k\"x\r\n", nil, "Protocol error: unbalanced quotes in request"},
		{"a count that spins", "*9000000000000000000\r\n", nil, "Protocol error: invalid multibulk length"},
		{"a count that overflows", "*99999999999999999999999999\r\n", nil, "Protocol error: invalid multibulk length"},
		{"a count just too large", "*1048577\r\n", nil, "Protocol error: invalid multibulk length"},
		{"a count that is none", "*x\r\n", nil, "Protocol error: invalid multibulk length"},
		{"no count", "*\r\n", nil, "Protocol error: invalid multibulk length"},
		{"a count with zeros in front", "*01\r\n", nil, "Protocol error: invalid multibulk length"},
		{"a huge bulk", "*1\r\n$9000000000000000000\r\n", nil, "Protocol error: invalid bulk length"},
		{"a bulk just too large", fmt.Sprintf("*1\r\n$%d\r\n", maxBulk+1), nil, "Protocol error: invalid bulk length"},
		{"a negative bulk", "*1\r\n$-1\r\n", nil, "Protocol error: invalid bulk length"},
		{"a bulk without its mark", "*1\r\nPING\r\n", nil, "Protocol error: expected '$', got 'P'"},
		{"a bulk that goes on", "*1\r\n$1\r\nab\r\n", nil, "Protocol error: invalid bulk line ending"},
		{"what came before an error counts", "PING\r\n*x\r\n", []string{`["PING"]`}, "Protocol error: invalid multibulk length"},
		{"a line without end", long, nil, "Protocol error: too big inline request"},
		{"a count without end", "*" + long, nil, "Protocol error: too big mbulk count string"},
		{"a length without end", "*1\r\n$" + long, nil, "Protocol error: too big bulk count string"},
		{"bulks that are too much together", manyBulks(3), nil, "Protocol error: too big request"},
	} {
		for how, in := range map[string]io.Reader{
			"whole": strings.NewReader(tt.in), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.in)),
		} {
			if how != "whole" && len(tt.in) > 1<<20 {
				continue
			}
			t.Run(tt.name+", "+how, func(t *testing.T) {
				got, err := readAll(newRespReader(in))
				if diff := cmp.Diff(tt.want, got); diff != "" || err.Error() != tt.err {
					t.Errorf("error %v, want %s; commands (-want +got):\n%s", err, tt.err, diff)
				}
			})
		}
	}
}

func manyBulks(n int) string {
	one := fmt.Sprintf("$%d\r\n%s\r\n", maxBulk-1, strings.Repeat("x", maxBulk-1))
	return fmt.Sprintf("*%d\r\n%s", n, strings.Repeat(one, n))
}

func TestPinnedCommandsStay(t *testing.T) {
	var in, want []byte
	for i := range 2000 {
		in = appendCommand(in, "SET", fmt.Sprint("key", i), strings.Repeat("v", i%300))
	}
	r := newRespReader(iotest.HalfReader(bytes.NewReader(in)))
	var held [][][]byte
	for {
		args, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		if args != nil {
			r.pin()
			held = append(held, args)
		} else if r.fill() != nil {
			break
		}
	}
	for _, args := range held {
		want = appendCommand(want, string(args[0]), string(args[1]), string(args[2]))
	}
	if !bytes.Equal(in, want) {
		t.Error("commands changed after they had been returned")
	}
}

// A counted reader knows how much has been read.
type counted struct {
	r io.Reader
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// FuzzReadCommands: whatever comes, and however it is cut, the commands are the
// same, and the reader holds no more than a small multiple of what it was sent.
func FuzzReadCommands(f *testing.F) {
	for _, s := range []string{
		"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "PING\r\n", "*1\r\n$4\r\nPING\r\n*9000000000000000000\r\n", "*3\r\n$9000000000\r\n",
		"set \"a\\x00\" 'b'\r\n", "*-1\r\n*0\r\n\r\n", "*1\r\n$0\r\n\r\n$", "*1048576\r\n$0\r\n\r\n", "\x00\xff*1\r\n",
	} {
		f.Add([]byte(s), byte(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, step byte) {
		whole, err := readAll(newRespReader(bytes.NewReader(in)))
		c := &counted{r: bytes.NewReader(in)}
		r := newRespReader(stepReader{c, 1 + int(step)})
		cut, err2 := readAll(r)
		if fmt.Sprint(err) != fmt.Sprint(err2) || !cmp.Equal(whole, cut) {
			t.Errorf("whole: %q, %v; in pieces of %d: %q, %v", whole, err, 1+int(step), cut, err2)
		}
		if limit := 2*c.n + maxChunk; cap(r.buf) > limit || cap(r.spans) > limit || cap(r.slots) > limit+maxSlots {
			t.Errorf("holds %d bytes, %d spans, %d slots after %d bytes", cap(r.buf), cap(r.spans), cap(r.slots), c.n)
		}
	})
}

type stepReader struct {
	r    io.Reader
	step int
}

func (s stepReader) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), s.step)]) }

// FuzzServeCommands sends anything to a node: it answers or hangs up, and goes on serving others.
func FuzzServeCommands(f *testing.F) {
	k := startCluster(f, 1, func(c *Config) { c.Log = "memory" }, nil)
	for _, s := range []string{
		"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\nGET k\r\n", "*9000000000000000000\r\n", "*1\r\n$900000000000\r\n",
		"MSET a 1 b 2\r\nMGET a b\r\nPING\r\n*2\r\n$3\r\nGET", "ONCE s 1 SET k v\r\nSESSION s\r\nCAS k a b\r\n",
		"CONFIG GET *\r\nCOMMAND\r\nCLIENT LIST\r\nHELLO 2\r\nINFO\r\nREADONLY\r\nGET k\r\nQUIT\r\nPING\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c := dialClient(t, k.conf[0].Client)
		defer c.conn.Close()
		go func() {
			c.conn.Write(in)
			c.conn.(interface{ CloseWrite() error }).CloseWrite()
		}()
		if _, err := io.Copy(io.Discard, c.conn); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("after %q: %v", in, err)
		}
		other := dialClient(t, k.conf[0].Client)
		defer other.conn.Close()
		other.must("PONG", "PING")
	})
}

func TestProtocolErrorEndsTheConnection(t *testing.T) {
	k := startCluster(t, 1, func(c *Config) { c.Log = "memory" }, nil)
	for in, want := range map[string]string{
		"SET k v\r\n*9000000000000000000\r\n":   "+OK\r\n-ERR Protocol error: invalid multibulk length\r\n",
		"*1\r\n$9000000000000000000\r\n":        "-ERR Protocol error: invalid bulk length\r\n",
		"GET \"k\r\n":                           "-ERR Protocol error: unbalanced quotes in request\r\n",
		"*1\r\n$4\r\na\r\nb\r\nPING\r\n*1\r\n:": "-ERR unknown command 'a  b', with args beginning with: \r\n+PONG\r\n",
	} {
		c := k.dial(0)
		if _, err := io.WriteString(c.conn, in); err != nil {
			t.Fatal(err)
		}
		c.conn.(interface{ CloseWrite() error }).CloseWrite()
		if got, err := io.ReadAll(c.r); err != nil || string(got) != want {
			t.Errorf("%q was answered %q, %v; want %q and the end", in, got, err, want)
		}
	}
}
