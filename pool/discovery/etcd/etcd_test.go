package etcd

import (
	"sync/atomic"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestBehind: a watch that does not deliver a change that a read has found is given up.
func TestBehind(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	server.Do(t, "put", "/x/probed", "1")
	s, err := Login{}.Open(t.Context(), server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var seen atomic.Int64
	s.probe(s.ctx, "/x/", "/x/probed", &seen)
	if err := s.Failure(nil); err != ErrBehind {
		t.Errorf("error %v, want %v", err, ErrBehind)
	}
}
