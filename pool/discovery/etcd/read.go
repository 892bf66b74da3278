package etcd

import (
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// readPage is how many keys one request of Read asks for. Ten thousand keys of 200 bytes are ten answers of 250 kB.
	readPage = 1000
	// maxReadBytes bounds the sum of keys and values that one Read returns: 100,000 keys of 600 bytes. A larger store is
	// not what the prefix was meant for.
	maxReadBytes = 64 << 20
	// readAttempts is how often a Read begins again because etcd was compacted between two pages. A compaction comes
	// every few minutes, so a second one during the same read is no chance.
	readAttempts = 3
)

// A KeyChange is one key with its new value. It is a plain value.
type KeyChange struct {
	Key      string // without the prefix
	Value    []byte // nil if the key was deleted, and else not nil
	Revision int64  // of the store, at this change
	Lease    int64  // with which the key ends; 0: none
	// Large says that the value has more than MaxBytes; Value is empty then. etcd allows such a value only with a
	// --max-request-bytes of its own.
	Large bool
}

// Read returns up to most keys below a prefix, in their order, and the revision of the store at which all of them are
// read. A majority of etcd has confirmed that revision. The error wraps ErrTooMany if there are more.
func (s *Session) Read(prefix string, most int) (keys []KeyChange, revision int64, err error) {
	for range readAttempts {
		keys, revision, err = s.readAll(prefix, most)
		if !errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
	}
	return keys, revision, err
}

// readAll reads the keys page by page. The first page decides about the revision of all.
func (s *Session) readAll(prefix string, most int) (keys []KeyChange, revision int64, err error) {
	bytes, page := 0, int64(readPage)
	for from := prefix; ; {
		r, err := s.readPage(prefix, from, revision, page)
		switch {
		case isOversized(err) && page > 1:
			page = max(page/4, 1)
			continue
		case isOversized(err):
			if r, err = s.readPage(prefix, from, revision, 1, clientv3.WithKeysOnly()); err == nil && len(r.Kvs) == 1 {
				keys = append(keys, changeOf(prefix, r, 0))
				keys[len(keys)-1].Large = true
			}
		case err == nil:
			for i := range r.Kvs {
				keys = append(keys, changeOf(prefix, r, i))
			}
		}
		if err != nil {
			return nil, 0, s.Failure(err)
		}
		for _, kv := range r.Kvs {
			bytes += len(kv.Key) + len(kv.Value)
		}
		switch {
		case r.Count > int64(most-len(keys)+len(r.Kvs)):
			return nil, 0, fmt.Errorf("%w: more than %d", ErrTooMany, most)
		case bytes > maxReadBytes:
			return nil, 0, fmt.Errorf("%w: more than %d MiB", ErrTooMany, maxReadBytes>>20)
		}
		page = min(2*page, readPage)
		if revision == 0 {
			revision = r.Header.Revision
		}
		if !r.More {
			return keys, revision, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// readPage reads up to limit keys below a prefix that do not come before from; at a revision, or the present one if
// that is 0.
func (s *Session) readPage(
	prefix, from string, revision, limit int64, more ...clientv3.OpOption,
) (*clientv3.GetResponse, error) {
	ctx, cancel := s.Request()
	defer cancel()
	return s.client.Get(ctx, from, append(more, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)),
		clientv3.WithLimit(limit), clientv3.WithRev(revision))...)
}

// isOversized reports whether an answer was not read because it has more than MaxBytes. etcd has errors with the same
// code.
func isOversized(err error) bool {
	if _, said := errors.AsType[rpctypes.EtcdError](err); said {
		return false
	}
	return status.Code(err) == codes.ResourceExhausted
}

// changeOf returns one of the keys of an answer.
func changeOf(prefix string, r *clientv3.GetResponse, i int) KeyChange {
	kv := r.Kvs[i]
	value := kv.Value
	if value == nil {
		value = []byte{} // an empty value is no nil
	}
	return KeyChange{Key: strings.TrimPrefix(string(kv.Key), prefix), Value: value, Revision: kv.ModRevision, Lease: kv.Lease}
}

// Names returns up to limit+1 names that stand directly below a prefix. It is only used to explain a mistake.
func (s *Session) Names(prefix string, limit int) []string {
	ctx, cancel := s.Request()
	defer cancel()
	var found []string
	for from := prefix; len(found) <= limit; {
		r, err := s.client.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithKeysOnly(),
			clientv3.WithLimit(1))
		if err != nil || len(r.Kvs) == 0 {
			break
		}
		name, _, below := strings.Cut(strings.TrimPrefix(string(r.Kvs[0].Key), prefix), "/")
		if below {
			found = append(found, name)
			from = clientv3.GetPrefixRangeEnd(prefix + name + "/") // skips the other keys of that name
		} else {
			from = string(r.Kvs[0].Key) + "\x00"
		}
	}
	return found
}
