package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// usual is a policy without jitter.
var usual = Policy{
	Interval: 2 * time.Second, FastInterval: 500 * time.Millisecond, Timeout: time.Second,
	Rise: 2, Fall: 3,
}

// The errors of fake checks.
var (
	errSick    = errors.New("sick")
	errRefused = &fakeError{"authentication refused", ErrCredentials}
	errReplica = &fakeError{"is a replica, wanted a primary", ErrWrongRole}
)

// A fakeError is an error whose text is its words alone, like the errors of package probe.
type fakeError struct {
	words string
	cause error
}

// Error returns the words.
func (e *fakeError) Error() string { return e.words }

// Unwrap returns the cause.
func (e *fakeError) Unwrap() error { return e.cause }

// target returns a target that no test connects to.
func target(id string) Target {
	return Target{ID: id, Addr: netip.MustParseAddrPort("127.0.0.1:1")}
}

// A fake is a Checker that does what its function says and remembers when it was called.
type fake struct {
	do func(ctx context.Context, n int) error // n counts the checks of one target from 0

	mu sync.Mutex
	// mu guards the fields below
	starts  map[string][]time.Time
	running map[string]bool
	most    int // checks that ran at once
	twice   bool
}

func newFake(do func(ctx context.Context, n int) error) *fake {
	return &fake{do: do, starts: make(map[string][]time.Time), running: make(map[string]bool)}
}

// A checkerFunc is a Checker that is a function.
type checkerFunc func(ctx context.Context, t Target) (Result, error)

// Check implements Checker.
func (f checkerFunc) Check(ctx context.Context, t Target) (Result, error) { return f(ctx, t) }

// succeed is a check that finds nothing wrong.
func succeed(context.Context, int) error { return nil }

// Check implements Checker.
func (f *fake) Check(ctx context.Context, t Target) (Result, error) {
	f.mu.Lock()
	n := len(f.starts[t.ID])
	f.starts[t.ID] = append(f.starts[t.ID], time.Now())
	f.twice = f.twice || f.running[t.ID]
	f.running[t.ID] = true
	f.most = max(f.most, len(f.running))
	f.mu.Unlock()

	err := f.do(ctx, n)

	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.running, t.ID)
	return Result{}, err
}

// of returns when the checks of a target began, as times after since.
func (f *fake) of(id string, since time.Time) []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	var after []time.Duration
	for _, s := range f.starts[id] {
		after = append(after, s.Sub(since))
	}
	return after
}

// A journal remembers what was reported.
type journal struct {
	mu sync.Mutex
	// mu guards the fields below
	changes []Change
}

func (j *journal) report(changes []Change) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.changes = append(j.changes, changes...)
}

// take returns what was reported since the last call, as "id: from to (reason) at". The time is relative to since.
func (j *journal) take(since time.Time) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var lines []string
	for _, c := range j.changes {
		lines = append(lines,
			fmt.Sprintf("%s: %v to %v (%s) at %v", c.Target.ID, c.From, c.To, c.Reason, c.At.Sub(since)))
	}
	j.changes = nil
	return lines
}

// run runs s in the background; the returned function ends it and waits for that.
func run(t *testing.T, s *Scheduler) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// later waits for d, and until all that is due by then has happened.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("reports are %q, want %q", got, want)
	}
}

// wantError fails the test unless err says exactly that and wraps cause.
func wantError(t *testing.T, err error, words string, cause error) {
	t.Helper()
	if err == nil || err.Error() != words || !errors.Is(err, cause) {
		t.Errorf("error %v, want %q wrapping %v", err, words, cause)
	}
}

func seconds(s ...float64) []time.Duration {
	var ds []time.Duration
	for _, x := range s {
		ds = append(ds, time.Duration(x*float64(time.Second)))
	}
	return ds
}
