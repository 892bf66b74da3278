package discovery

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReplies(t *testing.T) {
	for _, tt := range []struct{ raw, want string }{
		{"+OK\r\n", "+OK"},
		{"-ERR no\r\n", "-ERR no"},
		{":12\r\n", ":12"},
		{"$2\r\nab\r\n", "$ab"},
		{"$0\r\n\r\n", "$"},
		{"$-1\r\n", "null"},
		{"*-1\r\n", "null"},
		{"*0\r\n", "*[]"},
		{"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", "*[$a *[:1]]"},
		{"*1\r\n*1\r\n*1\r\n*0\r\n", "*[*[*[*[]]]]"},
		{"*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", "not the protocol of Redis: lists are nested more than 3 deep"},
		{"$1\r\nab\r\n", "not the protocol of Redis: a text is longer than announced"},
		{"$x\r\n", `not the protocol of Redis: a length of "x"`},
		{"$-2\r\n", `not the protocol of Redis: a length of "-2"`},
		{"$99999999999999999999\r\n", `not the protocol of Redis: a length of "99999999999999999999"`},
		{"+OK\n", "not the protocol of Redis: a line without CR"},
		{"+" + strings.Repeat("x", maxReplyLine), "not the protocol of Redis: a line of more than 4096 bytes"},
		{"%1\r\n", "not the protocol of Redis: it begins with '%'"},
		{"*70000\r\n" + strings.Repeat(":1\r\n", 70000), "not the protocol of Redis: more than 65536 values"},
		{"*3\r\n:1\r\n", "EOF"},
		{"$5\r\nab", "unexpected EOF"},
		{"$9223372036854775807\r\n", "not the protocol of Redis: more than 1048576 bytes"},
	} {
		v, err := newReplyReader(iotest.OneByteReader(strings.NewReader(tt.raw))).read()
		got := replyText(v)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%.40q is %s, want %s", tt.raw, got, tt.want)
		}
	}
}

func replyText(v redisReply) string {
	switch v.kind {
	case 0:
		return "null"
	case '*':
		var items []string
		for _, item := range v.list {
			items = append(items, replyText(item))
		}
		return "*[" + strings.Join(items, " ") + "]"
	}
	return string(v.kind) + v.text
}

// FuzzReplies reads replies until an error, and takes them for the answer of a Sentinel: nothing panics, and no reply
// has more than its limits.
func FuzzReplies(f *testing.F) {
	for _, raw := range []string{
		"+OK\r\n", "*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*-1\r\n", "*1\r\n*4\r\n$2\r\nip\r\n$1\r\nh\r\n$4\r\nport\r\n$1\r\n1\r\n",
		"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n", "$100000000\r\n", "*100000000\r\n*100000000\r\n",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		r := newReplyReader(strings.NewReader(raw))
		for {
			v, err := r.read()
			if err != nil {
				if !errors.Is(err, errNoRESP) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%q: %v", raw, err)
				}
				return
			}
			list := redisReply{kind: '*', list: v.list}
			_, _ = newView(v, v, list)
			_, _ = newView(redisReply{kind: '*', list: []redisReply{{kind: '$', text: "h"}, {kind: '$', text: "1"}}}, list, list)
		}
	})
}
