package main

import (
	"encoding/binary"
	"fmt"
)

// The one protocol between the load generator and the backend. A request is a
// head of requestBytes, then as much payload as the head announces; the answer
// is as long as the head asks, at least answerBytes, and begins with the
// request's sequence number. So a request-response exchange (no payload, the
// shortest answer), an upload (much payload) and a download (a long answer) are
// the same thing with other numbers, and a balancer that mixes up or loses
// bytes is found out by the sequence number.
//
// A raw head is the only head of its connection: after it, each request is just
// that much payload and each answer that many bytes, so that they can be of any
// length from one byte on, and are written in one piece.
const (
	requestBytes = 64
	answerBytes  = 64

	requestMagic = 0x6c696d656c6f6164 // "limeload"
)

// A request is what the head of one says. Its zero value is not valid on the
// wire: an answer has at least answerBytes, or a byte if it is raw.
type request struct {
	sequence uint64
	payload  int64 // bytes that follow the head
	answer   int64 // bytes the backend is to answer with
	raw      bool  // no heads follow on this connection
}

// put writes the head of r.
func (r request) put(b *[requestBytes]byte) {
	binary.BigEndian.PutUint64(b[0:], requestMagic)
	binary.BigEndian.PutUint64(b[8:], r.sequence)
	binary.BigEndian.PutUint64(b[16:], uint64(r.payload))
	binary.BigEndian.PutUint64(b[24:], uint64(r.answer))
	b[32] = 0
	if r.raw {
		b[32] = 1
	}
}

// parseRequest reads the head of a request and refuses one that no load
// generator of ours has written.
func parseRequest(b *[requestBytes]byte) (request, error) {
	if m := binary.BigEndian.Uint64(b[0:]); m != requestMagic {
		return request{}, fmt.Errorf("request begins with %#x, want %#x", m, uint64(requestMagic))
	}
	r := request{
		sequence: binary.BigEndian.Uint64(b[8:]),
		payload:  int64(binary.BigEndian.Uint64(b[16:])),
		answer:   int64(binary.BigEndian.Uint64(b[24:])),
		raw:      b[32] == 1,
	}
	leastPayload, leastAnswer := int64(0), int64(answerBytes)
	if r.raw {
		leastPayload, leastAnswer = 1, 1
	}
	if r.payload < leastPayload || r.answer < leastAnswer {
		return request{}, fmt.Errorf("request has payload %d and asks for an answer of %d bytes", r.payload, r.answer)
	}
	return r, nil
}

// putAnswer writes the head of the answer to request number sequence.
func putAnswer(b *[answerBytes]byte, sequence uint64) {
	binary.BigEndian.PutUint64(b[:], sequence)
}

// parseAnswer reads the sequence number an answer begins with.
func parseAnswer(b *[answerBytes]byte) uint64 {
	return binary.BigEndian.Uint64(b[:])
}
