//go:build netns

package l4_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
)

// TestNetnsFullReceiver holds that a receiver whose window stays shut is kept while it answers the probes of it, and
// given up when it does not any more, with its window shut or open again.
func TestNetnsFullReceiver(t *testing.T) {
	const userTimeout, pause = time.Second, 3 * time.Second
	for _, opens := range []bool{false, true} {
		t.Run(fmt.Sprintf("opens %v", opens), func(t *testing.T) {
			far := newStranger(t)
			spec := spec(newPool(t, backend(t, func(c *net.TCPConn) {
				_, _ = c.Read(make([]byte, 1))
				_, _ = c.Write(make([]byte, 500<<10))
				_, _ = c.Read(make([]byte, 1))
			})))
			spec.Address, spec.UserTimeout = netip.MustParseAddrPort("10.99.0.1:7000"), userTimeout
			lines, log := newCapture()
			start(t, l4.Options{Loops: 1, Access: true, Log: log}, spec)
			answer := far.begin(7000)
			far.finish(answer)
			ack := segment{from: answer.to, to: answer.from, sequence: 1002, flags: flagACK, shut: true}
			acknowledge := func() { // what comes next, probes included, which repeat the last byte
				g := far.receive("data or a probe", answer.to, func(segment) bool { return true })
				if g.flags&flagRST != 0 {
					t.Fatal("the session was reset")
				}
				if end := g.sequence + uint32(len(g.payload)); int32(end-ack.ack) > 0 || ack.ack == 0 {
					ack.ack = end
				}
				far.send(ack)
			}
			for began := time.Now(); time.Since(began) < pause; {
				acknowledge()
			}
			select {
			case line := <-lines.Lines():
				t.Fatalf("the session has ended: %s", line)
			default:
			}
			if opens {
				ack.shut = false
				far.send(ack)
				far.receive("more data", answer.to, func(g segment) bool { return g.payload != "" })
			}
			quiet := time.Now()
			var line []byte
			select {
			case line = <-lines.Lines():
			case <-time.After(60 * time.Second):
				t.Fatal("the session does not end")
			}
			if !bytes.Contains(line, []byte(`"reason":"client_lost"`)) {
				t.Errorf("the session has ended: %s", line)
			}
			t.Logf("found lost after %v", time.Since(quiet))
		})
	}
}
