package discovery

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

// A patroniStore is an etcd with the keys of one cluster, as Patroni 3.0 writes them.
type patroniStore struct {
	*harness.Etcd
}

const patroniPrefix = "/service/main/"

func (s patroniStore) put(t testing.TB, key, value string) {
	s.Do(t, "put", "--", patroniPrefix+key, value)
}
func (s patroniStore) del(t testing.TB, key string) { s.Do(t, "del", patroniPrefix+key) }

// memberValue is the value of a member that runs at a port of 127.0.0.1.
func memberValue(port int, role string) string {
	return fmt.Sprintf(`{"conn_url":"postgres://127.0.0.1:%d/postgres","api_url":"http://127.0.0.1:8008/patroni",`+
		`"state":"running","role":%q,"version":"3.0.2","xlog_location":67108864,"timeline":1}`, port, role)
}

// fill writes a cluster of three members, n1 to n3, of which n1 is the leader.
func (s patroniStore) fill(t testing.TB) {
	s.put(t, "initialize", "7221")
	s.put(t, "config", `{"ttl":30,"loop_wait":10,"postgresql":{"use_pg_rewind":true}}`)
	s.put(t, "leader", "n1")
	s.put(t, "status", `{"optime":67108864}`)
	for i, role := range []string{"master", "replica", "replica"} {
		s.put(t, fmt.Sprintf("members/n%d", i+1), memberValue(5431+i, role))
	}
}

func startPatroniStore(t testing.TB) patroniStore {
	s := patroniStore{harness.StartEtcd(t)}
	s.fill(t)
	return s
}

// source returns a source that asks the store.
func (s patroniStore) source(more ...string) *Patroni {
	return NewPatroni(PatroniOptions{Endpoints: append([]string{s.Endpoint}, more...), Scope: "main",
		Namespace: "/service/"})
}

// inRoles writes backends as "ID PORT ROLE", and those of weight 0 with " idle".
func inRoles(specs []pool.Spec) string {
	var words []string
	for _, s := range specs {
		word := fmt.Sprintf("%s %d %s", s.ID, s.Addr.Port(), s.Role)
		if s.Weight == 0 {
			word += " idle"
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

func wantRoles(t testing.TB, p Source, want string) {
	t.Helper()
	found, err := p.Find(t.Context())
	if got := inRoles(found.Backends); err != nil || got != want || found.Unusable != nil {
		t.Errorf("found %q, unusable %v, error %v; want %q", got, found.Unusable, err, want)
	}
}

func TestPatroniFind(t *testing.T) {
	t.Parallel()
	s := startPatroniStore(t)
	p := s.source()
	wantRoles(t, p, "n1 5431 primary, n2 5432 replica, n3 5433 replica")
	s.put(t, "leader", "n2")
	wantRoles(t, p, "n1 5431 replica, n2 5432 primary, n3 5433 replica")
	s.del(t, "leader")
	wantRoles(t, p, "n1 5431 replica, n2 5432 replica, n3 5433 replica")
}

// TestPatroniHandsOver shows that a primary gets no new sessions from the moment in which it is asked to hand over.
func TestPatroniHandsOver(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{
		`{"leader":"n1","member":"n2"}`: true,
		`{"leader":"n1"}`:               true,
		`{"member":"n2"}`:               true,
		`{"leader":"n1","member":"n2","scheduled_at":"2030-01-01T00:00:00+00:00"}`: false,
		`{"leader":"n2","member":"n3"}`:                                            false, // Patroni refuses it
		`{"member":"n1"}`:                                                          false,
		`{}`:                                                                       false, // there was one
		`n1:n2`:                                                                    false, // before Patroni 1.0
		``:                                                                         false,
	} {
		if got := handsOver(value, "n1"); got != want {
			t.Errorf("with %s: %v", value, got)
		}
	}
	if handsOver(`{"member":"n2"}`, "") {
		t.Error("nobody hands over without a leader")
	}
	s := startPatroniStore(t)
	p := s.source()
	s.put(t, "failover", `{"leader":"n1","member":"n2"}`)
	wantRoles(t, p, "n1 5431 primary idle, n2 5432 replica, n3 5433 replica")
	s.put(t, "failover", "{}")
	wantRoles(t, p, "n1 5431 primary, n2 5432 replica, n3 5433 replica")
}

// A watching is a Patroni that is watched, and what Find returns after each change.
type watching struct {
	roles chan string
	stop  func()
}

func watchPatroni(t testing.TB, p *Patroni) *watching {
	w := &watching{roles: make(chan string, 1000)}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			_ = p.Watch(ctx, func() {
				found, err := p.Find(ctx)
				text := inRoles(found.Backends)
				if err != nil {
					text = err.Error()
				}
				w.roles <- text
			})
			pauseFor(ctx, 50*time.Millisecond)
		}
	})
	w.stop = func() { cancel(); running.Wait() }
	t.Cleanup(w.stop)
	return w
}

// want waits until Find returns what holds accepts.
func (w *watching) want(t testing.TB, want string) {
	t.Helper()
	var seen []string
	deadline := time.After(harness.Patience)
	for {
		select {
		case text := <-w.roles:
			if strings.Contains(text, want) {
				return
			}
			seen = append(seen, text)
		case <-deadline:
			t.Fatalf("never %q, but %q", want, seen)
		}
	}
}

func TestPatroniWatch(t *testing.T) {
	t.Parallel()
	s := startPatroniStore(t)
	p := s.source()
	w := watchPatroni(t, p)
	w.want(t, "n1 5431 primary, n2 5432 replica")
	s.put(t, "leader", "n3")
	w.want(t, "n1 5431 replica, n2 5432 replica, n3 5433 primary")
	s.del(t, "leader")
	w.want(t, "n1 5431 replica, n2 5432 replica, n3 5433 replica")
	s.del(t, "members/n1")
	w.want(t, "n2 5432 replica, n3 5433 replica")
}
