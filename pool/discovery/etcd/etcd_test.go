package etcd

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/limeload/limeload-l4/test/harness"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open connects to a member, until the test ends.
func open(t testing.TB, l Login, endpoint string) *Session {
	t.Helper()
	s, err := l.Open(t.Context(), endpoint)
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

// writer returns a client for large values, until the test ends.
func writer(t testing.TB, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, MaxCallSendMsgSize: 64 << 20, Logger: zap.NewNop()})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// putMany writes n keys below a prefix, with the numbers 0 to n-1 as their names and values.
func putMany(t testing.TB, c *clientv3.Client, prefix string, n int) {
	t.Helper()
	const most = 100 // in one transaction
	for from := 0; from < n; from += most {
		var ops []clientv3.Op
		for i := from; i < min(from+most, n); i++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s%05d", prefix, i), fmt.Sprint(i)))
		}
		_, err := c.Txn(t.Context()).Then(ops...).Commit()
		must(t, err)
	}
}

// interposed is a KV that does something before each Get, which is the nth.
type interposed struct {
	clientv3.KV
	n      int
	before func(n int)
}

func (i *interposed) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	i.n++
	i.before(i.n)
	return i.KV.Get(ctx, key, opts...)
}

// TestBehind: a watch that does not deliver a change that a read has found is given up.
func TestBehind(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	server.Do(t, "put", "/x/probed", "1")
	s := open(t, Login{}, server.Endpoint)
	var seen atomic.Int64
	s.probe(s.ctx, "/x/", "/x/probed", &seen)
	if err := s.Failure(nil); err != ErrBehind {
		t.Errorf("error %v, want %v", err, ErrBehind)
	}
}

// TestLate: a watch that is behind what reads find, but goes on, is not given up.
func TestLate(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	for range 4 * probeEvery / time.Second { // so many changes does the watch deliver one by one
		server.Do(t, "put", "/x/probed", "1")
	}
	s := open(t, Login{}, server.Endpoint)
	ctx, cancel := context.WithTimeout(s.ctx, 3*probeEvery+time.Second)
	defer cancel()
	var seen atomic.Int64
	go func() { // it ends with ctx
		for tick := time.Tick(time.Second); ctx.Err() == nil; seen.Add(1) {
			<-tick
		}
	}()
	s.probe(ctx, "/x/", "/x/probed", &seen)
	if err := s.Failure(nil); err != nil {
		t.Errorf("the session has ended with %v", err)
	}
}
