package dns

import (
	"testing"

	"github.com/limeload/limeload-l4/l4/internal/loop"
	"github.com/limeload/limeload-l4/l4/internal/wire"
)

// FuzzDNSInbox holds that messages come out as they went in, however they were cut, and that nothing is kept then.
func FuzzDNSInbox(f *testing.F) {
	f.Add([]byte("abc"), uint16(1), uint16(0))
	f.Add([]byte{}, uint16(3), uint16(70))
	f.Add(make([]byte, 300), uint16(255), uint16(11))
	f.Fuzz(func(t *testing.T, text []byte, step, size uint16) {
		var buffers loop.Buffers
		want := [][]byte{text, make([]byte, size), text}
		var stream []byte
		for _, m := range want {
			stream = append(wire.AppendDNSLength(stream, m), m...)
		}
		var in inbox
		for len(stream) > 0 {
			n := min(len(stream), int(step)+1)
			in.Append(&buffers, stream[:n])
			stream = stream[n:]
			for m, whole := in.first(); whole; m, whole = in.first() {
				if len(m) != len(want[0]) || string(m) != string(want[0]) {
					t.Fatalf("want %x, got %x", want[0], m)
				}
				want = want[1:]
				in.skip(&buffers, m)
			}
		}
		if len(want) > 0 || in.Bytes() != nil { // an empty queue that holds memory returns a slice of it
			t.Fatalf("%d messages are missing, %d bytes kept", len(want), len(in.Bytes()))
		}
	})
}
