package harness

import (
	"fmt"
	"strconv"
	"testing"
)

// An Iperf is a running iperf3 server. It serves one test at a time.
type Iperf struct {
	*Process
	Address string
}

// StartIperf starts a server on a free port and waits until it listens.
func StartIperf(t testing.TB) *Iperf {
	t.Helper()
	port := FreePort(t)
	p := Start(t, Command{Path: Tool(t, "iperf3"), Args: []string{
		"--server", "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--forceflush",
	}})
	p.WaitStdout(t, "Server listening")
	return &Iperf{Process: p, Address: fmt.Sprintf("127.0.0.1:%d", port)}
}
