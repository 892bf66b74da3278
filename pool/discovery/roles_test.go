package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limeload/limeload-l4/pool"
)

// A roleSource is a source that gives these answers in turn, and then the last one.
type roleSource struct{ answers []Found }

var errAway = errors.New("away")

func (a *roleSource) Find(context.Context) (Found, error) {
	f := a.answers[0]
	if len(a.answers) > 1 {
		a.answers = a.answers[1:]
	}
	if f.Backends == nil {
		return Found{}, errAway
	}
	return f, nil
}

// withRoles returns two backends of which the first is the primary.
func withRoles() []pool.Spec {
	specs := backends("10.0.0.1:1", "10.0.0.2:1")
	specs[0].Role, specs[1].Role = pool.RolePrimary, pool.RoleReplica
	return specs
}

func (p *fakePool) roles() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var roles []string
	for _, s := range p.specs {
		roles = append(roles, s.Role.String())
	}
	return fmt.Sprint(roles)
}

// TestRolesWithoutSource: while the source gives no answer, its backends stay and have no roles.
func TestRolesWithoutSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakePool{}
		source := &roleSource{answers: []Found{{Backends: withRoles()}, {}, {}, {Backends: withRoles()}}}
		stop := run(t, New(Options{Name: "patroni", Source: source, Pool: p, Random: func() float64 { return 0 }}))
		defer stop()
		for i, want := range []string{"[primary replica]", "[unknown unknown]", "[unknown unknown]", "[primary replica]"} {
			synctest.Wait()
			if got := p.roles(); got != want {
				t.Errorf("after attempt %d the roles are %s, want %s", i+1, got, want)
			}
			time.Sleep([]time.Duration{defaultRefresh, firstRetry, 2 * firstRetry, 0}[i])
		}
		want := []string{"patroni: 2 found, +2 -0 ~0, 0 ignored", "patroni: -0, away",
			"patroni: 2 found, +0 -0 ~2, 0 ignored"}
		if got := p.take(); !slices.Equal(got, want) {
			t.Errorf("reports %q, want %q", got, want)
		}
	})
}

// TestRolesOfEarlierRunner: a runner that follows another one and never has an answer takes the roles back, too.
func TestRolesOfEarlierRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakePool{specs: withRoles()}
		stop := run(t, New(Options{Name: "patroni", Source: &roleSource{answers: []Found{{}}}, Pool: p,
			Known: withRoles()}))
		defer stop()
		synctest.Wait()
		if got := p.roles(); got != "[unknown unknown]" {
			t.Errorf("the roles are %s", got)
		}
	})
}

// TestUnusableIsReported: what is of no use in an answer is reported once, and again when it changes.
func TestUnusableIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakePool{}
		some := func(text string) Found { return Found{Backends: backends("10.0.0.1:1"), Unusable: errors.New(text)} }
		source := &roleSource{answers: []Found{some("a"), some("a"), some("b"), {Backends: backends("10.0.0.1:1")}}}
		stop := run(t, New(Options{Name: "patroni", Source: source, Pool: p, Random: func() float64 { return 0 }}))
		defer stop()
		for range 5 {
			synctest.Wait()
			time.Sleep(defaultRefresh)
		}
		want := []string{"patroni: -0, a", "patroni: -0, b", "patroni: 1 found, +0 -0 ~0, 0 ignored"}
		if got := p.take(); !slices.Equal(got, want) || p.now() != "10.0.0.1:1" {
			t.Errorf("reports %q, want %q; the pool has %s", got, want, p.now())
		}
	})
}
