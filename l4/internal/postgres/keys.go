package postgres

import (
	"sync"

	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

// maxKeys bounds the keys that are known of one listener: more sessions than a process has descriptors for. Of further
// sessions none is known, and their cancels go to all backends.
const maxKeys = 1 << 20

// A keyring is the keys of a listener's sessions. Its methods may be called from any goroutine; the zero value is empty
// and ready.
type keyring struct {
	// mu guards the fields below, and learner.next of those in byKey. A session takes it twice
	mu    sync.Mutex
	byKey map[string]*learner
	size  int
}

// add adds a learner that has its key, backend and pool. It reports false if there are too many.
func (k *keyring) add(x *learner) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.size >= maxKeys {
		return false
	}
	if k.byKey == nil {
		k.byKey = make(map[string]*learner)
	}
	x.next = k.byKey[x.key]
	k.byKey[x.key] = x
	k.size++
	return true
}

// remove takes a learner out that was added.
func (k *keyring) remove(x *learner) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.size--
	first := k.byKey[x.key]
	if first == x {
		if x.next == nil {
			delete(k.byKey, x.key)
		} else {
			k.byKey[x.key] = x.next
		}
		return
	}
	for first.next != x {
		first = first.next
	}
	first.next = x.next
}

// lookUp returns the backends whose sessions have this key: one nearly always. Nothing keeps two servers from choosing
// the same.
func (k *keyring) lookUp(key string) (owners []target) {
	k.mu.Lock()
	defer k.mu.Unlock()
next:
	for x := k.byKey[key]; x != nil; x = x.next {
		for _, known := range owners {
			if known == x.target {
				continue next
			}
		}
		owners = append(owners, x.target)
	}
	return owners
}

// A target is a backend of a pool.
type target struct {
	pool    *pool.Pool
	backend *pool.Backend
	port    uint16 // that the client has connected to, for a backend without a port; else it may be 0
}

// address is where the backend is connected to.
func (t target) address() pool.Address { return t.backend.Addr().WithPort(t.port) }

// A learner learns the key of one session from what its backend says, and keeps it as long as the session lasts. It also
// removes the offer of channel binding from what clients without TLS get. It is a session.Overhearer.
type learner struct {
	service *Service
	begun   bool                     // the backend has sent something
	scanner *wire.PostgresKeyScanner // nil once it has the key, or has given up
	key     string                   // "" unless the learner is in the keyring

	// set with the key, then read-only
	target

	next *learner // with the same key
}

// learn makes the session's key known once its backend has sent it.
func (s *Service) learn(l *session.Loop, of *session.Session) {
	l.Overhear(of, &learner{service: s, scanner: new(wire.PostgresKeyScanner)})
}

// Overhear implements session.Overhearer.
func (x *learner) Overhear(s *session.Session, p []byte) (n int, more bool) {
	if !x.begun {
		x.begun = true
		// A server sends what the login begins with in one record.
		if client, backend := s.Encrypted(); backend && !client {
			p = wire.RemovePostgresBinding(p)
		}
	}
	return len(p), x.learn(s, p)
}

// learn looks for the key, and reports whether it needs more.
func (x *learner) learn(s *session.Session, p []byte) (more bool) {
	key, more := x.scanner.Scan(p)
	if more {
		return true
	}
	x.scanner = nil
	if key == "" {
		return false
	}
	x.key, x.target = key, target{s.Pool(), s.Backend(), s.BackendPort()}
	if !x.service.keys.add(x) {
		x.key = ""
	}
	return false
}

// Forget implements session.Overhearer.
func (x *learner) Forget(*session.Session) {
	if x.key != "" {
		x.service.keys.remove(x)
	}
}
