package main

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

func TestTrainHead(t *testing.T) {
	want := train{sequence: 1 << 40, in: trainBytes, out: 7}
	b := make([]byte, trainBytes)
	want.fill(b)
	for at := 0; at < len(b); at += trainDatagram {
		if got, ok := parseTrain(b[at:]); !ok || got != want {
			t.Errorf("datagram at %d is of %+v, want %+v", at, got, want)
		}
	}
	if got, ok := parseTrain(want.head()); !ok || got != (train{want.sequence, trainHead, want.out}) {
		t.Errorf("the shortest train is %+v", got)
	}
	for _, bad := range [][]byte{nil, b[:trainHead-1], b[1:]} {
		if got, ok := parseTrain(bad); ok {
			t.Errorf("%d bytes are taken for %+v", len(bad), got)
		}
	}
}

// A train that does not come back is counted as lost, and the next one is sent.
func TestTrainsLost(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return // closed
			}
			if got, ok := parseTrain(b[:n]); ok && got.sequence%2 == 1 { // and no other
				_, _ = c.WriteToUDPAddrPort(b[:n], from)
			}
		}
	})
	defer serving.Wait()
	defer c.Close()

	poll, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer poll.close()
	l := &trainLoad{
		job: job{Targets: []netip.AddrPort{c.LocalAddr().(*net.UDPAddr).AddrPort()}, Connections: 1,
			Payload: trainHead, Answer: trainHead},
		poll: poll, started: time.Now(), buffer: make([]byte, trainBytes), byFD: map[int]*trainConn{},
	}
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, conn := range l.conns {
			closeFD(conn.fd)
		}
	}()
	if err := l.work(3 * lostAfter); err != nil {
		t.Fatal(err)
	}
	r := l.result
	// they take turns; a slow day loses more
	if r.Lost < 2 || r.Requests < 1 || r.Bytes != int64(r.Requests)*2*trainHead {
		t.Errorf("%+v", r)
	}
}
