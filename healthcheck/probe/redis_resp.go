package probe

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
)

// This file reads RESP2 (redis.io/docs/reference/protocol-spec) by hand. The targets of a check may be anything, and
// the client libraries trust their server: they allocate what a length announces, and have no limit on lists within
// lists. Here a length that is announced costs no memory before the bytes have arrived, and the bytes of all replies
// are limited.

// The limits of what a Redis server may answer.
const (
	// mostRESPBytes is for all replies of one check together. ROLE of a primary with 1,000 replicas has about 60 KiB.
	mostRESPBytes = 256 << 10
	// deepestRESP is how deep lists may be nested. The replies to ROLE are lists of lists of words.
	deepestRESP = 3
	// longestRESPLine is for errors, among others: the longest known one, DENIED, has about 900 characters.
	longestRESPLine = 4 << 10
)

// A respValue is one reply. It is a plain value.
type respValue struct {
	kind  byte // '+' simple string, '-' error, ':' integer, '$' bulk string, '*' array; 0 = null
	text  string
	n     int64
	items []respValue
}

// A respReader reads replies. newRESPReader makes it.
type respReader struct {
	r      *bufio.Reader
	budget *budgetReader
	secret bool // a password was sent: errors do not quote the answer, since it may repeat the password
}

func newRESPReader(r io.Reader, secret bool) *respReader {
	budget := &budgetReader{r: r, left: mostRESPBytes}
	return &respReader{r: bufio.NewReaderSize(budget, longestRESPLine), budget: budget, secret: secret}
}

// read returns the next reply. The error is a checkError if the answer is not RESP, or the error of the connection.
func (r *respReader) read() (respValue, error) { return r.readAt(0) }

func (r *respReader) readAt(depth int) (respValue, error) {
	kind, err := r.r.ReadByte()
	if err != nil {
		return respValue{}, err
	}
	switch kind {
	case '+', '-', ':', '$', '*':
	default:
		_ = r.r.UnreadByte()                   // never fails after ReadByte
		arrived, _ := r.r.Peek(r.r.Buffered()) // never fails for what is buffered
		return respValue{}, r.noRedis(arrived)
	}
	line, err := r.line()
	if err != nil {
		return respValue{}, err
	}
	switch v := (respValue{kind: kind, text: string(line)}); kind {
	case '+', '-':
		return v, nil
	default:
		n, err := strconv.ParseInt(v.text, 10, 64)
		if err != nil {
			return respValue{}, r.noRedis(line)
		}
		if kind == ':' {
			return respValue{kind: kind, n: n}, nil
		}
		return r.sized(kind, n, depth)
	}
}

// sized reads the rest of a bulk string or an array after its length n. It refuses a length that the budget does not
// cover, before it allocates anything.
func (r *respReader) sized(kind byte, n int64, depth int) (respValue, error) {
	if n == -1 {
		return respValue{}, nil
	}
	most := int64(r.budget.left + r.r.Buffered())
	if kind == '*' {
		most /= int64(len(":0\r\n")) // the shortest item
	}
	switch {
	case n < 0 || n > mostRESPBytes:
		return respValue{}, unhealthyf("not a redis server: announced a reply of length %d", n)
	case n > most:
		return respValue{}, errEndless
	}
	if kind == '$' {
		body := make([]byte, n+2) // with the end of the line
		if _, err := io.ReadFull(r.r, body); err != nil {
			return respValue{}, err
		}
		if string(body[n:]) != "\r\n" {
			return respValue{}, unhealthyf("not a redis server: a reply is longer than announced")
		}
		return respValue{kind: kind, text: string(body[:n])}, nil
	}
	// The items are appended as they arrive. To allocate n of them at once would let a server spend our memory by a
	// number.
	v := respValue{kind: kind}
	if depth == deepestRESP && n > 0 {
		return respValue{}, unhealthyf("not a redis server: lists within lists")
	}
	for range n {
		item, err := r.readAt(depth + 1)
		if err != nil {
			return respValue{}, err
		}
		v.items = append(v.items, item)
	}
	return v, nil
}

// line returns the rest of the line without the line end. It is valid until the next read.
func (r *respReader) line() ([]byte, error) {
	line, err := r.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, unhealthyf("not a redis server: answered a line without end")
	}
	if err != nil {
		return nil, err
	}
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return nil, r.noRedis(line)
	}
	return line[:len(line)-2], nil
}

// noRedis is the failure of a server whose answer is not RESP. answer is what has arrived of it.
func (r *respReader) noRedis(answer []byte) error {
	if r.secret {
		return unhealthyf("not a redis server")
	}
	return unhealthyf("not a redis server: answered %s", quoted(firstLine(answer)))
}

// firstLine returns b up to the end of a line or of a C string.
func firstLine(b []byte) []byte {
	if i := bytes.IndexAny(b, "\r\n\x00"); i >= 0 {
		return b[:i]
	}
	return b
}

// appendRESP appends a command as an array of bulk strings. Only in this form may a password contain any byte.
func appendRESP(b []byte, words ...string) []byte {
	b = append(b, '*')
	b = strconv.AppendInt(b, int64(len(words)), 10)
	b = append(b, "\r\n"...)
	for _, w := range words {
		b = append(b, '$')
		b = strconv.AppendInt(b, int64(len(w)), 10)
		b = append(b, "\r\n"...)
		b = append(b, w...)
		b = append(b, "\r\n"...)
	}
	return b
}
