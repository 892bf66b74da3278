package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// servers is a fake checker of targets that each have a password, which a test changes. A target without a password
// does not answer. The checks use the password shown, which is "old" at first.
type servers struct {
	mu        sync.Mutex
	passwords map[string]string
	shown     string
}

func (s *servers) set(password string, ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.passwords[id] = password
	}
}

func (s *servers) show(password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown = password
}

func (s *servers) Check(_ context.Context, t Target) (Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.passwords[t.ID] {
	case "":
		return Result{}, errors.New("no answer")
	case s.shown:
		return Result{}, nil
	}
	return Result{}, errRefused
}

// A vault is a scheduler with Credentials for servers, and records what they report.
type vault struct {
	*servers
	scheduler   *Scheduler
	credentials *Credentials

	mu       sync.Mutex
	verdicts map[string]Verdict
	changes  int
	refusals []Refusal
}

// newVault starts a vault whose servers all take the password of the checks. The function that it returns ends it.
func newVault(t *testing.T, p Policy, random func() float64, ids ...string) (*vault, func()) {
	v := &vault{servers: &servers{passwords: make(map[string]string), shown: "old"}, verdicts: make(map[string]Verdict)}
	v.scheduler = NewScheduler(Options{Random: random, Report: func(changes []Change) {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, c := range changes {
			v.verdicts[c.Target.ID] = c.To
			v.changes++
		}
	}})
	v.credentials = NewCredentials(v.scheduler, func(r Refusal) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.refusals = append(v.refusals, r)
	})
	v.set("old", ids...)
	for _, id := range ids {
		must(t, v.scheduler.Add(target(id), v.credentials.Wrap(v.servers), p))
	}
	return v, run(t, v.scheduler)
}

// want fails the test unless there were so many changes of verdicts and so many reports of refusals, and these
// verdicts.
func (v *vault) want(t *testing.T, what string, changes, refusals int, verdicts map[string]Verdict) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, want := range verdicts {
		if v.verdicts[id] != want {
			t.Errorf("%s: %s is %v, want %v", what, id, v.verdicts[id], want)
		}
	}
	if v.changes != changes || len(v.refusals) != refusals {
		t.Errorf("%s: %d changes and %d refusals (%+v), want %d and %d", what, v.changes, len(v.refusals), v.refusals,
			changes, refusals)
	}
}

// TestCredentialsOfAll changes the password of every server. No verdict changes, however long that lasts, and there is
// one report. A server that does not answer becomes unhealthy as usual.
func TestCredentialsOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, stop := newVault(t, usual, nil, "a", "b", "c")
		defer stop()
		later(20 * time.Second)
		v.want(t, "at first", 3, 0, map[string]Verdict{"a": Healthy, "b": Healthy, "c": Healthy})
		v.set("new", "a", "b", "c")
		later(time.Hour)
		v.want(t, "an hour later", 3, 1, map[string]Verdict{"a": Healthy, "b": Healthy, "c": Healthy})
		if r := v.refusals[0]; r.Ended || r.Target.ID == "" || r.Reason != "authentication refused" ||
			!v.credentials.Refused() {
			t.Errorf("reported %+v", r)
		}
		if s := v.scheduler.Stats().Targets["a"]; s.Last.Outcome != Refused ||
			s.Last.Detail != "authentication refused" {
			t.Errorf("the last check is %+v", s.Last)
		}
		v.set("", "c")
		later(time.Minute)
		v.want(t, "without c", 4, 1, map[string]Verdict{"a": Healthy, "b": Healthy, "c": Unhealthy})
		v.set("new", "c")
		later(time.Minute)
		v.want(t, "with c back", 4, 1, map[string]Verdict{"c": Unhealthy})

		v.credentials.Renew() // the operator has corrected the file
		v.show("new")
		later(time.Minute)
		v.want(t, "with the new password", 5, 2, map[string]Verdict{"a": Healthy, "b": Healthy, "c": Healthy})
		if !v.refusals[1].Ended || v.credentials.Refused() {
			t.Errorf("reported %+v at the end", v.refusals[1])
		}
	})
}

// TestCredentialsOfOne changes the password of one server, then of the second and of the last one. Servers that refuse
// a password that others take become unhealthy. Only the verdict on the last one stands.
func TestCredentialsOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, stop := newVault(t, usual, nil, "a", "b", "c")
		defer stop()
		later(20 * time.Second)
		v.set("new", "a")
		later(time.Duration(usual.Fall+1)*usual.Interval + usual.Timeout)
		v.want(t, "a changed", 4, 0, map[string]Verdict{"a": Unhealthy, "b": Healthy, "c": Healthy})
		v.set("new", "b")
		later(time.Minute)
		v.want(t, "b changed", 5, 0, map[string]Verdict{"a": Unhealthy, "b": Unhealthy, "c": Healthy})
		v.set("new", "c")
		later(time.Minute)
		v.want(t, "c changed", 5, 1, map[string]Verdict{"a": Unhealthy, "b": Unhealthy, "c": Healthy})
		v.set("old", "a", "b", "c")
		later(time.Minute)
		v.want(t, "changed back", 7, 2, map[string]Verdict{"a": Healthy, "b": Healthy, "c": Healthy})
	})
}

// TestCredentialsAtAnyMoment changes all passwords at a random moment, with random jitter and fast intervals. A server
// must not become unhealthy because it is checked three times before another server is checked at all.
func TestCredentialsAtAnyMoment(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			p := usual
			p.Jitter, p.Fall = 0.5, 1+r.IntN(3)
			p.FastInterval = time.Duration(1+r.IntN(20)) * 100 * time.Millisecond
			moment := 20*time.Second + time.Duration(r.IntN(int(4*time.Second)))
			v, stop := newVault(t, p, r.Float64, "a", "b", "c", "d") // which has r from here on
			defer stop()
			later(moment)
			v.want(t, fmt.Sprintf("seed %d, at first", seed), 4, 0, nil)
			v.set("new", "a", "b", "c", "d")
			later(time.Minute)
			v.want(t, fmt.Sprintf("seed %d, changed", seed), 4, 1, nil)
		})
	}
}

// TestCredentialsFromTheStart begins with wrong credentials: all verdicts stay unknown.
func TestCredentialsFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, stop := newVault(t, usual, nil, "a", "b")
		defer stop()
		v.show("wrong")
		later(time.Minute)
		v.want(t, "at first", 0, 1, nil)
		v.credentials.Renew()
		v.show("old")
		later(time.Minute)
		v.want(t, "corrected", 2, 2, map[string]Verdict{"a": Healthy, "b": Healthy})
	})
}

// TestCredentialsForgetTheRemoved removes the only server that takes the password. Nothing is kept of servers that were
// removed.
func TestCredentialsForgetTheRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, stop := newVault(t, usual, nil, "a", "b")
		defer stop()
		later(20 * time.Second)
		remove := func(id string) {
			v.scheduler.Remove(id)
			v.credentials.Forget(id)
		}
		remove("b")
		v.set("new", "a")
		later(time.Minute)
		v.want(t, "alone", 2, 1, map[string]Verdict{"a": Healthy})
		remove("a")
		_, err := v.credentials.Wrap(v.servers).Check(t.Context(), target("a"))
		wantError(t, err, "authentication refused", ErrCredentials)
		if n := len(v.credentials.answers); n != 0 {
			t.Errorf("%d answers of targets that are gone", n)
		}
	})
}

// TestCredentialsBehindAFence changes the passwords of a primary and a replica: the primary stays the primary, and the
// replica keeps its verdict.
func TestCredentialsBehindAFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		refuses := false
		verdicts := make(map[string]Verdict)
		s := NewScheduler(Options{Report: func(changes []Change) {
			for _, c := range changes {
				verdicts[c.Target.ID] = c.To
			}
		}})
		credentials := NewCredentials(s, func(Refusal) {})
		fence := NewFence(s, func(Rivalry) {})
		checker := fence.Wrap(credentials.Wrap(checkerFunc(func(_ context.Context, to Target) (Result, error) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case refuses:
				return Result{}, errRefused
			case to.ID == "a":
				return primaryOf(1), nil
			}
			return Result{Role: RoleReplica}, errReplica
		})))
		must(t, s.Add(target("a"), checker, usual))
		must(t, s.Add(target("b"), checker, usual))
		defer run(t, s)()
		later(20 * time.Second)
		mu.Lock()
		refuses = true
		mu.Unlock()
		later(time.Hour)
		if verdicts["a"] != Healthy || verdicts["b"] != WrongRole || fence.Primary() != "a" {
			t.Errorf("the verdicts are %v, and the primary is %q", verdicts, fence.Primary())
		}
	})
}

func TestTryLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &servers{passwords: make(map[string]string), shown: "old"}
		var all []Target
		for i := range 100 {
			all = append(all, target(fmt.Sprint(i)))
		}
		try := func(what, refusedBy string) {
			t.Helper()
			at, err := TryLogin(t.Context(), s, all, time.Second)
			if at.ID != refusedBy || errors.Is(err, ErrCredentials) != (refusedBy != "") {
				t.Errorf("%s: %q, %v; want %q", what, at.ID, err, refusedBy)
			}
		}
		try("nobody answers", "")
		s.set("new", "70", "80")
		try("two refuse, and the others do not answer", "70")
		s.set("old", "90")
		try("one takes it", "")
		if _, err := TryLogin(t.Context(), s, nil, time.Second); err != nil {
			t.Errorf("no targets: %v", err)
		}
		hangs := checkerFunc(func(ctx context.Context, _ Target) (Result, error) {
			<-ctx.Done()
			return Result{}, ctx.Err()
		})
		began := time.Now()
		if _, err := TryLogin(t.Context(), hangs, all[:maxTrials], time.Second); err != nil ||
			time.Since(began) != time.Second {
			t.Errorf("they hang: %v after %v", err, time.Since(began))
		}
	})
}
