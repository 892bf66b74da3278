package probe

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
)

// The bounds of what a Redis server may answer.
const (
	// ROLE of a primary with 1,000 replicas is about 60 KiB; what all answers of one check may be together.
	mostRESPBytes = 256 << 10
	// ROLE's replies are lists of lists of words.
	deepestRESP = 3
	// DENIED, the longest error there is, has about 900 characters.
	longestRESPLine = 4 << 10
)

// A respValue is one reply of RESP2 (redis.io/docs/reference/protocol-spec). It is a plain value.
type respValue struct {
	kind  byte // '+' simple string, '-' error, ':' integer, '$' bulk string, '*' array; 0 = null
	text  string
	n     int64
	items []respValue
}

// A respReader reads replies. Its zero value is of no use, see newRESPReader.
type respReader struct {
	r      *bufio.Reader
	budget *budgetReader
	secret bool // a password was sent: what is no reply is not quoted, since it may be an echo
}

func newRESPReader(r io.Reader, secret bool) *respReader {
	budget := &budgetReader{r: r, left: mostRESPBytes}
	return &respReader{r: bufio.NewReaderSize(budget, longestRESPLine), budget: budget, secret: secret}
}

// read returns the next reply. What is no reply gives an error in words; the others are those of the connection.
func (r *respReader) read() (respValue, error) { return r.readAt(0) }

func (r *respReader) readAt(depth int) (respValue, error) {
	kind, err := r.r.ReadByte()
	if err != nil {
		return respValue{}, err
	}
	switch kind {
	case '+', '-', ':', '$', '*':
	default:
		_ = r.r.UnreadByte()                   // a byte was just read
		arrived, _ := r.r.Peek(r.r.Buffered()) // never more than there is
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

// sized reads the rest of a bulk string or an array after its length.
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
	// The items are appended as they arrive: what is announced costs no memory before it is there.
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

// line returns the rest of the line without its end. It is valid until the next read.
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

// noRedis is the error for an answer that is not a reply, as far as it has arrived.
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

// appendRESP appends a command as an array of bulk strings, the only form in which a password may have any byte.
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
