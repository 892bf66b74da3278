package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ Pool = (*pool.Pool)(nil)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// backends makes specs as DNS does, of "IP:PORT".
func backends(addrs ...string) []pool.Spec {
	var specs []pool.Spec
	for _, a := range addrs {
		specs = append(specs, pool.Spec{ID: a, Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1})
	}
	return specs
}

// inShort writes specs as "ID weight tier", and those as DNS makes them as "ID" alone.
func inShort(specs []pool.Spec) string {
	var words []string
	for _, s := range specs {
		word := s.ID
		if s.Weight != 1 || s.Tier != 0 {
			word = fmt.Sprintf("%s w%d t%d", s.ID, s.Weight, s.Tier)
		}
		if s != (pool.Spec{ID: s.Addr.String(), Addr: s.Addr, Weight: s.Weight, Tier: s.Tier}) {
			word = fmt.Sprintf("%+v", s)
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// wantFound fails unless a Find was good and has these backends in the form of inShort.
func wantFound(t testing.TB, f Found, err error, ttl time.Duration, want ...string) {
	t.Helper()
	if got := inShort(f.Backends); err != nil || got != strings.Join(want, ", ") || f.TTL != ttl {
		t.Errorf("found %s for %v, error %v; want %s for %v", got, f.TTL, err, strings.Join(want, ", "), ttl)
	}
}

// wantFailure fails unless a Find failed in this way.
func wantFailure(t testing.TB, f Found, err, kind error, text string) {
	t.Helper()
	if !errors.Is(err, kind) || err.Error() != text || f.Backends != nil {
		t.Errorf("error %q and backends %v; want %q, a kind of %q", err, f.Backends, text, kind)
	}
	if e, ok := errors.AsType[*LookupError](err); ok && e.Kind != kind {
		t.Errorf("the error is of kind %v, want %v", e.Kind, kind)
	}
}

// A fakePool records its calls. Its backends are those of one source.
type fakePool struct {
	refuse func(specs []pool.Spec) error // nil: nothing

	mu sync.Mutex
	// mu guards the fields below
	static    map[string]bool // ids that it has from elsewhere
	specs     []pool.Spec
	reconcile int // calls
	lines     []string
}

// Reconcile implements Pool.
func (p *fakePool) Reconcile(source string, specs []pool.Spec, _ ...pool.Judgement) (r pool.Reconciled, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reconcile++
	if p.refuse != nil {
		if err := p.refuse(specs); err != nil {
			return r, err
		}
	}
	specs = slices.Clone(specs)
	specs = slices.DeleteFunc(specs, func(s pool.Spec) bool {
		if p.static[s.ID] {
			r.Ignored++
		}
		return p.static[s.ID]
	})
	find := func(in []pool.Spec, id string) *pool.Spec {
		i := slices.IndexFunc(in, func(s pool.Spec) bool { return s.ID == id })
		if i < 0 {
			return nil
		}
		return &in[i]
	}
	for _, s := range specs {
		switch old := find(p.specs, s.ID); {
		case old == nil:
			r.Added++
		case *old != s:
			r.Changed++
		}
	}
	for _, s := range p.specs {
		if find(specs, s.ID) == nil {
			r.Removed++
		}
	}
	p.specs = specs
	return r, nil
}

// NoteDiscovery implements Pool.
func (p *fakePool) NoteDiscovery(source string, found int, changed pool.Reconciled, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := fmt.Sprintf("%s: %d found, +%d -%d ~%d, %d ignored", source, found, changed.Added, changed.Removed,
		changed.Changed, changed.Ignored)
	if err != nil {
		line = fmt.Sprintf("%s: -%d, %v", source, changed.Removed, err)
	}
	p.lines = append(p.lines, line)
}

// take returns what was noted since the last call.
func (p *fakePool) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	lines := p.lines
	p.lines = nil
	return lines
}

// now returns the backends in the form of inShort.
func (p *fakePool) now() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return inShort(p.specs)
}

func (p *fakePool) reconciles() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reconcile
}

// eventually waits until the pool's backends are these.
func (p *fakePool) eventually(t testing.TB, want ...string) {
	t.Helper()
	harness.Eventually(t, "the pool follows its source", func() error {
		if got := p.now(); got != strings.Join(want, ", ") {
			return fmt.Errorf("it has %s, want %s", got, strings.Join(want, ", "))
		}
		return nil
	})
}

// eventuallyReported waits until the last report has this prefix, and returns all reports since the last call. With
// sockets and files, a slow machine may see other states in between.
func (p *fakePool) eventuallyReported(t testing.TB, last string) []string {
	t.Helper()
	var lines []string
	harness.Eventually(t, "the pool gets a report", func() error {
		lines = append(lines, p.take()...)
		if len(lines) == 0 || !strings.HasPrefix(lines[len(lines)-1], last) {
			return fmt.Errorf("it got %q", lines)
		}
		return nil
	})
	return lines
}

// run runs r in the background; the returned function ends it and waits for that.
func run(t testing.TB, r *Runner) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}
