package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain lets the test binary run the roles of the bench and that of a balancer.
func TestMain(m *testing.M) {
	if len(os.Args) >= 3 && os.Args[1] == "-role" {
		if os.Args[2] == "relay" {
			fmt.Fprintln(os.Stderr, relay(os.Args[3], os.Args[4])) // its configuration and its fault
			os.Exit(exitFailed)
		}
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

// The whole, without a balancer.
func TestDirect(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bench.json")
	var stdout, stderr bytes.Buffer
	args := "-contenders direct -rounds 1 -duration 50ms -warmup 20ms -rate 500 -dns-rate 500 -idle 10 -json " + file
	if code := run(t.Context(), strings.Fields(args), nil, &stdout, &stderr); code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	// idle looks at a balancer, and so do what becomes of a flow and who answers from a cache; backends have no TLS
	if got, want := len(r.Rounds), len(tcpScenarios())+len(udpScenarios())-3; got != want {
		t.Errorf("%d measurements, want %d", got, want)
	}
	for _, m := range r.Rounds {
		if m.Error != "" || m.Rate <= 0 || m.ElapsedSeconds < 0.03 || m.ClientCPU <= 0 || m.BackendCPU <= 0 {
			t.Errorf("%+v", m)
		}
		without := m.Scenario == "dns" || m.Scenario == "dns-single" || strings.HasPrefix(m.Scenario, "bulk") ||
			strings.HasPrefix(m.Scenario, "trains")
		if latency := m.P50 > 0 && m.P99 >= m.P50 && m.Max >= m.P99; latency == without {
			t.Errorf("%s: p50 %v, p99 %v, max %v", m.Scenario, m.P50, m.P99, m.Max)
		}
		if !strings.Contains(stdout.String(), m.Scenario) {
			t.Errorf("%s is not in the table", m.Scenario)
		}
	}
}

// The whole with a balancer: this test binary, as a plain relay.
func TestBalancer(t *testing.T) {
	b := relayBench(t, "-only request64,request1,request64-4k,connect,half-peak,idle,growth-size-1,growth-size-262144 "+
		"-rounds 1 -duration 50ms -warmup 20ms -idle 100", "")
	all, err := b.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 8 {
		t.Errorf("%d measurements, want 8", len(all))
	}
	for _, m := range all {
		if m.Error != "" {
			t.Errorf("%s: %s", m.Scenario, m.Error)
			continue
		}
		if m.CPUPerUnit <= 0 {
			t.Errorf("%s: no CPU time: %+v", m.Scenario, m)
		}
		if i := m.Idle; (i != nil) != (m.Scenario == "idle") || i != nil && i.DescriptorsPerSession != 2 {
			t.Errorf("%s: idle figures %+v, want 2 descriptors per session", m.Scenario, i)
		}
	}
	if b.configs["relay"][trafficTCP] == "" {
		t.Error("the configuration is not kept for the report")
	}
}

// runBench runs a bench with these options. Its balancers and servers have ports from first on, so that several can run
// at once.
func runBench(t *testing.T, o options, first uint16) []measurement {
	t.Helper()
	b, err := newBench(t.Context(), o, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	b.ports.next = first
	all, err := b.run(t.Context())
	if err := errors.Join(err, b.close()); err != nil {
		t.Fatal(err)
	}
	return all
}

// Real balancers in front of Redis, in front of a client that is refused, and while they reload.
func TestServices(t *testing.T) {
	t.Parallel()
	o, err := parseOptions(strings.Fields("-contenders haproxy,nginx -rounds 1 -duration 1500ms -warmup 50ms "+
		"-refused-rate 500 -only redis-get-p16,refused,reload"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for i := range o.scenarios {
		if s := &o.scenarios[i]; s.reload {
			s.backends, s.job.Resting, s.job.Rate = 10, 20, 200
		}
	}
	all := runBench(t, o, 24_000)
	if len(all) != 6 {
		t.Errorf("%d measurements, want 6", len(all))
	}
	for _, m := range all {
		ok := m.Error == "" && m.Rate > 0
		if m.Scenario == "reload" {
			ok = ok && m.Reload > 0 && m.P999 >= m.P99 && m.P99 > 0 && m.CPUPerUnit == 0
		} else {
			ok = ok && m.Reload == 0 && m.CPUPerUnit > 0
		}
		if !ok {
			t.Errorf("%s, %s: %+v", m.Contender, m.Scenario, m)
		}
	}
}

// A balancer that breaks sessions, or does not start, is a failed measurement that
// says why, and not the end of the run.
func TestBadBalancer(t *testing.T) {
	for _, c := range []struct{ fault, want string }{
		{"cut", "connection 0 (127.0.0.2 to 127.0.0.1:"}, // and an end or a reset, as it comes
		{"refuse", "no such fault"},
	} {
		t.Run(c.fault, func(t *testing.T) {
			b := relayBench(t, "-only request1 -rounds 1 -duration 50ms -warmup 20ms", c.fault)
			all, err := b.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(all) != 1 || !strings.Contains(all[0].Error, c.want) {
				t.Errorf("measured %+v, want one error with %q", all, c.want)
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	b := relayBench(t, "-only request1 -rounds 1 -duration 1h -warmup 20ms", "")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := b.run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the context's", err)
	}
}

// relayBench makes a bench whose only contender is the relay, with a fault. It
// checks at the end that the bench has left no file.
func relayBench(t *testing.T, args, fault string) *bench {
	t.Helper()
	o, err := parseOptions(strings.Fields(args+" -contenders direct"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for i := range o.scenarios {
		o.scenarios[i].who = nil // the relay is none of them
	}
	b, err := newBench(t.Context(), o, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.programs["relay"] = program{path: self}
	b.contenders = []contender{{
		name:      "relay",
		processes: one,
		find:      func(context.Context, string) (program, error) { return program{}, nil },
		config: func(_ program, s setup) string {
			return fmt.Sprintf("%s %s %s %s", s.listen, s.backends[0], s.certificate.cert, s.certificate.key)
		},
		args: func(file string, _ setup) []string { return []string{"-role", "relay", file, fault} },
	}}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(b.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", b.dir, err)
		}
	})
	return b
}

// relay runs a balancer with one backend. If its configuration names a certificate, it terminates TLS. With the fault
// "cut" it ends every session but the first, which only checks whether it is ready; with "no tickets" none resumes.
func relay(file, fault string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	config := strings.Fields(string(b))
	if !slices.Contains([]string{"", "cut", "no tickets"}, fault) {
		return fmt.Errorf("no such fault %q", fault)
	}
	l, err := net.Listen("tcp4", config[0])
	if err != nil {
		return err
	}
	backend := config[1]
	if len(config) > 2 {
		pair, err := tls.LoadX509KeyPair(config[2], config[3])
		if err != nil {
			return err
		}
		l = tls.NewListener(l, &tls.Config{
			Certificates: []tls.Certificate{pair}, SessionTicketsDisabled: fault == "no tickets",
		})
	}
	for n := 0; ; n++ {
		client, err := l.Accept()
		if err != nil {
			return err
		}
		if fault == "cut" && n > 0 {
			client.Close()
			continue
		}
		go relaySession(client, backend)
	}
}

func relaySession(client net.Conn, backend string) {
	defer client.Close()
	conn, err := net.Dial("tcp4", backend)
	if err != nil {
		return
	}
	defer conn.Close()
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, conn}, {conn, client}} {
		wg.Go(func() {
			// without splice, whose pipes would be descriptors of idle sessions
			_, _ = io.Copy(struct{ io.Writer }{way[0]}, struct{ io.Reader }{way[1]})
			_ = way[0].(interface{ CloseWrite() error }).CloseWrite()
		})
	}
	wg.Wait()
}
