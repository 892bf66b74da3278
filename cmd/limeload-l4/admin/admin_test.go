package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/limeload/limeload-l4/pool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fake is a daemon with a pool "redis" of two backends, one of which has the name of an IPv6 address with a zone, and
// a pool "empty". Its listener "redis" has no DNS cache, and "names" has one. Its empty lists are nil, which the server
// must send as [].
type fake struct {
	mu       sync.Mutex
	backends []Backend
	sessions []Session
	level    string
	changes  []string        // all calls that changed something
	filters  []SessionFilter // of all calls for sessions
	plans    []*Configuration
	rules    []AccessRule
	queries  []ClientQuery // of all calls for clients
	origins  []Origin      // of all changes of backends and rules
	hasFleet bool
	fail     error // returned by every call that can fail
	notReady error
	dead     error
	reload   func(ctx context.Context) (Reloaded, error)

	readers map[chan Event]bool
	began   chan struct{} // gets an element when a reader begins
	stopped chan struct{} // gets an element when a reader stops
}

const awkward = "[fe80::1%eth0]:6379"

func newFake() *fake {
	return &fake{
		backends: []Backend{
			{Pool: "redis", Name: "b1", Address: "192.0.2.1:6379", Weight: 1, Mode: "ready", Verdict: "healthy",
				Breaker: "closed"},
			{Pool: "redis", Name: awkward, Address: awkward, Weight: 2, Mode: "ready", Verdict: "unknown",
				Breaker: "closed"},
		},
		sessions: []Session{
			{ID: "01", Listener: "redis", Client: "198.51.100.7:40000", Pool: "redis", Backend: "b1",
				Phase: "relaying"},
			{ID: "02", Listener: "redis", Client: "198.51.100.8:40000", Pool: "redis", Backend: "b1",
				Phase: "relaying"},
		},
		level: "info",
		rules: []AccessRule{
			{Prefix: "198.51.100.0/24", Action: "deny", Added: fakeTime(), Comment: "scans <us>"},
			{Prefix: "198.51.100.7/32", Action: "allow", Listener: "old", Gone: true, Added: fakeTime()},
		},
		readers: make(map[chan Event]bool),
		began:   make(chan struct{}, 1000),
		stopped: make(chan struct{}, 1000),
	}
}

func (f *fake) changed(format string, args ...any) {
	f.changes = append(f.changes, fmt.Sprintf(format, args...))
}

// done returns the calls that changed something.
func (f *fake) done() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.changes)
}

func (f *fake) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Status{Version: "1", PID: 42, Config: "/etc/limeload/lb.toml", State: "serving", LogLevel: f.level}
}

func (f *fake) Listeners() []Listener {
	return []Listener{
		{Name: "redis", Protocol: "tcp", Address: "127.0.0.1:6379", Pool: "redis"},
		{Name: "names", Protocol: "udp", Address: "127.0.0.1:53", Pool: "empty",
			DNS: &DNS{InFlight: 2, Asked: 7, Cache: &DNSCache{Hit: 90, Entries: 5}}},
	}
}

func (f *fake) Pools() []Pool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []Pool{{Name: "redis", Algorithm: "least_conn", Backends: len(f.backends)},
		{Name: "empty", Algorithm: "random"}}
}

func (f *fake) Backends(name string) ([]Backend, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.checkPool(name); name != "" && err != nil {
		return nil, err
	}
	var found []Backend
	for _, b := range f.backends {
		if name == "" || b.Pool == name {
			found = append(found, b)
		}
	}
	return found, f.fail
}

func (f *fake) Pool(name string) (Pool, error) {
	for _, p := range f.Pools() {
		if p.Name == name {
			return p, nil
		}
	}
	return Pool{}, fmt.Errorf("pool %q: %w", name, ErrUnknownPool)
}

func (f *fake) Backend(poolName, name string) (Backend, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.find(poolName, name)
	if err != nil {
		return Backend{}, err
	}
	return f.backends[i], nil
}

func (f *fake) checkPool(name string) error {
	if f.fail != nil {
		return f.fail
	}
	if name != "redis" && name != "empty" {
		return fmt.Errorf("pool %q: %w", name, ErrUnknownPool)
	}
	return nil
}

// find returns the index of a backend.
func (f *fake) find(poolName, name string) (int, error) {
	if err := f.checkPool(poolName); err != nil {
		return 0, err
	}
	i := slices.IndexFunc(f.backends, func(b Backend) bool { return b.Pool == poolName && b.Name == name })
	if i < 0 {
		return 0, fmt.Errorf("backend %q: %w", name, pool.ErrUnknownBackend)
	}
	return i, nil
}

func (f *fake) AddBackend(poolName string, n NewBackend) (Backend, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n.Name == "" {
		n.Name = n.Address
	}
	if err := f.checkPool(poolName); err != nil {
		return Backend{}, err
	}
	if _, err := netip.ParseAddrPort(n.Address); err != nil {
		return Backend{}, &pool.InvalidBackendError{Field: "addr", Value: n.Address, Want: "an IP address and a port"}
	}
	if _, err := f.find(poolName, n.Name); err == nil {
		return Backend{}, fmt.Errorf("backend %q: %w", n.Name, pool.ErrDuplicateBackend)
	}
	b := Backend{Pool: poolName, Name: n.Name, Address: n.Address, Source: "api", Weight: 1, Mode: "ready",
		Verdict: "unknown", Breaker: "closed"}
	if n.Weight != nil {
		b.Weight = *n.Weight
	}
	f.backends = append(f.backends, b) // without Sharing
	f.changed("add %s/%s", poolName, n.Name)
	b.Sharing = f.shared(Origin{By: n.By, Local: n.Local})
	return b, nil
}

func (f *fake) ChangeBackend(poolName, name string, c BackendChange) (Backend, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.find(poolName, name)
	if err != nil {
		return Backend{}, err
	}
	if c.Weight != nil {
		f.backends[i].Weight = *c.Weight
	}
	if c.MaxSessions != nil {
		f.backends[i].MaxSessions = *c.MaxSessions
	}
	if c.MaxRate != nil {
		f.backends[i].MaxRate = *c.MaxRate
	}
	if c.Mode != nil {
		f.backends[i].Mode = *c.Mode
	}
	f.changed("change %s/%s", poolName, name)
	answer := f.backends[i]
	answer.Sharing = f.shared(Origin{By: c.By, Local: c.Local})
	return answer, nil
}

func (f *fake) RemoveBackend(poolName, name string, from Origin) (*Sharing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.find(poolName, name)
	if err != nil {
		return nil, err
	}
	f.backends = slices.Delete(f.backends, i, i+1)
	f.changed("remove %s/%s", poolName, name)
	return f.shared(from), nil
}

// errorOf returns the error of a call.
func errorOf(_ *Sharing, err error) error { return err }

// shared returns what a fleet would say of a change; nil without one.
func (f *fake) shared(from Origin) *Sharing {
	f.origins = append(f.origins, from)
	switch {
	case !f.hasFleet:
		return nil
	case from.Local:
		return &Sharing{Why: "it is for this node alone"}
	}
	return &Sharing{Shared: true}
}

func (f *fake) FleetChanges() ([]FleetChange, error) {
	return []FleetChange{{At: fakeTime(), Node: "n1", By: "root", Pool: "redis", Backend: "b1", What: "weight", Value: "3",
		InForce: true}}, nil
}

func (f *fake) DrainBackend(poolName, name string, d Drain) (Backend, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.find(poolName, name)
	if err != nil {
		return Backend{}, err
	}
	f.backends[i].Mode = "drain"
	f.backends[i].Drain = &DrainProgress{Sessions: 2, Left: 2, Remove: d.Remove}
	f.changed("drain %s/%s in %gs", poolName, name, d.Deadline)
	answer := f.backends[i]
	answer.Sharing = f.shared(Origin{By: d.By, Local: d.Local})
	return answer, nil
}

func (f *fake) matching(s SessionFilter) []Session {
	f.filters = append(f.filters, s)
	return slices.DeleteFunc(slices.Clone(f.sessions), func(x Session) bool {
		prefix, err := netip.ParsePrefix(s.Client)
		inPrefix := err == nil && prefix.Contains(netip.MustParseAddrPort(x.Client).Addr())
		return s.ID != "" && s.ID != x.ID || s.Pool != "" && s.Pool != x.Pool ||
			s.Backend != "" && s.Backend != x.Backend ||
			s.Client != "" && !inPrefix && !strings.HasPrefix(x.Client, s.Client+":")
	})
}

func (f *fake) Sessions(_ context.Context, s SessionFilter) (SessionList, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := f.matching(s)
	return SessionList{Sessions: found, Total: len(found)}, f.fail
}

func (f *fake) EndSessions(_ context.Context, s SessionFilter) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return 0, f.fail
	}
	ended := f.matching(s)
	f.sessions = slices.DeleteFunc(f.sessions, func(x Session) bool { return slices.Contains(ended, x) })
	if len(ended) > 0 {
		f.changed("end %d", len(ended))
	}
	return len(ended), nil
}

func (f *fake) Explain(q ExplainQuery) (Explanation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.Listener != "" && q.Listener != "redis" {
		return Explanation{}, fmt.Errorf("listener %q: %w", q.Listener, ErrUnknownListener)
	}
	if err := f.checkPool(q.Pool); q.Pool != "" && err != nil {
		return Explanation{}, err
	}
	return Explanation{
		Listener: q.Listener, Pool: "redis", Client: q.Client, Algorithm: "least_conn", DecidedBy: "algorithm",
		Backend: "b1", Text: "b1 has the fewest sessions <for its weight>.",
	}, f.fail
}

func (f *fake) PurgeDNS(listener string, p DNSPurge) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.fail != nil:
		return 0, f.fail
	case listener == "redis":
		return 0, fmt.Errorf("listener %q: %w", listener, ErrNoDNSCache)
	case listener != "names":
		return 0, fmt.Errorf("listener %q: %w", listener, ErrUnknownListener)
	case strings.Contains(p.Name, ".."):
		return 0, &RequestError{Field: "name", Value: p.Name, Want: "a domain name"}
	}
	f.changed("purge %+v", p)
	return 3, nil
}

func (f *fake) Reload(ctx context.Context) (Reloaded, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return Reloaded{}, f.fail
	}
	f.changed("reload")
	if f.reload != nil {
		return f.reload(ctx)
	}
	return Reloaded{Took: 0.25, Plan: Plan{Config: "/etc/limeload/lb.toml", Same: true}}, nil
}

func (f *fake) Upgrade(_ context.Context, u Upgrade) (Upgraded, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return Upgraded{}, f.fail
	}
	f.changed("upgrade %+v", u)
	return Upgraded{
		OldPID: 100, NewPID: 200, OldVersion: "1.2", NewVersion: "1.3", Sessions: 500, Flows: 200, Took: 0.41,
	}, nil
}

func (f *fake) Plan(_ context.Context, c *Configuration) (Plan, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plans = append(f.plans, c)
	if c != nil && bytes.Contains(c.Text, []byte("broken")) {
		return Plan{}, &ConfigError{
			errors.New(c.Name + ":1: broken: there is no such key\n" + c.Name + ":2: pool.a: needs backends")}
	}
	return Plan{Config: "lb.toml"}, f.fail
}

func (f *fake) LogLevel() LogLevel {
	f.mu.Lock()
	defer f.mu.Unlock()
	return LogLevel{Level: f.level}
}

func (f *fake) SetLogLevel(level string, _ time.Duration, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.level = level
	f.changed("level %s", level)
	return nil
}

func (f *fake) Events() (<-chan Event, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan Event, 1000)
	f.readers[c] = true
	f.began <- struct{}{}
	return c, sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.readers[c] {
			delete(f.readers, c)
			close(c)
		}
		f.stopped <- struct{}{}
	})
}

// publish sends an event to every reader. No test has a reader with more than 1000 unread events.
func (f *fake) publish(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.readers {
		c <- e
	}
}

// endEvents closes the channels of all readers, as an ending daemon does.
func (f *fake) endEvents() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.readers {
		delete(f.readers, c)
		close(c)
	}
}

func (f *fake) Ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.notReady
}

func (f *fake) Live(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// A world is a server for a fake.
type world struct {
	fake   *fake
	server *Server
	log    *safeBuffer

	socket string // the path of its Unix socket
	tcp    string // its address on loopback
}

// start runs a server on a Unix socket and on loopback until the test ends. change may make its limits smaller.
func start(t testing.TB, token string, change ...func(*limits)) *world {
	t.Helper()
	l := defaultLimits()
	for _, f := range change {
		f(&l)
	}
	w := &world{fake: newFake(), log: &safeBuffer{}, socket: filepath.Join(t.TempDir(), "admin.sock")}
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		io.WriteString(w, "limeload_sessions 2\n")
	})
	w.server = newServer(Options{Balancer: w.fake, Metrics: metrics, Token: token, Log: zerolog.New(w.log)}, l)
	unix, err := ListenUnix(t.Context(), w.socket, 0o600)
	check(t, err)
	tcp, err := ListenTCP(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), token)
	check(t, err)
	w.tcp = tcp.Addr().String()
	w.serve(t, unix, tcp)
	return w
}

// serve serves listeners until the test ends.
func (w *world) serve(t testing.TB, listeners ...net.Listener) {
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Go(func() {
			if err := w.server.Serve(l); err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		if err := w.server.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		serving.Wait()
	})
}

// client makes a client over the Unix socket.
func (w *world) client(t testing.TB, token string) *Client {
	return newClient(t, "unix:"+w.socket, token)
}

func newClient(t testing.TB, address, token string) *Client {
	t.Helper()
	c, err := NewClient(ClientOptions{Address: address, Token: token})
	check(t, err)
	t.Cleanup(c.Close)
	return c
}

// A request is a request of a test.
type request struct {
	method, target string
	host           string
	header         map[string]string
	body           string
}

// overTCP sends a request to the server's address on loopback.
func (w *world) overTCP(t testing.TB, r request) answer {
	t.Helper()
	return w.send(t, &http.Transport{DisableKeepAlives: true}, r)
}

// An answer is the answer to a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request over the Unix socket.
func (w *world) do(t testing.TB, r request) answer {
	t.Helper()
	return w.send(t,
		&http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", w.socket)
		}}, r)
}

func (w *world) send(t testing.TB, transport *http.Transport, r request) answer {
	t.Helper()
	var body io.Reader
	if r.body != "" {
		body = strings.NewReader(r.body)
	}
	q, err := http.NewRequestWithContext(t.Context(), r.method, "http://"+w.tcp+r.target, body)
	check(t, err)
	if r.host != "" {
		q.Host = r.host
	}
	for name, value := range r.header {
		q.Header.Set(name, value)
	}
	response, err := transport.RoundTrip(q)
	check(t, err)
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	check(t, err)
	return answer{response.StatusCode, response.Header, string(got)}
}

// problem decodes an answer that must be an error, and checks what all errors have.
func (a answer) problem(t testing.TB) Problem {
	t.Helper()
	var p Problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("status %d, no problem but %q", a.status, a.body)
	}
	if got := a.header.Get("Content-Type"); got != mediaProblem {
		t.Errorf("the problem's Content-Type is %q", got)
	}
	if p.Status != a.status || p.Title == "" || p.Detail == "" {
		t.Errorf("status %d has the problem %+v", a.status, p)
	}
	if !slices.Contains(ProblemTypes(), ProblemType{p.Type, p.Title, p.Status}) {
		t.Errorf("%+v is no known type of problem", p)
	}
	return p
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A safeBuffer is a bytes.Buffer for several goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// receive waits for a value.
func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatal("it did not come within 30 s")
		panic("unreachable")
	}
}
