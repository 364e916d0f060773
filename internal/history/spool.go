package history

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
)

// The spool (history.bin) is the compact form of a history, written while the
// run goes on: about 18 bytes an operation instead of 200. It is a magic line
// and then blocks, each some whole records of one [Log]:
//
//	uvarint log, uvarint length, length bytes, CRC-32C of all that (4 bytes, little endian)
//
// A record is a head (kind, outcome and which fields follow), then varints,
// each a difference to the log's previous record or to another field.
// Values made of tokens (v17, x17, +a17; one or many) are kept as differences
// to the operation's number, which is how they were made. An empty block is the
// end. A file cut off anywhere is good up to its last whole block.
const spoolMagic = "brownout.spool/1\n"

// maxBlock bounds what a reader takes into memory at once.
const maxBlock = 64 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Bits of a record's head. Kind and outcome are indexes into the tables below.
const (
	kindBits     = 7
	outcomeShift = 3
	outcomeBits  = 3 << outcomeShift
	hasSwapped   = 1 << 5
	newClient    = 1 << 6
	newNode      = 1 << 7
	newPhase     = 1 << 8
	hasError     = 1 << 9
	newError     = 1 << 10
	hasValue     = 1 << 11
	oddValue     = 1 << 12 // not the value that goes with kind and number
	hasExpect    = 1 << 13
	hasFound     = 1 << 14
	literal      = -1
)

var (
	spoolKinds    = [...]Kind{Get, Put, CAS, Append, Delete}
	spoolOutcomes = [...]Outcome{OK, Fail, Unknown}
)

// What values are made of: written values, tombstones, appended elements.
var spoolTokens = [...]string{"v", "x", "+a"}

func tokenOf(k Kind) int {
	switch k {
	case Append:
		return 2
	case Delete:
		return 1
	}
	return 0
}

// A delta is what one log's records are differences to.
type delta struct {
	id, due int64
	client  int
	node    string
	phase   string
	err     string
}

// append encodes op. Kinds and outcomes outside of the tables are kept as text.
func (d *delta) append(b []byte, op *Op) []byte {
	kind, outcome := kindIndex(op.Kind), outcomeIndex(op.Outcome)
	head := uint64(0)
	if kind == literal {
		head |= kindBits
	} else {
		head |= uint64(kind)
	}
	if outcome == literal {
		head |= outcomeBits
	} else {
		head |= uint64(outcome) << outcomeShift
	}
	set := func(on bool, bit uint64) {
		if on {
			head |= bit
		}
	}
	set(op.Swapped, hasSwapped)
	set(op.Client != d.client, newClient)
	set(op.Node != d.node, newNode)
	set(op.Phase != d.phase, newPhase)
	set(op.Error != "", hasError)
	set(op.Error != "" && op.Error != d.err, newError)
	set(op.Value != nil, hasValue)
	set(op.Value != nil && !isPlanned(*op.Value, op), oddValue)
	set(op.Expect != nil, hasExpect)
	set(op.Result != nil, hasFound)

	b = binary.AppendUvarint(b, head)
	if kind == literal {
		b = appendText(b, string(op.Kind))
	}
	if outcome == literal {
		b = appendText(b, string(op.Outcome))
	}
	b = binary.AppendVarint(b, op.ID-d.id)
	b = appendKey(b, op.Key)
	b = binary.AppendVarint(b, op.Due-d.due)
	b = binary.AppendVarint(b, op.Call-op.Due)
	b = binary.AppendVarint(b, op.Return-op.Call)
	d.id, d.due = op.ID, op.Due
	if head&newClient != 0 {
		b = binary.AppendVarint(b, int64(op.Client))
		d.client = op.Client
	}
	if head&newNode != 0 {
		b = appendText(b, op.Node)
		d.node = op.Node
	}
	if head&newPhase != 0 {
		b = appendText(b, op.Phase)
		d.phase = op.Phase
	}
	if head&newError != 0 {
		b = appendText(b, op.Error)
		d.err = op.Error
	}
	if head&oddValue != 0 {
		b = appendValue(b, *op.Value, op.ID)
	}
	if head&hasExpect != 0 {
		b = appendValue(b, *op.Expect, op.ID)
	}
	if head&hasFound != 0 {
		b = appendValue(b, *op.Result, op.ID)
	}
	return b
}

func kindIndex(k Kind) int {
	switch k {
	case Get:
		return 0
	case Put:
		return 1
	case CAS:
		return 2
	case Append:
		return 3
	case Delete:
		return 4
	}
	return literal
}

func outcomeIndex(o Outcome) int {
	switch o {
	case OK:
		return 0
	case Fail:
		return 1
	case Unknown:
		return 2
	}
	return literal
}

// isPlanned says whether a value is the token of its operation.
func isPlanned(value string, op *Op) bool {
	token, n, rest := cutToken(value)
	return rest == "" && token == tokenOf(op.Kind) && n == op.ID
}

// cutToken splits the first token off s; token is literal if there is none.
func cutToken(s string) (token int, n int64, rest string) {
	i := 1
	switch {
	case len(s) >= 2 && s[0] == 'v':
		token = 0
	case len(s) >= 2 && s[0] == 'x':
		token = 1
	case len(s) >= 3 && s[0] == '+' && s[1] == 'a':
		token, i = 2, 2
	default:
		return literal, 0, s
	}
	if s[i] < '1' || s[i] > '9' {
		return literal, 0, s
	}
	start := i
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		if i-start >= 18 {
			return literal, 0, s
		}
		n = n*10 + int64(s[i]-'0')
	}
	return token, n, s[i:]
}

// appendKey keeps k17 as a number and any other key as text.
func appendKey(b []byte, key string) []byte {
	if len(key) >= 2 && len(key) <= 18 && key[0] == 'k' && (key[1] != '0' || len(key) == 2) {
		n, digits := uint64(0), true
		for _, c := range []byte(key[1:]) {
			digits = digits && '0' <= c && c <= '9'
			n = n*10 + uint64(c-'0')
		}
		if digits {
			return binary.AppendUvarint(b, n<<1)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(key))<<1|1)
	return append(b, key...)
}

// appendValue keeps a chain of tokens as differences to id, anything else as text.
func appendValue(b []byte, value string, id int64) []byte {
	count := uint64(0)
	for rest := value; rest != ""; count++ {
		token, _, next := cutToken(rest)
		if token == literal {
			b = binary.AppendUvarint(b, uint64(len(value))<<1|1)
			return append(b, value...)
		}
		rest = next
	}
	b = binary.AppendUvarint(b, count<<1)
	for rest := value; rest != ""; {
		token, n, next := cutToken(rest)
		b = binary.AppendUvarint(b, uint64(token))
		b = binary.AppendVarint(b, id-n)
		rest = next
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// A spoolReader decodes the records of one log.
type spoolReader struct {
	delta
	in   []byte
	bad  bool
	keys map[uint64]string // of keys that are numbers
	free []string          // to point at: one allocation for many values
}

// Bounds of what a reader keeps to save allocations.
const (
	maxKeys = 1 << 16
	strides = 256 // values
)

// keep returns a pointer to s.
func (r *spoolReader) keep(s string) *string {
	if len(r.free) == 0 {
		r.free = make([]string, strides)
	}
	p := &r.free[0]
	r.free = r.free[1:]
	*p = s
	return p
}

func (r *spoolReader) uvarint() uint64 {
	n, size := binary.Uvarint(r.in)
	if size <= 0 {
		r.bad, r.in = true, nil
		return 0
	}
	r.in = r.in[size:]
	return n
}

func (r *spoolReader) varint() int64 {
	n, size := binary.Varint(r.in)
	if size <= 0 {
		r.bad, r.in = true, nil
		return 0
	}
	r.in = r.in[size:]
	return n
}

func (r *spoolReader) bytes(n uint64) string {
	if n > uint64(len(r.in)) {
		r.bad, r.in = true, nil
		return ""
	}
	s := string(r.in[:n])
	r.in = r.in[n:]
	return s
}

func (r *spoolReader) text() string { return r.bytes(r.uvarint()) }

func (r *spoolReader) key() string {
	n := r.uvarint()
	if n&1 != 0 {
		return r.bytes(n >> 1)
	}
	n >>= 1
	if key, ok := r.keys[n]; ok {
		return key
	}
	key := "k" + strconv.FormatUint(n, 10)
	if r.keys == nil {
		r.keys = map[uint64]string{}
	}
	if len(r.keys) < maxKeys {
		r.keys[n] = key
	}
	return key
}

func (r *spoolReader) value(id int64) *string {
	n := r.uvarint()
	if n&1 != 0 {
		return r.keep(r.bytes(n >> 1))
	}
	var most [64]byte
	b := most[:0]
	for range n >> 1 {
		token := r.uvarint()
		number := id - r.varint()
		if r.bad || token >= uint64(len(spoolTokens)) {
			r.bad = true
			return nil
		}
		b = strconv.AppendInt(append(b, spoolTokens[token]...), number, 10)
	}
	return r.keep(string(b))
}

// next decodes one record; it reports false if the bytes are none.
func (r *spoolReader) next() (op Op, ok bool) {
	head := r.uvarint()
	if k := head & kindBits; k < uint64(len(spoolKinds)) {
		op.Kind = spoolKinds[k]
	} else {
		op.Kind = Kind(r.text())
	}
	if o := head & outcomeBits >> outcomeShift; o < uint64(len(spoolOutcomes)) {
		op.Outcome = spoolOutcomes[o]
	} else {
		op.Outcome = Outcome(r.text())
	}
	op.Swapped = head&hasSwapped != 0
	op.ID = r.id + r.varint()
	op.Key = r.key()
	op.Due = r.due + r.varint()
	op.Call = op.Due + r.varint()
	op.Return = op.Call + r.varint()
	r.id, r.due = op.ID, op.Due
	if head&newClient != 0 {
		r.client = int(r.varint())
	}
	if head&newNode != 0 {
		r.node = r.text()
	}
	if head&newPhase != 0 {
		r.phase = r.text()
	}
	if head&newError != 0 {
		r.err = r.text()
	}
	op.Client, op.Node, op.Phase = r.client, r.node, r.phase
	if head&hasError != 0 {
		op.Error = r.err
	}
	switch {
	case head&oddValue != 0:
		op.Value = r.value(op.ID)
	case head&hasValue != 0:
		var most [32]byte
		op.Value = r.keep(string(strconv.AppendInt(append(most[:0], spoolTokens[tokenOf(op.Kind)]...), op.ID, 10)))
	}
	if head&hasExpect != 0 {
		op.Expect = r.value(op.ID)
	}
	if head&hasFound != 0 {
		op.Result = r.value(op.ID)
	}
	return op, !r.bad
}

// IsSpool reports whether a file that begins so is a spool.
func IsSpool(head []byte) bool { return bytes.HasPrefix(head, []byte(spoolMagic)) }

// ErrTorn says that a spool was cut off, as it is when its writer was killed. What
// comes before its last block is good, but may have seen what is missing.
var ErrTorn = errors.New("the spool was cut off: it has no end; checking its run's directory takes what is missing for unknown")

// A block is where some records of a log lie in a spool.
type block struct {
	offset int64
	length int
}

// ReadSpool decodes a spool of size bytes and yields its operations in order of
// their calls. Memory is that of the index, some 16 bytes a block. The error
// [ErrTorn] comes last, after all that is good; any other error ends it at once.
func ReadSpool(r io.ReaderAt, size int64) iter.Seq2[Op, error] {
	return func(yield func(Op, error) bool) {
		logs, torn := indexSpool(r, size)
		if torn != nil && !errors.Is(torn, ErrTorn) {
			yield(Op{}, torn)
			return
		}
		// A log's operations are in order of their calls, so that merging the logs sorts them all.
		var heads []*logReader
		for _, blocks := range logs {
			l := &logReader{r: r, blocks: blocks}
			if err := l.advance(); err != nil {
				yield(Op{}, err)
				return
			}
			if l.more {
				heads = append(heads, l)
			}
		}
		order := func(a, b *logReader) int {
			return cmp.Or(cmp.Compare(a.op.Call, b.op.Call), cmp.Compare(a.op.ID, b.op.ID))
		}
		for i := len(heads)/2 - 1; i >= 0; i-- {
			sink(heads, i, order)
		}
		for len(heads) > 0 {
			first := heads[0]
			if !yield(first.op, nil) {
				return
			}
			if err := first.advance(); err != nil {
				yield(Op{}, err)
				return
			}
			if !first.more {
				heads[0] = heads[len(heads)-1]
				heads = heads[:len(heads)-1]
			}
			sink(heads, 0, order)
		}
		if torn != nil {
			yield(Op{}, torn)
		}
	}
}

// sink restores the heap below i.
func sink[T any](heap []T, i int, order func(a, b T) int) {
	for {
		least := i
		for _, child := range [...]int{2*i + 1, 2*i + 2} {
			if child < len(heap) && order(heap[child], heap[least]) < 0 {
				least = child
			}
		}
		if least == i {
			return
		}
		heap[i], heap[least] = heap[least], heap[i]
		i = least
	}
}

// indexSpool finds the blocks of each log, in the logs' order.
func indexSpool(r io.ReaderAt, size int64) ([][]block, error) {
	in := bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 1<<18)
	magic := make([]byte, len(spoolMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != spoolMagic {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, ErrTorn
		}
		return nil, cmp.Or(err, errors.New("not a spool: the first line is not "+strconv.Quote(spoolMagic)))
	}
	blocks := map[uint64][]block{}
	at := int64(len(spoolMagic))
	var payload []byte
	var err error
	for {
		if _, e := in.Peek(1); e == io.EOF {
			break
		} else if e != nil {
			return nil, fmt.Errorf("read spool at %d: %w", at, e)
		}
		var header []byte
		log, e1 := binary.ReadUvarint(in)
		length, e2 := binary.ReadUvarint(in)
		header = binary.AppendUvarint(binary.AppendUvarint(header, log), length)
		if e1 != nil || e2 != nil || length > maxBlock || at+int64(len(header))+int64(length)+4 > size {
			err = ErrTorn
			break
		}
		payload = slices.Grow(payload[:0], int(length)+4)[:length+4]
		if _, e := io.ReadFull(in, payload); e != nil {
			return nil, fmt.Errorf("read spool at %d: %w", at, e)
		}
		sum := crc32.Update(crc32.Checksum(header, castagnoli), castagnoli, payload[:length])
		if sum != binary.LittleEndian.Uint32(payload[length:]) {
			if at+int64(len(header))+int64(length)+4 == size {
				err = ErrTorn // the last block: its pages did not all reach the disk
				break
			}
			return nil, fmt.Errorf("spool block at %d: the checksum does not match", at)
		}
		blocks[log] = append(blocks[log], block{at + int64(len(header)), int(length)})
		at += int64(len(header)) + int64(length) + 4
	}
	var logs [][]block
	for _, n := range slices.Sorted(maps.Keys(blocks)) {
		logs = append(logs, blocks[n])
	}
	return logs, err
}

// A logReader walks through the records of one log.
type logReader struct {
	spoolReader
	r      io.ReaderAt
	blocks []block
	buf    []byte
	op     Op
	more   bool
}

func (l *logReader) advance() error {
	for len(l.in) == 0 {
		if len(l.blocks) == 0 {
			l.more = false
			return nil
		}
		b := l.blocks[0]
		l.blocks = l.blocks[1:]
		l.buf = slices.Grow(l.buf[:0], b.length)[:b.length]
		if _, err := l.r.ReadAt(l.buf, b.offset); err != nil {
			return fmt.Errorf("read spool block at %d: %w", b.offset, err)
		}
		l.in = l.buf
	}
	if l.op, l.more = l.next(); !l.more {
		return errors.New("a spool block holds what is no record")
	}
	return nil
}
