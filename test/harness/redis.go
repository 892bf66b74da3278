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

// StartRedisOn is StartRedis on a port of the caller's choice, for a server that comes back, with further arguments.
func StartRedisOn(t testing.TB, port int, args ...string) *Redis {
	t.Helper()
	p := Start(t, Command{Path: Tool(t, "redis-server"), Args: append([]string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", t.TempDir(), "--save", "", "--appendonly", "no",
	}, args...)})
	p.WaitStdout(t, "Ready to accept connections")
	return &Redis{Process: p, Address: fmt.Sprintf("127.0.0.1:%d", port)}
}

// StartRedisLoading starts a server that loads the dump in dir, one key every few milliseconds, and waits until it has
// begun.
func StartRedisLoading(t testing.TB, dir string) *Redis {
	t.Helper()
	port := FreePort(t)
	p := Start(t, Command{Path: Tool(t, "redis-server"), Args: []string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir, "--save", "", "--appendonly", "no",
		"--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024",
	}})
	p.WaitStdout(t, "Loading RDB")
	return &Redis{Process: p, Address: fmt.Sprintf("127.0.0.1:%d", port)}
}

// Do runs a command with the server's own client, and returns its output.
func (r *Redis) Do(t testing.TB, args ...string) string {
	t.Helper()
	return MustRun(t, r.cli(t, args))
}

// Try is Do for a server that may be away, such as while it starts.
func (r *Redis) Try(t testing.TB, args ...string) (string, error) {
	t.Helper()
	stdout, stderr, code := Run(t, r.cli(t, args))
	if code != 0 {
		return "", fmt.Errorf("redis-cli: exit code %d: %s", code, stderr)
	}
	return stdout, nil
}

func (r *Redis) cli(t testing.TB, args []string) Command {
	t.Helper()
	_, port, err := net.SplitHostPort(r.Address)
	if err != nil {
		t.Fatal(err)
	}
	return Command{Path: Tool(t, "redis-cli"), Args: append([]string{"-p", port}, args...)}
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
