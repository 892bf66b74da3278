package dnscache

import (
	"encoding/binary"
	"testing"
)

// hostileAnswer returns the largest possible answer to www.example.com A. Its OPT record precedes records with three
// names each, and each name is a chain of as many pointers as a name may have.
func hostileAnswer() []byte {
	message := append(raw(0, 0), 0, 0, typeOPT, 4, 208, 0, 0, 0, 0, 0, 0)
	records, hops, longest := 1, 0, headerLen
	pointer := func(previous int) {
		at, target := len(message), longest
		if at < pointerRange {
			if target = previous; hops == 0 {
				target = headerLen
			}
			if hops = (hops + 1) % (maxHops - 1); hops == 0 {
				longest = at
			}
		}
		message = append(message, 0xc0|byte(target>>8), byte(target))
	}
	last := headerLen
	for len(message)+2+recordLen+4 <= maxMessage && records < maxRecords {
		owner := len(message)
		pointer(last)
		message = append(message, 0, 14, 0, classIN, 0, 0, 1, 0, 0, 4) // MINFO
		pointer(owner)
		pointer(owner)
		last = owner
		records++
	}
	binary.BigEndian.PutUint16(message[10:], uint16(records))
	return message
}

// TestReadingIsLinear checks that no answer costs more than a few steps for each of its bytes, and that the number of
// records is bounded.
func TestReadingIsLinear(t *testing.T) {
	t.Parallel()
	message := hostileAnswer()
	key := []byte("\x03www\x07example\x03com\x00\x00\x01\x01")
	a := new(answer)
	if !a.read(message, flightID, key[:17], key) || len(a.ttls) < 4000 {
		t.Fatalf("%d records were read", len(a.ttls))
	}
	if a.steps > len(message) {
		t.Errorf("%d steps for %d bytes", a.steps, len(message))
	}
	many := raw(maxRecords+1, 0)
	for range maxRecords + 1 {
		many = append(many, 0, 0, 99, 0, classIN, 0, 0, 1, 0, 0, 0)
	}
	if a.read(many, flightID, key[:17], key) || a.steps > 0 {
		t.Errorf("%d records: %d steps, expected it refused at once", maxRecords+1, a.steps)
	}
}

// BenchmarkHostileAnswer reads the most expensive answer: 90 us, and 310 ms when each name was read separately.
func BenchmarkHostileAnswer(b *testing.B) {
	message := hostileAnswer()
	key := []byte("\x03www\x07example\x03com\x00\x00\x01\x01")
	a := new(answer)
	for b.Loop() {
		if !a.read(message, flightID, key[:17], key) {
			b.Fatal("refused")
		}
	}
}
