package gate

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

const (
	// MaxQuestions bounds the DNS questions of one loop of a listener: as many as the cache lets clients wait.
	MaxQuestions = 131_072

	// crowdedQuestions is how many questions wait when those of one client are bounded whatever its limit: half of
	// what may.
	crowdedQuestions = MaxQuestions / 2

	// clientShare is how many of them one client then has at most. A resolver with 20,000 questions a second that take
	// 100 ms has as many.
	clientShare = 2048
)

// A Questions is where the DNS questions of a listener come in on one loop, onLoop only. See NewQuestions.
type Questions struct {
	listener *Listener
	waiting  map[ClientID]int // questions of each client that wait for an answer
}

// NewQuestions makes the way in for DNS questions.
func (ls *Listener) NewQuestions() *Questions {
	return &Questions{listener: ls, waiting: make(map[ClientID]int)}
}

// Open reports whether all clients may come in now, so that Admit need not be asked: nothing is cheaper for a question
// that the cache answers.
func (q *Questions) Open() bool {
	return q.listener.gate.Chains.Empty() && q.listener.isOpen(q.listener.settings())
}

// Admit asks whether a client's datagram may be looked at. One that is answered from the cache counts nowhere but for
// the rates; one that has to wait asks Wait.
func (q *Questions) Admit(c *Client, now time.Duration) Reason {
	ls := q.listener
	if why := ls.admit(sock.UDP, c); why != Admitted {
		return why
	}
	s := ls.settings()
	if ls.isOpen(s) {
		return Admitted
	}
	if !ls.letsIn(s, c.Addr.Addr()) {
		return ls.refuse(Denied, c.Addr.Addr())
	}
	return q.admitOften(s, c.Addr.Addr(), now)
}

// AdmitOfSession asks whether a session's question may be looked at, after the first one, for which the session itself
// came in.
func (q *Questions) AdmitOfSession(client netip.Addr, now time.Duration) Reason {
	s := q.listener.settings()
	if !client.IsValid() || q.listener.isOpen(s) {
		return Admitted
	}
	return q.admitOften(s, client, now)
}

// admitOften asks the rates.
func (q *Questions) admitOften(s *Settings, client netip.Addr, now time.Duration) Reason {
	ls := q.listener
	if t := ls.clients.Load(); t != nil {
		if why := t.admit(t.mask.id(client.As16()), &s.Limits, 0, false, now); why != Admitted {
			if why = ls.refuseUnlessDry(s, why, client); why != Admitted {
				return why
			}
		}
	}
	return ls.admitOften(s, client, new(Place), now)
}

// Tells reports whether clients are told that they are over a limit.
func (q *Questions) Tells() bool { return q.listener.settings().Limits.Over == OverTell }

// ID is who counts as one client.
func (q *Questions) ID(client [16]byte) ClientID { return q.listener.settings().mask.id(client) }

// Wait asks for one more question of a client that waits for its answer. waiting is how many questions wait there. With
// Admitted it is counted, until Leave.
func (q *Questions) Wait(id ClientID, waiting int) Reason {
	return q.wait(id, q.listener.settings().ClientFlows, waiting)
}

// WaitOfSession is Wait for a session's question, of which a session may have no more than a few: the listener's limit
// does not count here.
func (q *Questions) WaitOfSession(id ClientID, waiting int) Reason { return q.wait(id, 0, waiting) }

func (q *Questions) wait(id ClientID, limit, waiting int) Reason {
	n := q.waiting[id]
	if limit > 0 && n >= limit || waiting >= crowdedQuestions && n >= clientShare {
		return ClientFull
	}
	q.waiting[id] = n + 1
	return Admitted
}

// Leave counts a question out that has its answer.
func (q *Questions) Leave(id ClientID) {
	if n := q.waiting[id]; n > 1 {
		q.waiting[id] = n - 1
	} else {
		delete(q.waiting, id)
	}
}
