package etcd

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestRead: keys come in their order, from several answers, as they were at the revision of the first one.
func TestRead(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	c, s := writer(t, server.Endpoint), open(t, Login{}, server.Endpoint)
	putMany(t, c, "/x/", 2*readPage+500)
	_, err := c.Put(t.Context(), "/y/other", "1")
	must(t, err)
	reads := &interposed{KV: s.client.KV, before: func(n int) {
		if n > 1 {
			_, err := c.Put(t.Context(), fmt.Sprintf("/x/02000a%d", n), "late")
			must(t, err)
			_, err = c.Delete(t.Context(), "/x/02499")
			must(t, err)
		}
	}}
	s.client.KV = reads
	keys, revision, err := s.Read("/x/", 2*readPage+500)
	if err != nil || len(keys) != 2*readPage+500 || reads.n != 3 {
		t.Fatalf("%d keys in %d reads, error %v", len(keys), reads.n, err)
	}
	for i, k := range keys {
		if k.Key != fmt.Sprintf("%05d", i) || string(k.Value) != fmt.Sprint(i) || k.Revision > revision || k.Lease != 0 {
			t.Fatalf("key %d is %+v, at revision %d", i, k, revision)
		}
	}
	reads.before = func(int) {}
	if _, _, err := s.Read("/x/", 2*readPage); !errors.Is(err, ErrTooMany) ||
		err.Error() != "there are too many keys: more than 2000" {
		t.Errorf("too many keys: %v", err)
	}
	if reads.n != 4 {
		t.Errorf("a read of too many keys reads %d pages", reads.n-3)
	}
}

// TestReadValues: an empty value is no deleted key, and the lease is told.
func TestReadValues(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	c, s := writer(t, server.Endpoint), open(t, Login{}, server.Endpoint)
	if keys, _, err := s.Read("/x/", 1); len(keys) != 0 || err != nil {
		t.Errorf("%d keys, error %v", len(keys), err)
	}
	lease, err := c.Grant(t.Context(), 60)
	must(t, err)
	_, err = c.Put(t.Context(), "/x/a", "", clientv3.WithLease(lease.ID))
	must(t, err)
	keys, revision, err := s.Read("/x/", 1)
	if err != nil || len(keys) != 1 || keys[0].Value == nil || keys[0].Lease != int64(lease.ID) ||
		keys[0].Revision != revision {
		t.Errorf("keys %+v at %d, error %v", keys, revision, err)
	}
}

// TestReadCompacted: a read begins again if etcd is compacted between two of its pages, but not forever.
func TestReadCompacted(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	c, s := writer(t, server.Endpoint), open(t, Login{}, server.Endpoint)
	putMany(t, c, "/x/", readPage+1)
	compact := func() {
		r, err := c.Put(t.Context(), "/x/00000", "again")
		must(t, err)
		_, err = c.Compact(t.Context(), r.Header.Revision)
		must(t, err)
	}
	reads := &interposed{KV: s.client.KV, before: func(n int) {
		if n == 2 {
			compact()
		}
	}}
	s.client.KV = reads
	keys, _, err := s.Read("/x/", 2*readPage)
	if err != nil || len(keys) != readPage+1 || string(keys[0].Value) != "again" || reads.n != 4 {
		t.Errorf("%d keys in %d reads, error %v", len(keys), reads.n, err)
	}
	reads.n, reads.before = 0, func(n int) {
		if n%2 == 0 {
			compact()
		}
	}
	if _, _, err := s.Read("/x/", 2*readPage); err == nil || reads.n != 2*readAttempts {
		t.Errorf("after %d reads: %v", reads.n, err)
	}
}

// TestReadLarge: a page with more than MaxBytes is read in smaller ones, and a key with more is told.
func TestReadLarge(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t, "--max-request-bytes", "20000000", "--unsafe-no-fsync")
	c, s := writer(t, server.Endpoint), open(t, Login{}, server.Endpoint)
	value := string(bytes.Repeat([]byte("x"), 1<<20))
	for i := range 12 {
		_, err := c.Put(t.Context(), fmt.Sprintf("/x/%02d", i), value)
		must(t, err)
	}
	for _, key := range []string{"/x/05a", "/x/11a"} {
		_, err := c.Put(t.Context(), key, string(bytes.Repeat([]byte("x"), MaxBytes+1)))
		must(t, err)
	}
	keys, _, err := s.Read("/x/", 100)
	must(t, err)
	var large []string
	for _, k := range keys {
		if k.Large {
			large = append(large, k.Key)
		} else if len(k.Value) != 1<<20 {
			t.Errorf("%s has %d bytes", k.Key, len(k.Value))
		}
	}
	if len(keys) != 14 || !slices.Equal(large, []string{"05a", "11a"}) {
		t.Errorf("%d keys, of which %q are large", len(keys), large)
	}
	for i := range maxReadBytes >> 20 {
		_, err := c.Put(t.Context(), fmt.Sprintf("/x/a%02d", i), value)
		must(t, err)
	}
	if _, _, err := s.Read("/x/", 100); !errors.Is(err, ErrTooMany) ||
		err.Error() != "there are too many keys: more than 64 MiB" {
		t.Errorf("too much data: %v", err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	c, s := writer(t, server.Endpoint), open(t, Login{}, server.Endpoint)
	for _, key := range []string{"/x/b/1", "/x/b/2", "/x/a/1", "/x/loose", "/x/c/1/2", "/xx/d/1"} {
		_, err := c.Put(t.Context(), key, "1")
		must(t, err)
	}
	for limit, want := range map[int][]string{1: {"a", "b"}, 5: {"a", "b", "c"}} {
		if got := s.Names("/x/", limit); !slices.Equal(got, want) {
			t.Errorf("up to %d names: %q", limit, got)
		}
	}
}
