package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Ports are below Linux's default range for outgoing connections (32768 on), so that no client's connection, not even
// one in TIME_WAIT, can take a port between its choice and its use.
const (
	firstPort = 15000
	lastPort  = 32000
)

// FreePort returns a port that is free for TCP and UDP. While t runs, no other test, in this or another process, gets
// the same port.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		// an abstract Unix socket is a lock that ends with its owner and leaves no file
		lock, err := net.Listen("unix", "@limeload-test-port-"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		probe, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			lock.Close()
			continue
		}
		probe.Close()
		datagrams, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		if err != nil {
			lock.Close()
			continue
		}
		datagrams.Close()
		t.Cleanup(func() { lock.Close() })
		return port
	}
	t.Fatal("no free port found")
	return 0
}

// FreeAddress returns a free port of 127.0.0.1.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", FreePort(t))
}
