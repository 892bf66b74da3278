package wire

import (
	"bytes"
	"testing"
)

// FuzzDNSMessage checks that a stream of messages is read as it was written, wherever it is cut, and that no input
// makes the parser read beyond the stream.
func FuzzDNSMessage(f *testing.F) {
	f.Add([]byte{}, []byte{0, 1, 'a', 0, 0, 0xff, 0xff, 'b'})
	f.Add([]byte("message"), []byte{0})
	f.Fuzz(func(t *testing.T, message, stream []byte) {
		if message, whole := DNSMessage(stream); whole && DNSLengthBytes+len(message) > len(stream) {
			t.Fatalf("%d bytes of %d", len(message), len(stream))
		}
		if len(message) > MaxDNSMessage {
			return
		}
		written := append(AppendDNSLength(nil, message), message...)
		for cut := range written {
			if _, whole := DNSMessage(written[:cut]); whole {
				t.Fatalf("whole with %d of %d bytes", cut, len(written))
			}
		}
		if read, whole := DNSMessage(append(written, stream...)); !whole || !bytes.Equal(read, message) {
			t.Fatalf("read %x, %v", read, whole)
		}
	})
}

// FuzzDNSHeader checks that a message with a header is either a question or an answer, and one without a header is
// neither.
func FuzzDNSHeader(f *testing.F) {
	f.Add(make([]byte, DNSHeaderBytes))
	f.Add(make([]byte, DNSHeaderBytes-1))
	f.Add(bytes.Repeat([]byte{0xff}, DNSHeaderBytes))
	f.Fuzz(func(t *testing.T, m []byte) {
		if question, answer := IsDNSQuestion(m), IsDNSAnswer(m); question == answer && len(m) >= DNSHeaderBytes ||
			len(m) < DNSHeaderBytes && (question || answer) {
			t.Fatalf("%x: question %v, answer %v", m, question, answer)
		}
	})
}
