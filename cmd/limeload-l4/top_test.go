package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// sampleAt returns a sample of a daemon with two pools.
func sampleAt(at time.Time, pid int, sessions, bytes uint64) topSample {
	return topSample{at: at,
		status: admin.Status{
			Version: "1.2.3", PID: pid, State: "serving", Started: time.Unix(1_700_000_000, 0), Sessions: 7, MaxSessions: 1000,
			Listeners: []admin.Listener{{Name: "main", Protocol: "tcp", Addresses: []string{"127.0.0.1:6379"},
				Pools: []string{"redis"}, Sessions: 7, Accepted: sessions, BytesIn: bytes, BytesOut: 2 * bytes}},
			Pools: []admin.Pool{{Name: "redis", Algorithm: "least_conn", Backends: 3, Healthy: 2, Eligible: 2, Sessions: 7},
				{Name: "an-empty-pool", Algorithm: "first"}},
		},
		backends: []admin.Backend{
			{Pool: "redis", Name: "b1", Address: "10.0.0.11:6379", Weight: 1, Mode: "ready", Verdict: "healthy",
				Breaker: "closed", Eligible: true, Sessions: 5, Outcomes: map[string]uint64{"served": sessions},
				BytesIn: bytes, BytesOut: 2 * bytes, Reason: "connected"},
			{Pool: "redis", Name: "b2", Address: "10.0.0.12:6379", Weight: 3, Mode: "ready", Verdict: "healthy",
				Breaker: "closed", Eligible: true, Sessions: 2, Reason: "connected"},
			{Pool: "redis", Name: "b3", Address: "10.0.0.13:6379", Weight: 1, Mode: "ready", Verdict: "unhealthy",
				Breaker: "closed", Reason: "connect: connection \x1b[2Jrefused"},
		},
	}
}

func TestTopRates(t *testing.T) {
	var h topHistory
	start := time.Now()
	if s := h.measured(sampleAt(start, 1, 100, 1000)); s.Rates != nil || s.Pools[0].Rates != nil || s.Interval != 0 {
		t.Errorf("there are rates after one sample: %+v", s.Rates)
	}
	// new sessions are the mean of the last 3 s, bytes of the last 10 s
	var s *topSnapshot
	for i := range uint64(12) {
		s = h.measured(sampleAt(start.Add(time.Duration(i+1)*time.Second), 1, 100+10*i, 1000+500*i))
	}
	if want := (topRates{10, 500, 1000}); s.Rates == nil || *s.Rates != want || *s.Pools[0].Rates != want ||
		*s.Backends[0].Rates != want || s.Pools[1].Rates != nil || *s.Backends[1].Rates != (topRates{}) || s.Interval != 10 {
		t.Errorf("rates %+v of %v s, want %+v", s.Rates, s.Interval, want)
	}
	if len(h) > 13 {
		t.Errorf("the history has %d states", len(h))
	}
	// another daemon counts from 0
	later := start.Add(13 * time.Second)
	if s := h.measured(sampleAt(later, 2, 1, 1)); s.Rates != nil {
		t.Errorf("there are rates over a restart: %+v", s.Rates)
	}
	// a backend that was removed and added counts from 0, too
	if s := h.measured(sampleAt(later.Add(time.Second), 2, 0, 0)); s.Backends[0].Rates != nil ||
		s.Backends[1].Rates == nil {
		t.Errorf("rates %+v", s.Backends)
	}
}

// TestTopRatesSlow: whoever asks less often than the windows gets the mean of one interval.
func TestTopRatesSlow(t *testing.T) {
	var h topHistory
	start := time.Now()
	h.measured(sampleAt(start, 1, 100, 1000))
	s := h.measured(sampleAt(start.Add(10*time.Second), 1, 200, 2000))
	if want := (topRates{10, 100, 200}); s.Rates == nil || *s.Rates != want {
		t.Errorf("rates %+v, want %+v", s.Rates, want)
	}
	s = h.measured(sampleAt(start.Add(time.Minute), 1, 250, 7000))
	if want := (topRates{1, 100, 200}); s.Rates == nil || *s.Rates != want || s.Interval != 50 {
		t.Errorf("rates %+v of %v s, want %+v", s.Rates, s.Interval, want)
	}
}

func TestTopOnce(t *testing.T) {
	startFake(t)
	code, stdout, stderr := command(t, "top", "--once", "--interval", "100ms")
	for _, want := range []string{"serving", "new 0/s", "\nlistener ", "\npool ", "10.0.0.13:6379  unhealthy",
		"connect: connection refused"} {
		if code != exitDone || stderr != "" || !strings.Contains(stdout, want) {
			t.Errorf("exit code %d, %s, no %q in\n%s", code, stderr, want, stdout)
		}
	}
	_, stdout, _ = command(t, "top", "--once", "--interval", "100ms", "--output", "json")
	var s struct {
		Interval  float64  `json:"interval_seconds"`
		Rates     topRates `json:"rates"`
		Listeners []struct{ Name string }
		Backends  []struct {
			Name, Address string
			Rates         *topRates
		}
	}
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || s.Interval < 0.1 || len(s.Listeners) == 0 ||
		len(s.Backends) != 3 || s.Backends[0].Rates == nil || s.Backends[0].Address != "10.0.0.11:6379" {
		t.Errorf("%v\n%s", err, stdout)
	}
}

func TestTopUsage(t *testing.T) {
	startFake(t)
	for args, want := range map[string]string{
		"top":                               "needs --once",
		"top --output json":                 "needs --once",
		"top --once --interval 1ms":         "--interval 1ms: needs 100ms or more",
		"top --once --pool redis":           "needs no --pool",
		"top --once --interval x":           "needs a time with a unit",
		"top --color sometimes":             "needs auto, always or never",
		"top --once --interval 100ms redis": "unknown command or argument",
	} {
		code, stdout, stderr := command(t, strings.Fields(args)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

// A topUser plays with a model of top without a terminal.
type topUser struct {
	*testing.T
	*topModel
}

func newTopUser(t *testing.T, width, height int) topUser {
	t.Helper()
	client, err := admin.NewClient(admin.ClientOptions{Address: startFake(t).address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	m := newTopModel(t.Context(), &remote{client: client, timeout: time.Minute}, time.Second, "")
	start := time.Now()
	m.take(sampleAt(start, 1, 100, 1000), nil)
	m.take(sampleAt(start.Add(time.Second), 1, 150, 2000), nil)
	m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	return topUser{t, m}
}

// press presses keys, runs what they start, and returns the screen.
func (u topUser) press(keys ...string) string {
	u.Helper()
	codes := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "down": tea.KeyDown,
		"up": tea.KeyUp, "end": tea.KeyEnd, "backspace": tea.KeyBackspace}
	for _, key := range keys {
		k := tea.KeyPressMsg{Code: codes[key]}
		if k.Code == 0 {
			k = tea.KeyPressMsg{Code: []rune(key)[0], Text: key}
		}
		if _, do := u.Update(k); do != nil {
			u.Update(do())
		}
	}
	return u.screen()
}

// screen returns the screen, and checks that it has the size of the terminal.
func (u topUser) screen() string {
	u.Helper()
	text := u.View().Content
	lines := strings.Split(text, "\n")
	if len(lines) != u.height {
		u.Errorf("%d lines on a screen of %d:\n%s", len(lines), u.height, text)
	}
	for _, line := range lines {
		if n := ansi.StringWidth(line); n > u.width {
			u.Errorf("a line is %d wide on a screen of %d: %s", n, u.width, line)
		}
		if plain := ansi.Strip(line); plain != clean(plain) {
			u.Errorf("control characters in %q", line)
		}
	}
	return ansi.Strip(text)
}

func (u topUser) want(screen string, texts ...string) {
	u.Helper()
	for _, text := range texts {
		without, absent := strings.CutPrefix(text, "!")
		if strings.Contains(screen, without) == absent {
			u.Errorf("%q in\n%s", text, screen)
		}
	}
}

func TestTopKeys(t *testing.T) {
	u := newTopUser(t, 80, 24)
	u.want(u.screen(), "1.2.3  serving", "sessions 7/1000  new 50/s  in 1000 B/s",
		"main      tcp       127.0.0.1:6379", "2 pools",
		"> redis", "2/3")
	u.want(u.press("enter"), "3 backends of pool redis", "> b1", "reason: connect: connection", "m mode")
	u.want(u.press("down"), "> b2", "b2 (10.0.0.12:6379): healthy")
	u.want(u.press("s"), "by sessions")
	u.want(u.press("s", "s", "s", "s"), "by state", "> b2")
	if screen := u.screen(); strings.Index(screen, "b3") > strings.Index(screen, "b1") {
		t.Errorf("the unhealthy one is not the first:\n%s", screen)
	}
	u.want(u.press("r"), "by state, backwards")
	u.want(u.press("/", "R", "E", "F"), "filter: REF_", "1 backend of pool redis", "b3", "!b1 ")
	u.want(u.press("backspace", "enter"), `filter "RE"`, "!filter:")
	u.want(u.press("/", "x", "y", "enter"), "0 backends of pool redis")
	u.want(u.press("esc"), "3 backends of pool redis", `!filter "`)
	u.want(u.press("esc"), "2 pools", "> redis")
	u.want(u.press("tab"), "3 backends,", "pool")
	u.want(u.press("tab"), "1 listener,", "> main")
	u.want(u.press("?"), "Any key goes back", "maintenance")
	u.want(u.press("q"), "1 listener")
	if _, quit := u.Update(tea.KeyPressMsg{Code: 'q', Text: "q"}); quit == nil {
		t.Error("q does not end it")
	}
	u.press("?")
	if _, quit := u.Update(tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}); quit == nil {
		t.Error("Ctrl-C does not end it")
	}
}

// TestTopChanges: a change needs a confirmation, and its result is shown.
func TestTopChanges(t *testing.T) {
	u := newTopUser(t, 100, 24)
	u.want(u.press("m"), "choose a backend first")
	u.want(u.press("enter", "down", "m"), "b2 of pool redis is in mode ready: d drain, m maintenance, Esc cancels")
	u.want(u.press("r"), "in mode ready") // it is
	u.want(u.press("d"), "b2 of pool redis, with 2 sessions: mode drain instead of ready? y or n")
	u.want(u.press("n"), "! instead of", "!mode drain")
	u.want(u.press("m", "m", "x", "y"), "b2 of pool redis: weight 2, mode maintenance")
	u.want(u.press("w", "2", "5", "7", "enter"), "needs a number of 0 to 256")
	u.want(u.press("backspace", "enter"), "weight 25 instead of 3? y or n")
	u.want(u.press("esc"), "!instead")
	u.want(u.press("w", "3", "enter"), "that is its weight now")
	u.press("esc")
	u.shot.Fleet = &admin.FleetSummary{Name: "edge", Node: "a", Connected: true, Nodes: 2, Ready: 2}
	u.want(u.press("m", "d"), "b2 of pool redis, with 2 sessions here: mode drain instead of", " on all nodes? y or n")
	u.press("n")
	u.shot.Fleet = nil
	refusing(t, &admin.Problem{Type: "/problems/x", Status: http.StatusForbidden, Detail: "not \x1b[2Jallowed"})
	client, err := admin.NewClient(admin.ClientOptions{Address: os.Getenv(adminVariable)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	u.remote.client = client
	u.want(u.press("w", "9", "enter", "y"), `not \x1b[2Jallowed`)
}

// TestTopLost: a daemon that does not answer is shown with its last state, until it answers again.
func TestTopLost(t *testing.T) {
	u := newTopUser(t, 80, 24)
	for range 2 {
		u.take(topSample{}, fmt.Errorf("%w: there is no socket \x1b[2Jx", admin.ErrUnreachable))
		u.want(u.screen(), "not reachable since ", "trying again: there is no socket", "> redis")
	}
	u.take(sampleAt(time.Now(), 2, 1, 1), nil)
	u.want(u.screen(), "!not reachable", "pid 2")
}

// TestTopSizes: whatever the size of the terminal, the screen has it, and the selected row is in sight.
func TestTopSizes(t *testing.T) {
	u := newTopUser(t, 80, 24)
	big := sampleAt(time.Now(), 1, 1, 1)
	for i := range 200 {
		b := big.backends[i%3]
		b.Name = fmt.Sprintf("backend-number-%03d.example", i)
		big.backends = append(big.backends, b)
		big.status.Listeners = append(big.status.Listeners, admin.Listener{Name: fmt.Sprint("l", i), Protocol: "tcp"})
	}
	u.take(big, nil)
	u.want(u.screen(), "201 in all: Tab shows them", "> redis")
	u.press("enter")
	for _, size := range [][2]int{{80, 24}, {200, 60}, {40, 10}, {20, 8}, {19, 8}, {80, 7}, {1, 1}, {0, 0}, {30, 100}} {
		u.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		if size[0] < leastWidth || size[1] < leastHeight {
			if size[1] > 0 {
				u.screen()
			}
			continue
		}
		if end, up := u.press("end"), u.press("up"); size[1] > leastHeight { // else it shows a part of the row
			u.want(end, "199")
			u.want(up, "198")
		}
		for _, key := range []string{"?", "x", "m", "esc", "/", "esc", "tab", "tab", "tab"} {
			u.press(key)
		}
		u.press("enter")
	}
}

func TestTopOrders(t *testing.T) {
	s := new(topHistory).measured(sampleAt(time.Now(), 1, 1, 1))
	names := func(order topOrder) (names []string) {
		for _, b := range arrange(s.Backends, order.backends, false, "", func(topBackend) string { return "" }) {
			names = append(names, b.Name)
		}
		return names
	}
	want := map[string][]string{"configuration": {"b1", "b2", "b3"}, "sessions": {"b1", "b2", "b3"},
		"new": {"b1", "b2", "b3"}, "in": {"b1", "b2", "b3"}, "out": {"b1", "b2", "b3"}, "state": {"b3", "b1", "b2"},
		"name": {"b1", "b2", "b3"}}
	for _, order := range topOrders() {
		if got := names(order); !slices.Equal(got, want[order.name]) {
			t.Errorf("%s: %q, want %q", order.name, got, want[order.name])
		}
	}
}
