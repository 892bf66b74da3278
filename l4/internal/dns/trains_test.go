package dns_test

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/l4"
	room "github.com/limeload/limeload-l4/l4/internal/dns"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/wire"
)

// TestDNSTrainsPass holds that a train of answers leaves a DNS listener as it came, in one message, unless one of its
// datagrams is to be cut or dropped. It counts the messages that the client gets.
func TestDNSTrainsPass(t *testing.T) {
	const most = 64 // datagrams of a train
	const largest = room.DefaultMaxUDP
	answer := func(size int) []byte { return append([]byte{0, 1, answerBit}, make([]byte, size-3)...) }
	oneQuestion := bytes.Repeat(answer(20), most)
	oneQuestion[20*(most-1)+2] = 0
	for _, tc := range []struct {
		name                string
		train               []byte
		size                int
		passes              bool
		messages, datagrams int // of five trains
		bytes               int // of each datagram
	}{
		{"nothing to cut", bytes.Repeat(answer(20), most), 20, true, 5, 5 * most, 20},
		{"as large as may be", bytes.Repeat(answer(largest), 50), largest, true, 5, 5 * 50, largest},
		// cut, ten make one train
		{"too large", bytes.Repeat(answer(largest+1), 2), largest + 1, false, 1, 10, wire.DNSHeaderBytes},
		{"a question", oneQuestion, 20, false, 5, 5 * (most - 1), 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			asked := make(chan netip.AddrPort, 1)
			b := startUDP(t, func(_ *l4test.UDPBackend, from netip.AddrPort, _ []byte) { asked <- from })
			s := startWith(t, sock.Offload{GRO: true, GSO: true}, l4.Options{Loops: 1}, dnsSpec(newPool(t, b.Address())))
			c := dialUDP(t, address(s))
			if _, err := c.Write(dnsQuery(t, 1, "example.com.", dns.TypeANY)); err != nil {
				t.Fatal(err)
			}
			connectTo(t, b.UDPConn, <-asked)
			awaitFlows(t, s, 1)
			onFirst(s, func(_ *room.Loop, f *room.Forwarder) {
				if got := f.Passes(tc.train, tc.size); got != tc.passes {
					t.Errorf("the train passes as it is: %v", got)
				}
			})

			// A flow takes trains once its backend has sent more than an answer now and then.
			const first = 2
			release := hold(t, s, 0)
			for range first {
				if _, err := b.Write(answer(20)); err != nil {
					t.Fatal(err)
				}
			}
			release()
			for range first {
				awaitUDP(t, c)
			}

			receive := trainReader(t, c)
			release = hold(t, s, 0) // all come in one turn
			for range 5 {
				sendTrain(t, b.UDPConn, slices.Collect(slices.Chunk(tc.train, tc.size)))
			}
			release()
			messages, got := 0, 0
			err := receive(func(m sock.Message) (more bool) {
				messages++
				if got++; m.Size > 0 { // it is a train
					got += (len(m.Bytes) - 1) / m.Size
				}
				if m.Size != tc.bytes {
					t.Errorf("datagrams of %d bytes, want %d", m.Size, tc.bytes)
				}
				return got < tc.datagrams
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

// connectTo connects a backend's socket to a client.
func connectTo(t *testing.T, c *net.UDPConn, to netip.AddrPort) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = syscall.Connect(int(fd), &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	})
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
}

// trainReader makes a client take trains. The function that it returns calls take for each message, as long as take
// wants more.
func trainReader(t *testing.T, c *net.UDPConn) func(take func(sock.Message) (more bool)) error {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { sock.ExpectTrains(int(fd), true, 4<<20) }); err != nil {
		t.Fatal(err)
	}
	return func(take func(sock.Message) bool) error {
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		reader := sock.NewDatagramReader(false)
		return raw.Read(func(fd uintptr) bool {
			for more := true; more; {
				n, e := reader.Read(int(fd), 0, sock.DatagramSlots)
				if e != 0 {
					return false
				}
				for slot := range n {
					more = take(reader.Message(slot))
				}
			}
			return true
		})
	}
}
