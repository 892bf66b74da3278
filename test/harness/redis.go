package harness

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"
)

// A Redis is a running redis-server without persistence.
type Redis struct {
	*Process
	Address string
}

// StartRedis starts a server on a free port and waits until it accepts clients.
func StartRedis(t testing.TB) *Redis {
	t.Helper()
	return StartRedisOn(t, FreePort(t))
}

// StartRedisOn is StartRedis on a port of the caller's choice, for a server that comes back.
func StartRedisOn(t testing.TB, port int) *Redis {
	t.Helper()
	p := Start(t, Command{Path: Tool(t, "redis-server"), Args: []string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", t.TempDir(), "--save", "", "--appendonly", "no",
	}})
	p.WaitStdout(t, "Ready to accept connections")
	return &Redis{Process: p, Address: fmt.Sprintf("127.0.0.1:%d", port)}
}

// Ping sends one PING on c and checks the answer; it is to come within Patience.
func Ping(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "PING\r\n"); err != nil {
		return err
	}
	answer, err := bufio.NewReaderSize(c, 16).ReadString('\n') // one answer for one PING: nothing is left in the reader
	if err != nil {
		return err
	}
	if answer != "+PONG\r\n" {
		return fmt.Errorf("answer to PING is %q", answer)
	}
	return nil
}
