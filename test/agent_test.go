package test

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// An agentServer is an agent whose line a test sets.
type agentServer struct {
	*harness.Backend

	mu    sync.Mutex
	line  string // guarded by mu
	asked int    // guarded by mu
}

func startAgentServer(t *testing.T) *agentServer {
	t.Helper()
	a := &agentServer{line: "\n"}
	a.Backend = harness.Serve(t, func(_ context.Context, c *net.TCPConn) {
		a.mu.Lock()
		line := a.line
		a.asked++
		a.mu.Unlock()
		_, _ = io.WriteString(c, line)
	})
	return a
}

// say sets the line and waits until it was read at least n times.
func (a *agentServer) say(t *testing.T, line string, n int) {
	t.Helper()
	a.mu.Lock()
	a.line = line
	until := a.asked + n
	a.mu.Unlock()
	harness.Eventually(t, "the agent was asked", func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.asked < until {
			return fmt.Errorf("%d times, not %d", a.asked, until)
		}
		return nil
	})
}

// port returns the agent's port.
func (a *agentServer) port(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(a.Address())
	check(t, err)
	return port
}

// agentState is what a balancer makes of an agent's words.
type agentState struct {
	state  string // UP, DRAIN, DOWN or MAINT
	weight string // "": gets nothing
	limit  string // "": none
}

// agentStateOf asks a balancer for the state of its only backend.
func agentStateOf(t *testing.T, b *harness.Balancer) agentState {
	t.Helper()
	var of struct {
		Agent    string
		Eligible bool
	}
	b.Ask(t, "GET", "/v1/pools/all/backends/b1", nil, &of)
	s := agentState{state: "DRAIN"}
	for _, word := range strings.Fields(of.Agent) {
		if limit, is := strings.CutPrefix(word, "maxconn:"); is {
			s.limit = limit
		}
	}
	switch {
	case of.Eligible:
		var x struct{ Candidates []struct{ Weight int } }
		b.Ask(t, "GET", "/v1/explain?pool=all&client=192.0.2.1", nil, &x)
		if s.state = "UP"; len(x.Candidates) == 1 {
			s.weight = fmt.Sprint(x.Candidates[0].Weight)
		}
	case strings.Contains(of.Agent, "maint"):
		s.state = "MAINT"
	case strings.Contains(of.Agent, "down"):
		s.state = "DOWN"
	}
	return s
}

// haproxyStateOf asks HAProxy for the state of its only server.
func haproxyStateOf(t *testing.T, socket string) agentState {
	t.Helper()
	c, err := net.Dial("unix", socket)
	check(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "show stat\n")
	check(t, err)
	rows, err := csv.NewReader(c).ReadAll()
	check(t, err)
	for _, row := range rows[1:] {
		if row[1] != "b1" {
			continue
		}
		s := agentState{state: strings.Fields(row[17])[0], weight: row[18], limit: row[6]}
		if s.state == "UP" && s.weight == "0" {
			s.state = "DRAIN" // as HAProxy's manual has it: nothing new
		}
		if s.state != "UP" {
			s.weight = ""
		}
		if s.limit == "0" {
			s.limit = ""
		}
		return s
	}
	t.Fatal("HAProxy has no server b1")
	return agentState{}
}

// TestAgentBesideHAProxy has real HAProxy and the balancer ask the same agent: after each answer both have the same
// state, weight and limit.
func TestAgentBesideHAProxy(t *testing.T) {
	t.Parallel()
	a, echo := startAgentServer(t), harness.Serve(t, harness.Echo)
	b := world{
		Backends: []string{echo.Address()}, Keys: []string{`weight = 100`},
		Pool: []string{fmt.Sprintf(`agent = { port = %s, interval = "20ms", timeout = "5s" }`, a.port(t))},
	}.start(t)
	folder := t.TempDir()
	socket := filepath.Join(folder, "stats")
	config := fmt.Sprintf(`global
    stats socket %s
defaults
    mode tcp
    timeout connect 5s
    timeout client 5s
    timeout server 5s
listen all
    bind %s
    server b1 %s weight 100 check inter 50ms agent-check agent-addr 127.0.0.1 agent-port %s agent-inter 20ms
`, socket, harness.FreeAddress(t), echo.Address(), a.port(t))
	file := filepath.Join(folder, "haproxy.cfg")
	check(t, os.WriteFile(file, []byte(config), 0o600))
	harness.Start(t, harness.Command{Path: harness.Tool(t, "haproxy"), Args: []string{"-db", "-f", file}})
	harness.Eventually(t, "HAProxy answers", func() error {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err
	})
	for _, tc := range []struct {
		line string
		want agentState
	}{
		{"75%\n", agentState{"UP", "75", ""}},
		{"READY, Up 50%\n", agentState{"UP", "50", ""}},
		{"drain\n", agentState{"DRAIN", "", ""}},
		{"40%\r\n", agentState{"DRAIN", "", ""}}, // what is not mentioned stays
		{"ready\n", agentState{"UP", "40", ""}},
		{"maint\tmaxconn:30\n", agentState{"MAINT", "", "30"}},
		{"ready up\n", agentState{"UP", "40", "30"}},
		{"down # disk full\n", agentState{"DOWN", "", "30"}},
		{"ready\n", agentState{"DOWN", "", "30"}},
		{"up\n", agentState{"UP", "40", "30"}},
		{"Stopped\n", agentState{"DOWN", "", "30"}},
		{"up maxconn:7\n", agentState{"UP", "40", "7"}},
		{"fail\n", agentState{"DOWN", "", "7"}},
		{"up 0%\n", agentState{"DRAIN", "", "7"}},
		{"100% 20%\n", agentState{"UP", "20", "7"}},
		{"nonsense 60%\n", agentState{"UP", "60", "7"}},
		{"10%", agentState{"UP", "60", "7"}}, // without an end
		{"5", agentState{"UP", "60", "7"}},
		{"300%\n", agentState{"UP", "256", "7"}},
		{"down#not-a-reason\n", agentState{"UP", "256", "7"}},
		{"\n", agentState{"UP", "256", "7"}},
	} {
		a.say(t, tc.line, 4)
		harness.Eventually(t, fmt.Sprintf("both have understood %q", tc.line), func() error {
			ours, theirs := agentStateOf(t, b), tc.want
			// HAProxy 2.6 reads a line without an end on into what its buffer held before, and sometimes finds one there.
			if strings.ContainsAny(tc.line, "\r\n") {
				theirs = haproxyStateOf(t, socket)
			}
			if ours != theirs || ours != tc.want {
				return fmt.Errorf("ours is %v, HAProxy's %v, want %v", ours, theirs, tc.want)
			}
			return nil
		})
	}
}

// TestAgent has an agent drain and stop a backend, and go away: what it said last stays, with one warning, and what the
// operator says stands beside it. A reload without agents forgets it.
func TestAgent(t *testing.T) {
	t.Parallel()
	a, one := startAgentServer(t), harness.Serve(t, harness.SpeakFirst("one"))
	w := world{
		Listen: harness.FreeAddress(t), Backends: []string{one.Address()},
		Pool: []string{fmt.Sprintf(`agent = { port = %s, interval = "20ms" }`, a.port(t))},
	}
	b := w.start(t)
	a.say(t, "50% maxconn:9 what\n", 2)
	words := func(want string) {
		t.Helper()
		harness.Eventually(t, "the agent has said "+want, func() error {
			var of struct{ Agent, Mode string }
			b.Ask(t, "GET", "/v1/pools/all/backends/b1", nil, &of)
			if of.Agent != want {
				return fmt.Errorf("it is %q", of.Agent)
			}
			return nil
		})
	}
	words("50% maxconn:9")
	b.WaitLine(t, "the unknown word", func(l harness.Line) bool {
		return l.Message == "agent says an unknown word, which is ignored"
	})
	measured(t, b, map[string]float64{
		`limeload_backend_agent_weight_ratio{backend="b1",pool="all"}`: 0.5,
		`limeload_backend_agent_forbids{backend="b1",pool="all"}`:      0,
	})
	a.say(t, "drain # no reason\n", 2)
	words("drain 50% maxconn:9")
	for _, command := range [][]string{{"explain", "--pool", "all", "192.0.2.1"}, {"backends", "list"}} {
		if stdout, _, _ := b.Command(t, command...); !strings.Contains(stdout, `drain 50% maxconn:9`) {
			t.Errorf("%v does not show what the agent says:\n%s", command, stdout)
		}
	}
	a.Close()
	b.WaitLine(t, "the agent is gone", func(l harness.Line) bool {
		return strings.HasPrefix(l.Message, "agent not understood")
	})
	time.Sleep(100 * time.Millisecond) // it is asked a few times more
	words("drain 50% maxconn:9")
	gone := 0
	for _, l := range b.Lines() {
		if strings.HasPrefix(l.Message, "agent not understood") {
			gone++
		}
	}
	if gone != 1 {
		t.Errorf("%d warnings that it is gone", gone)
	}
	other := w
	other.Pool = []string{strings.Replace(w.Pool[0], "20ms", "30ms", 1)}
	b.Reload(t, other.config(t))
	words("drain 50% maxconn:9")
	other.Pool = nil
	b.Reload(t, other.config(t))
	words("")
	if err := tryGreeting(b.Address(t, "main")); err != nil {
		t.Errorf("without agents: %v", err)
	}
}
