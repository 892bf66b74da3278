// Package postgres reads what clients of Postgres begin with, at listeners where it matters: it answers their requests
// for encryption, and passes CancelRequests on to the backends that they are for. For that it learns the keys of the
// sessions, which the servers send. It does not log anybody in, and does not read what follows the login.
//
// Prefaces and learners are used onLoop. What sends cancels has goroutines of its own, which begin with a cancel.
package postgres

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/pool"
)

// A Service is what a listener knows of its Postgres sessions, whatever becomes of its settings. Its methods may be
// called from any goroutine, but for those that say otherwise.
type Service struct {
	// set once, then read-only
	by     dial.ListenerID
	sender *Sender

	keys   keyring
	pools  atomic.Pointer[[]*pool.Pool]
	counts [numResults]atomic.Uint64
}

// NewService makes the Service of a listener. sender is the server's.
func NewService(by dial.ListenerID, sender *Sender) *Service { return &Service{by: by, sender: sender} }

// SetPools says which pools the listener sends clients to. The caller does not change the slice afterwards.
func (s *Service) SetPools(pools []*pool.Pool) { s.pools.Store(&pools) }

// A Result is what became of a cancel.
type Result uint8

// The results.
const (
	Sent    Result = iota // to the backend that the key is of
	Unknown               // nobody knows the key, and all backends with sessions got the cancel
	Failed                // the backend that the key is of could not be reached, or did not take it in time
	Dropped               // too many cancels waited already, or it has waited too long
	numResults
)

// String returns the result's name in metrics.
func (r Result) String() string {
	return [numResults]string{Sent: "sent", Unknown: "unknown", Failed: "failed", Dropped: "dropped"}[r]
}

// Results returns every Result there is.
func Results() []Result { return []Result{Sent, Unknown, Failed, Dropped} }

// Count is how many cancels have had a result.
func (s *Service) Count(r Result) uint64 { return s.counts[r].Load() }

// A request is a client's cancel.
type request struct {
	service *Service
	key     string       // the process ID and the key
	pools   []*pool.Pool // of the listener
	by      dial.ListenerID
	port    uint16     // that the client has connected to; 0 if the key is known
	link    *dial.Link // the client's
	began   time.Time
	known   bool   // the key
	done    func() // called once, from any goroutine

	// mu guards the fields below once the request is sent
	mu        sync.Mutex
	left      int // deliveries that are not over
	delivered int
	late      int // that were not tried
}

// cancel sends a cancel on behalf of a session, and calls done when that is over, from any goroutine. It reports false,
// and does not call done, if there are too many cancels. It is called onLoop.
func (s *Service) cancel(l *session.Loop, key string, of *session.Session, done func()) bool {
	r := &request{
		service: s, key: key, by: s.by, link: of.Came().OnBehalf(), began: time.Now(), done: done,
	}
	if pools := s.pools.Load(); pools != nil {
		r.pools = *pools
	}
	owners := s.keys.lookUp(r.key)
	if r.known = len(owners) > 0; !r.known {
		r.port = l.ListenerPort(of)
	}
	if !s.sender.send(r, owners) {
		s.counts[Dropped].Add(1)
		return false
	}
	return true
}

// over says that a delivery of the request is over. The last one ends the request.
func (r *request) over(err error) {
	r.mu.Lock()
	switch {
	case err == nil:
		r.delivered++
	case err == errTooLate:
		r.late++
	}
	r.left--
	last, delivered, late := r.left == 0, r.delivered, r.late
	r.mu.Unlock()
	if !last {
		return
	}
	result := Failed
	switch {
	case delivered == 0 && late > 0:
		result = Dropped
	case !r.known:
		result = Unknown
	case delivered > 0:
		result = Sent
	}
	r.service.counts[result].Add(1)
	r.done()
}
