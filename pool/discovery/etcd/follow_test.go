package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/limeload/limeload-l4/test/harness"
)

// A following is a Follow that runs.
type following struct {
	changes chan KeyChange
	cancel  context.CancelFunc
	done    chan error
}

func follow(t testing.TB, s *Session, probed string, revision int64) *following {
	ctx, cancel := context.WithCancel(t.Context())
	f := &following{changes: make(chan KeyChange, 1000), cancel: cancel, done: make(chan error, 1)}
	go func() { // its end is awaited by wantEnd or the end of the session
		f.done <- s.Follow(ctx, "/x/", probed, revision, func(changes []KeyChange) {
			for _, k := range changes {
				f.changes <- k
			}
		})
	}()
	t.Cleanup(cancel)
	return f
}

// want waits for the next change, as "KEY=VALUE", or "-KEY" for a deleted one.
func (f *following) want(t testing.TB, want string) KeyChange {
	t.Helper()
	select {
	case k := <-f.changes:
		got := k.Key + "=" + string(k.Value)
		if k.Value == nil {
			got = "-" + k.Key
		}
		if got != want {
			t.Fatalf("the change is %s, want %s", got, want)
		}
		return k
	case err := <-f.done:
		t.Fatalf("Follow returned before %s: %v", want, err)
	case <-time.After(harness.Patience):
		t.Fatalf("never %s", want)
	}
	return KeyChange{}
}

func (f *following) wantEnd(t testing.TB, want error) {
	t.Helper()
	select {
	case err := <-f.done:
		if !errors.Is(err, want) {
			t.Errorf("Follow returns %v, want %v", err, want)
		}
	case <-time.After(harness.Patience):
		t.Fatal("Follow does not return")
	}
}

// TestFollow: changes come in their order, deleted keys and empty values are told apart, and the session goes on when a
// Follow is ended.
func TestFollow(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	c, s := writer(t, server.Endpoint), open(t, Login{}, server.Endpoint)
	first, err := c.Put(t.Context(), "/x/a", "1")
	must(t, err)
	f := follow(t, s, "", first.Header.Revision-1)
	if k := f.want(t, "a=1"); k.Revision != first.Header.Revision || k.Lease != 0 {
		t.Errorf("the change is %+v", k)
	}
	lease, err := c.Grant(t.Context(), 60)
	must(t, err)
	_, err = c.Put(t.Context(), "/x/a", "", clientv3.WithLease(lease.ID))
	must(t, err)
	if k := f.want(t, "a="); k.Lease != int64(lease.ID) {
		t.Errorf("the change is %+v", k)
	}
	_, err = c.Put(t.Context(), "/y/b", "2")
	must(t, err)
	_, err = c.Revoke(t.Context(), lease.ID)
	must(t, err)
	f.want(t, "-a")
	f.cancel()
	f.wantEnd(t, context.Canceled)
	if _, _, err := s.Read("/x/", 1); err != nil {
		t.Errorf("a session after a Follow that was canceled: %v", err)
	}
}

// TestFollowCompacted: the changes after a revision are not there any more, but the session goes on.
func TestFollowCompacted(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	c, s := writer(t, server.Endpoint), open(t, Login{}, server.Endpoint)
	putMany(t, c, "/x/", 500)
	_, revision, err := s.Read("/x/", 500)
	must(t, err)
	_, err = c.Compact(t.Context(), revision)
	must(t, err)
	follow(t, s, "", 1).wantEnd(t, ErrCompacted)
	_, revision, err = s.Read("/x/", 500)
	must(t, err)
	f := follow(t, s, "/x/00001", revision)
	_, err = c.Put(t.Context(), "/x/b", "2")
	must(t, err)
	f.want(t, "b=2")
}

// TestFollowFlood: more changes at once than MaxBytes are not taken into memory. The session goes on, and the present
// keys can be read.
func TestFollowFlood(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t, "--unsafe-no-fsync")
	c, s := writer(t, server.Endpoint), open(t, Login{}, server.Endpoint)
	first, err := c.Put(t.Context(), "/x/a", "0")
	must(t, err)
	for i := range 10 {
		_, err := c.Put(t.Context(), "/x/a", fmt.Sprint(i)+string(bytes.Repeat([]byte("x"), 1<<20)))
		must(t, err)
	}
	follow(t, s, "", first.Header.Revision).wantEnd(t, ErrFlood)
	keys, revision, err := s.Read("/x/", 1)
	if err != nil || len(keys) != 1 || !strings.HasPrefix(string(keys[0].Value), "9xx") {
		t.Fatalf("%d keys, error %v", len(keys), err)
	}
	f := follow(t, s, "", revision)
	_, err = c.Put(t.Context(), "/x/a", "10")
	must(t, err)
	f.want(t, "a=10")
}

// TestHangs: a member that is stopped, with its connections still open, is left, whether a key is probed or not.
func TestHangs(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	server.Do(t, "put", "/x/a", "1")
	for _, probed := range []string{"", "/x/a"} {
		s := open(t, Login{}, server.Endpoint)
		_, revision, err := s.Read("/x/", 1)
		must(t, err)
		f := follow(t, s, probed, revision)
		_, err = writer(t, server.Endpoint).Put(t.Context(), "/x/a", "2")
		must(t, err)
		f.want(t, "a=2")
		server.Signal(t, syscall.SIGSTOP)
		began := time.Now()
		select {
		case err := <-f.done:
			m := Login{}.Explain(t.Context(), server.Endpoint, Needs{Prefix: "/x/"}, err)
			if m.Error() != "ask etcd at "+server.Endpoint+": no answer: timed out" {
				t.Errorf("error %q from %v", m, err)
			}
			t.Logf("a member that hangs is left after %v", time.Since(began).Round(100*time.Millisecond))
		case <-time.After(harness.Patience):
			t.Error("a member that hangs is not left")
		}
		server.Signal(t, syscall.SIGCONT)
	}
}

// TestLost: a member is killed.
func TestLost(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	s := open(t, Login{}, server.Endpoint)
	_, revision, err := s.Read("/x/", 1)
	must(t, err)
	f := follow(t, s, "", revision)
	server.Kill(t)
	f.wantEnd(t, ErrLost)
	if _, _, err := s.Read("/x/", 1); !errors.Is(err, ErrLost) {
		t.Errorf("Read returns %v", err)
	}
}
