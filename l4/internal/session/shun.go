package session

import (
	"net/netip"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A listener whose clients are refused without a word (gate.OverDrop) does without those that flood it: for a moment,
// the kernel drops their connection requests at the listening socket. A refusal costs some 15 us of CPU time, and keeps
// the kernel busy with the four packets of a connection; a client whose request is dropped waits a second and asks again.
//
// The moment is short, so that a client gets what its rate allows: the burst collects meanwhile. Each loop shuns for its
// own sockets. Only what a client is refused for itself counts (gate.Reason.OfClient): a proxy that names its clients
// must not be shunned since all of them together are too many.

const (
	// shunAfter refusals of a client within shunWindow make a socket shun it for shunFor.
	shunAfter  = 32
	shunWindow = 100 * time.Millisecond
	shunFor    = 250 * time.Millisecond

	// suspects is how many clients are counted at once. Of a flood from more, each has a smaller part.
	suspects = 32
)

// A shunning is whom a listening socket shuns, and whom it is about to.
type shunning struct {
	suspects [suspects]suspect
	shunned  []shunned // the first to end first
}

// A suspect is a client that was refused lately.
type suspect struct {
	client netip.Prefix
	since  time.Duration
	times  int
}

type shunned struct {
	client netip.Prefix
	until  time.Duration
}

// suspect notes that a client of a socket was refused without a word.
func (l *Loop) suspect(d *socket, client netip.Addr) {
	if !client.IsValid() {
		return
	}
	if d.shunning == nil {
		d.shunning = new(shunning)
	}
	sh, p := d.shunning, d.listener.ClientPrefix(client)
	if !sh.counts(p, l.Now) || len(sh.shunned) >= sock.MaxSYNSources ||
		slices.ContainsFunc(sh.shunned, func(s shunned) bool { return s.client == p }) {
		return
	}
	sh.shunned = append(sh.shunned, shunned{p, l.Now + shunFor})
	l.shun(d)
}

// counts counts a refusal of a client, and reports whether it is to be shunned.
func (sh *shunning) counts(client netip.Prefix, now time.Duration) bool {
	at := 0
	for i := range sh.suspects {
		s := &sh.suspects[i]
		if s.times > 0 && now-s.since > shunWindow {
			*s = suspect{}
		}
		if s.client == client {
			at = i
			break
		}
		if s.times < sh.suspects[at].times {
			at = i
		}
	}
	s := &sh.suspects[at]
	if s.client != client {
		*s = suspect{client: client, since: now}
	}
	if s.times++; s.times < shunAfter {
		return false
	}
	*s = suspect{}
	return true
}

// shun has the kernel drop the requests of those that a socket shuns now.
func (l *Loop) shun(d *socket) {
	from := make([]netip.Prefix, len(d.shunning.shunned))
	for i, s := range d.shunning.shunned {
		from[i] = s.client
	}
	if err := sock.DropSYNs(d.fd, from); err != nil {
		d.shunning.shunned = nil // they are refused as before
	}
	l.shunning = len(from) > 0 || slices.ContainsFunc(l.listening, (*socket).shuns)
}

func (d *socket) shuns() bool { return d != nil && d.shunning != nil && len(d.shunning.shunned) > 0 }

// endShunning ends what has lasted for shunFor.
func (l *Loop) endShunning() {
	if !l.shunning {
		return
	}
	for _, d := range l.listening {
		if d.shuns() && d.shunning.shunned[0].until <= l.Now {
			d.shunning.shunned = slices.DeleteFunc(d.shunning.shunned, func(s shunned) bool { return s.until <= l.Now })
			l.shun(d)
		}
	}
}

// shunningDue is when endShunning has something to do next; false for never.
func (l *Loop) shunningDue() (at time.Duration, due bool) {
	if !l.shunning {
		return 0, false
	}
	for _, d := range l.listening {
		if d.shuns() && (!due || d.shunning.shunned[0].until < at) {
			at, due = d.shunning.shunned[0].until, true
		}
	}
	return at, due
}
