//go:build vm

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestCostOfKernelTLS prints what sessions with TLS on both sides cost the balancer, with the kernel's TLS and with its
// own. `make bench-vm` has QEMU count instructions for the machine's clock, so that a nanosecond is an instruction.
func TestCostOfKernelTLS(t *testing.T) {
	const requests, bulk = 500, 4 << 20
	w := kernelConfig(t)
	w.Balancer = harness.StartBalancerWith(t, harness.BalancerOptions{Config: w.config, Measured: true})
	cost := func(do func()) time.Duration {
		before := runTime(t, w.PID())
		do()
		return runTime(t, w.PID()) - before
	}
	var request, mebibyte [2]float64
	for i, g := range []leg{bothLegs, neitherLeg} {
		s := w.open(t, g)
		go echoing(s.backend)
		check(t, harness.PingPong(s.client, 100, 64)) // warm
		each := cost(func() { check(t, harness.PingPong(s.client, requests, 64)) })
		s.close()

		s = w.open(t, g)
		received := make(chan end, 1)
		go func() { received <- trade(s.client, harness.Traffic{}) }()
		all := cost(func() {
			sent := trade(s.backend, harness.Traffic{Seed: 1, Size: bulk, Chunk: 256 << 10})
			if got := harness.Receive(t, "the client's end", received); got.got != sent.sent || got.err != nil {
				t.Errorf("sent %v, received %v, %v", sent.sent, got.got, got.err)
			}
		})
		s.close()
		request[i], mebibyte[i] = float64(each)/requests, float64(all)/(bulk>>20)
	}
	t.Logf("instructions of a request and its answer: %.0f by the kernel, %.0f by the program, %.2f", request[0], request[1],
		request[0]/request[1])
	t.Logf("instructions of a MiB: %.0f by the kernel, %.0f by the program, %.2f", mebibyte[0], mebibyte[1], mebibyte[0]/mebibyte[1])
}

// echoing sends back what comes.
func echoing(c duplex) {
	p := make([]byte, 4096)
	for {
		n, err := c.Read(p)
		if err != nil {
			return
		}
		if _, err := c.Write(p[:n]); err != nil {
			return
		}
	}
}

// runTime is how long a process's threads have run, in the program and in the kernel (proc_pid_schedstat).
func runTime(t testing.TB, pid int) (all time.Duration) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	check(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(t, err)
		var ran time.Duration
		_, err = fmt.Sscan(string(text), &ran)
		check(t, err)
		all += ran
	}
	if all == 0 {
		t.Fatalf("process %d has not run, by %v", pid, files)
	}
	return all
}
