package target

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Bounds of a reply in the Redis serialization protocol, version 2
// (https://redis.io/docs/latest/develop/reference/protocol-spec).
const (
	maxBulk     = 64 << 20
	maxElements = 1 << 16
	maxDepth    = 4
)

// A reply is one value of the protocol.
type reply struct {
	kind byte // + - : $ *
	null bool
	text string // of + - $
	n    int64  // of :
	list []reply
}

// appendCommand encodes a command as an array of bulk strings.
func appendCommand(b []byte, args ...string) []byte {
	b = append(strconv.AppendInt(append(b, '*'), int64(len(args)), 10), "\r\n"...)
	for _, a := range args {
		b = append(strconv.AppendInt(append(b, '$'), int64(len(a)), 10), "\r\n"...)
		b = append(append(b, a...), "\r\n"...)
	}
	return b
}

var errProtocol = errors.New("not the Redis protocol")

// readReply reads one reply. After an error the stream is of no use any more.
func readReply(in *bufio.Reader, depth int) (reply, error) {
	if depth > maxDepth {
		return reply{}, fmt.Errorf("%w: nested too deep", errProtocol)
	}
	line, err := in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return reply{}, fmt.Errorf("%w: a line of more than %d bytes", errProtocol, len(line))
	case err == io.EOF && len(line) > 0:
		return reply{}, io.ErrUnexpectedEOF
	case err != nil:
		return reply{}, err
	case len(line) < 3 || line[len(line)-2] != '\r':
		return reply{}, fmt.Errorf("%w: line %.20q", errProtocol, line)
	}
	r := reply{kind: line[0]}
	body := line[1 : len(line)-2]
	switch r.kind {
	case '+', '-':
		r.text = string(body)
		return r, nil
	case ':', '$', '*':
	default:
		return r, fmt.Errorf("%w: line %.20q", errProtocol, line)
	}
	if r.n, err = strconv.ParseInt(string(body), 10, 64); err != nil {
		return r, fmt.Errorf("%w: line %.20q", errProtocol, line)
	}
	if r.kind == ':' {
		return r, nil
	}
	n := r.n
	r.n = 0
	if n == -1 {
		r.null = true
		return r, nil
	}
	if most := map[byte]int64{'$': maxBulk, '*': maxElements}[r.kind]; n < 0 || n > most {
		return r, fmt.Errorf("%w: length %d", errProtocol, n)
	}
	if r.kind == '*' {
		for range n {
			e, err := readReply(in, depth+1)
			if err != nil {
				return r, unexpected(err)
			}
			r.list = append(r.list, e)
		}
		return r, nil
	}
	bulk := make([]byte, n+2)
	if _, err := io.ReadFull(in, bulk); err != nil {
		return r, unexpected(err)
	}
	if bulk[n] != '\r' || bulk[n+1] != '\n' {
		return r, fmt.Errorf("%w: a string longer than its length %d", errProtocol, n)
	}
	r.text = string(bulk[:n])
	return r, nil
}

// unexpected makes an end in the middle of a reply one.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
