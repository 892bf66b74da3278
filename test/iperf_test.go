package test

import (
	"encoding/json"
	"fmt"
	"net"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

func TestIperf(t *testing.T) {
	t.Parallel()
	for _, streams := range []int{1, 8} {
		for _, reverse := range []bool{false, true} {
			t.Run(fmt.Sprintf("streams=%d reverse=%t", streams, reverse), func(t *testing.T) {
				server := harness.StartIperf(t)
				b := world{Backends: []string{server.Address}}.start(t)
				host, port, err := net.SplitHostPort(b.Address(t, "main"))
				check(t, err)
				args := []string{"-c", host, "-p", port, "-P", fmt.Sprint(streams), "-t", "2", "--json"}
				if reverse {
					args = append(args, "--reverse")
				}
				checkIperf(t, harness.MustRun(t, harness.Command{Path: harness.Tool(t, "iperf3"), Args: args}), streams)
				// the server closes the data connections itself, even with data in flight, which causes a reset
				oneOf(t, b.WaitSessions(t, 1+streams),
					"client_closed", "backend_closed", "client_reset", "backend_reset")
			})
		}
	}
}

// checkIperf checks a report of iperf3: no error, all streams, and each of them moved data.
func checkIperf(t *testing.T, report string, streams int) {
	t.Helper()
	var r struct {
		Error string
		End   struct {
			Streams []struct {
				Receiver struct{ Bytes int64 }
			}
			SumReceived struct{ Bytes int64 } `json:"sum_received"`
		}
	}
	check(t, json.Unmarshal([]byte(report), &r))
	if r.Error != "" || len(r.End.Streams) != streams || r.End.SumReceived.Bytes == 0 {
		t.Fatalf("iperf3 with %d streams:\n%s", streams, report)
	}
	for i, s := range r.End.Streams {
		if s.Receiver.Bytes == 0 {
			t.Errorf("stream %d received nothing", i)
		}
	}
	t.Logf("%d MiB received", r.End.SumReceived.Bytes>>20)
}
