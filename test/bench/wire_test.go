package main

import (
	"testing"

	"pgregory.net/rapid"
)

func TestRequestSurvivesTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := request{
			sequence: rapid.Uint64().Draw(t, "sequence"),
			payload:  rapid.Int64Min(0).Draw(t, "payload"),
			answer:   rapid.Int64Min(answerBytes).Draw(t, "answer"),
		}
		if rapid.Bool().Draw(t, "raw") {
			want.raw, want.payload = true, max(1, want.payload)
			want.answer = rapid.Int64Min(1).Draw(t, "raw answer")
		}
		var head [requestBytes]byte
		want.put(&head)
		got, err := parseRequest(&head)
		if err != nil || got != want {
			t.Fatalf("%+v, %v, want %+v", got, err, want)
		}
		var answer [answerBytes]byte
		putAnswer(&answer, want.sequence)
		if got := parseAnswer(&answer); got != want.sequence {
			t.Fatalf("answer to %d, want %d", got, want.sequence)
		}
	})
}

func TestParseRequestRefuses(t *testing.T) {
	var head [requestBytes]byte
	if _, err := parseRequest(&head); err == nil {
		t.Error("no error for zeros")
	}
	for _, r := range []request{
		{answer: answerBytes - 1}, {payload: -1, answer: answerBytes}, {payload: 1, raw: true}, {answer: 1, raw: true},
	} {
		r.put(&head)
		if _, err := parseRequest(&head); err == nil {
			t.Errorf("no error for %+v", r)
		}
	}
}

// A connection's first bytes are a header of the PROXY protocol, in one piece with the request or not.
func TestSkipProxyHeader(t *testing.T) {
	var head [requestBytes]byte
	request{sequence: 7, answer: answerBytes}.put(&head)
	// version 2, PROXY, TCP over IPv4, 12 bytes of addresses
	header := append([]byte(proxySignature), 0x21, 0x11, 0, 12)
	header = append(header, make([]byte, 12)...)
	stream := append(header, head[:]...)
	for _, first := range []int{len(header), requestBytes} {
		c := &backendSession{}
		c.got = copy(c.head[:], stream[:first])
		c.skipProxyHeader()
		if want := first - len(header); c.got != want {
			t.Errorf("after %d bytes %d are left, want %d", first, c.got, want)
		}
		c.got += copy(c.head[c.got:], stream[first:])
		c.skipProxyHeader()
		if r, err := parseRequest(&c.head); err != nil || r.sequence != 7 || c.got != requestBytes {
			t.Errorf("after %d bytes: %+v, %v, %d bytes", first, r, err, c.got)
		}
	}
	c := &backendSession{head: head, got: requestBytes}
	if c.skipProxyHeader(); c.got != requestBytes {
		t.Errorf("a request without a header has %d bytes left", c.got)
	}
}
