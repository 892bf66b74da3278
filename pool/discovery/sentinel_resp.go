package discovery

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// This file reads RESP2 (redis.io/docs/reference/protocol-spec) by hand. redis/go-redis trusts its server: it allocates
// what a length announces, and its subscriptions panic on a message of another form. A Sentinel may be anybody's.

// The limits of one reply.
const (
	// maxReplyBytes is for its texts. A replica takes about 1 KiB, so this is for about a thousand.
	maxReplyBytes = 1 << 20
	// maxReplyValues is for its texts, numbers and lists; a replica has about 50.
	maxReplyValues = 1 << 16
	// maxReplyDepth is how deep lists may be nested: those of SENTINEL REPLICAS are lists of lists of texts.
	maxReplyDepth = 3
	// maxReplyLine is for a line with an error or a length. The longest known error has about 900 characters.
	maxReplyLine = 4 << 10
)

// errNoRESP is wrapped by the errors of bytes that Redis does not send.
var errNoRESP = errors.New("not the protocol of Redis")

// A redisReply is one value that a Sentinel sent. It is a plain value.
type redisReply struct {
	kind byte // '+' text, '-' error, ':' number, '$' text, '*' list; 0 = null
	text string
	list []redisReply
}

// A replyReader reads replies. newReplyReader makes it. After an error it is of no more use.
type replyReader struct {
	r             *bufio.Reader
	bytes, values int // left for the present reply
}

func newReplyReader(r io.Reader) *replyReader {
	return &replyReader{r: bufio.NewReaderSize(r, maxReplyLine)}
}

// read returns the next reply. Its errors wrap errNoRESP, or are those of the connection.
func (r *replyReader) read() (redisReply, error) {
	r.bytes, r.values = maxReplyBytes, maxReplyValues
	return r.readAt(0)
}

func (r *replyReader) readAt(depth int) (redisReply, error) {
	if r.values--; r.values < 0 {
		return redisReply{}, fmt.Errorf("%w: more than %d values", errNoRESP, maxReplyValues)
	}
	kind, err := r.r.ReadByte()
	if err != nil {
		return redisReply{}, err
	}
	if !slices.Contains([]byte("+-:$*"), kind) {
		return redisReply{}, fmt.Errorf("%w: it begins with %s", errNoRESP, strconv.QuoteRune(rune(kind)))
	}
	line, err := r.line()
	if err != nil {
		return redisReply{}, err
	}
	if kind != '$' && kind != '*' {
		return redisReply{kind: kind, text: line}, nil
	}
	n, err := strconv.Atoi(line)
	switch {
	case err != nil || n < -1:
		return redisReply{}, fmt.Errorf("%w: a length of %.40q", errNoRESP, line)
	case n == -1:
		return redisReply{}, nil
	case kind == '$':
		return r.bulk(n)
	case depth == maxReplyDepth && n > 0:
		return redisReply{}, fmt.Errorf("%w: lists are nested more than %d deep", errNoRESP, maxReplyDepth)
	}
	// The items are appended as they arrive: an announced length must cost no memory.
	v := redisReply{kind: kind}
	for range n {
		item, err := r.readAt(depth + 1)
		if err != nil {
			return redisReply{}, err
		}
		v.list = append(v.list, item)
	}
	return v, nil
}

// line returns the rest of a line, without its end.
func (r *replyReader) line() (string, error) {
	line, err := r.r.ReadSlice('\n')
	text, ended := strings.CutSuffix(string(line), "\r\n")
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", fmt.Errorf("%w: a line of more than %d bytes", errNoRESP, maxReplyLine)
	case err != nil:
		return "", err
	case !ended:
		return "", fmt.Errorf("%w: a line without CR", errNoRESP)
	}
	return text, r.spend(len(text))
}

// bulk reads a text of n bytes and the end of its line.
func (r *replyReader) bulk(n int) (redisReply, error) {
	if err := r.spend(n); err != nil {
		return redisReply{}, err
	}
	text, err := io.ReadAll(io.LimitReader(r.r, int64(n)+2)) // which grows with what arrives
	switch {
	case err != nil:
		return redisReply{}, err
	case len(text) < n+2:
		return redisReply{}, io.ErrUnexpectedEOF
	case string(text[n:]) != "\r\n":
		return redisReply{}, fmt.Errorf("%w: a text is longer than announced", errNoRESP)
	}
	return redisReply{kind: '$', text: string(text[:n])}, nil
}

// spend takes n bytes from those that are left for the reply.
func (r *replyReader) spend(n int) error {
	if n > r.bytes {
		return fmt.Errorf("%w: more than %d bytes", errNoRESP, maxReplyBytes)
	}
	r.bytes -= n
	return nil
}

// texts returns the items of a list of texts; nil if it is none.
func (v redisReply) texts() []string {
	if v.kind != '*' {
		return nil
	}
	texts := make([]string, len(v.list))
	for i, item := range v.list {
		if item.kind != '$' && item.kind != '+' {
			return nil
		}
		texts[i] = item.text
	}
	return texts
}

// fields returns the texts of a list in which names and values alternate; nil if it is none.
func (v redisReply) fields() map[string]string {
	texts := v.texts()
	if texts == nil || len(texts)%2 != 0 {
		return nil
	}
	fields := make(map[string]string, len(texts)/2)
	for i := 0; i < len(texts); i += 2 {
		fields[texts[i]] = texts[i+1]
	}
	return fields
}

// appendCommand appends a command as a client sends it.
func appendCommand(b []byte, words ...string) []byte {
	b = fmt.Appendf(b, "*%d\r\n", len(words))
	for _, word := range words {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(word), word)
	}
	return b
}
