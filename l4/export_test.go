package l4

import "github.com/limeload/limeload-l4/l4/internal/listen"

// What the tests need of this package's inside. They are a package of their own, since they share their help with the
// tests of the packages below this one, and that help imports this package.

// SameSockets reports whether the sockets of one spec serve the other.
func SameSockets(one, other *ListenerSpec) bool { return one.sameSockets(other) }

// Equal reports whether two specs, whose sockets are the same, mean the same.
func Equal(one, other *ListenerSpec) bool { return one.equal(other) }

// KeepOldest sorts the sessions of a list and drops those above limit.
func KeepOldest(l *SessionList, limit int) { l.keepOldest(limit) }

// BindingOf is the sockets of the listener of that name, at the first of its places.
func BindingOf(s *Server, name string) *listen.Binding {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.namedLocked(name).bound[0]
}

// FollowedPools is how many pools the server has subscribed to.
func FollowedPools(s *Server) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.revoking)
}
