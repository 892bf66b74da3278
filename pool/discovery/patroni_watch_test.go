package discovery

import (
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
	"github.com/limeload/limeload-l4/test/harness"
)

// TestPatroniSpeed logs the time from a new leader's key to what Find returns then. It is the time of an event and not
// of an interval: each change is waited for, and none would come within the patience of the test by asking alone, since
// nobody asks.
func TestPatroniSpeed(t *testing.T) {
	t.Parallel()
	s := startPatroniStore(t)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint}, Logger: zap.NewNop()})
	must(t, err)
	defer client.Close()
	w := watchPatroni(t, s.source())
	w.want(t, "n1 5431 primary")
	var took []time.Duration
	for i := range 50 {
		leader := "n" + strconv.Itoa((i+1)%3+1)
		_, err := client.Put(t.Context(), patroniPrefix+"leader", leader)
		must(t, err)
		began := time.Now()
		w.want(t, leader+" "+strconv.Itoa(5431+(i+1)%3)+" primary")
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("from the answer to a put of the leader's key to the new roles: median %v, longest %v", took[25], took[49])
}

// TestPatroniLease: the leader's lease runs out, as it does when the primary's host is gone.
func TestPatroniLease(t *testing.T) {
	t.Parallel()
	s := startPatroniStore(t)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint}, Logger: zap.NewNop()})
	must(t, err)
	defer client.Close()
	w := watchPatroni(t, s.source())
	lease, err := client.Grant(t.Context(), 1)
	must(t, err)
	_, err = client.Put(t.Context(), patroniPrefix+"leader", "n2", clientv3.WithLease(lease.ID))
	must(t, err)
	w.want(t, "n2 5432 primary")
	w.want(t, "n1 5431 replica, n2 5432 replica, n3 5433 replica")
}

// TestPatroniEtcdRestarts: while etcd is away, Find fails; when it is back, its present keys count.
func TestPatroniEtcdRestarts(t *testing.T) {
	t.Parallel()
	s := startPatroniStore(t)
	w := watchPatroni(t, s.source())
	w.want(t, "n1 5431 primary")
	s.Kill(t)
	w.want(t, "no answer: connection refused")
	s.Restart(t)
	s.put(t, "leader", "n3")
	w.want(t, "n3 5433 primary")
}

// TestPatroniCompacted: a watch from a revision that was compacted begins again with the present keys.
func TestPatroniCompacted(t *testing.T) {
	t.Parallel()
	s := startPatroniStore(t)
	p := s.source()
	session, revision, err := p.connect(t.Context())
	must(t, err)
	defer session.Close()
	s.put(t, "leader", "n2")
	s.put(t, "leader", "n3")
	s.Do(t, "compaction", strconv.FormatInt(revision+2, 10))
	err = session.Follow(t.Context(), p.prefix, p.prefix+leaderKey, revision-1,
		func([]etcd.KeyChange) { t.Error("changes from before the compaction") })
	if err != etcd.ErrCompacted {
		t.Errorf("error %v, want %v", err, etcd.ErrCompacted)
	}
	keys, _, err := session.Read(p.prefix, maxEtcdKeys)
	must(t, err)
	p.take(keys)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys[leaderKey] != "n3" {
		t.Errorf("the leader is %q", p.keys[leaderKey])
	}
}

// TestPatroniHangs: a member of etcd that is stopped, with its connections still open, is left for another.
func TestPatroniHangs(t *testing.T) {
	t.Parallel()
	cluster := harness.StartEtcdCluster(t, 3)
	s := patroniStore{cluster[1]}
	s.fill(t)
	p := NewPatroni(PatroniOptions{Endpoints: []string{cluster[0].Endpoint, cluster[1].Endpoint}, Scope: "main",
		Namespace: "/service/"})
	w := watchPatroni(t, p)
	w.want(t, "n1 5431 primary")
	cluster[0].Signal(t, syscall.SIGSTOP)
	harness.Eventually(t, "etcd has a leader that is not stopped", func() error {
		return s.Try(t, "put", patroniPrefix+"leader", "n2")
	})
	w.want(t, "n2 5432 primary")
}
