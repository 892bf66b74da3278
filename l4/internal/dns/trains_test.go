package dns_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// TestDNSTrainsPass holds that a train of answers leaves a DNS listener as it came, in one message, unless one of its
// datagrams is to be cut or dropped. It counts the messages that the client gets.
func TestDNSTrainsPass(t *testing.T) {
	const most = 64 // datagrams of a train
	const largest = defaultDNSMaxUDP
	answer := func(size int) []byte { return append([]byte{0, 1, dnsAnswerBit}, make([]byte, size-3)...) }
	oneQuestion := bytes.Repeat(answer(20), most)
	oneQuestion[20*(most-1)+2] = 0
	for _, tc := range []struct {
		name                string
		train               []byte
		size                int
		messages, datagrams int // of five trains
		bytes               int // of each datagram
	}{
		{"nothing to cut", bytes.Repeat(answer(20), most), 20, 5, 5 * most, 20},
		{"as large as may be", bytes.Repeat(answer(largest), 50), largest, 5, 5 * 50, largest},
		{"too large", bytes.Repeat(answer(largest+1), 2), largest + 1, 1, 10, dnsHeaderBytes}, // cut, ten make one train
		{"a question", oneQuestion, 20, 5, 5 * (most - 1), 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := startUDP(t, nil)
			spec := dnsSpec(newPool(t, b.Address()))
			s := startWith(t, sock.Offload{GRO: true, GSO: true}, l4.Options{Loops: 1}, spec)
			c := dialUDP(t, address(s))
			raw, err := c.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := raw.Control(func(fd uintptr) { sock.ExpectTrains(int(fd), true, 4<<20) }); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(dnsQuery(t, 1, "example.com.", dns.TypeANY)); err != nil {
				t.Fatal(err)
			}
			awaitFlows(t, s, 1)
			s.onFirstLoop(func(l *loop) {
				for range 5 {
					l.addAnswer(l.oneFlow(), bytes.Clone(tc.train), tc.size)
				}
			})
			if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			reader := sock.NewDatagramReader(false)
			messages, got := 0, 0
			err = raw.Read(func(fd uintptr) bool {
				for got < tc.datagrams {
					n, e := reader.Read(int(fd), 0, sock.DatagramSlots)
					if e != 0 {
						return false
					}
					for slot := range n {
						m := reader.Message(slot)
						messages++
						got += datagrams(len(m.Bytes), m.Size)
						if m.Size != tc.bytes {
							t.Errorf("datagrams of %d bytes, want %d", m.Size, tc.bytes)
						}
					}
				}
				return true
			})
			if err != nil {
				t.Fatalf("%d of %d datagrams came: %v", got, tc.datagrams, err)
			}
			if messages != tc.messages || got != tc.datagrams {
				t.Errorf("%d datagrams in %d messages, want %d in %d", got, messages, tc.datagrams, tc.messages)
			}
		})
	}
}
