package flow

import (
	"reflect"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
)

// What the tests need of this package's inside. The tests are a package of their own, since they run whole servers,
// and a server imports this package. Functions that take a Loop or a Flow are called onLoop.

// Bounds that tests reach.
const (
	BacklogDatagrams = backlogDatagrams
	BacklogBytes     = backlogBytes
	AnswerTime       = answerTime
	EndsInTurn       = endsInTurn
	NewcomersInTurn  = newcomersInTurn
	MostQuota        = mostQuota
)

// Each calls f for every flow of a loop.
func Each(l *Loop, f func(*Flow)) { l.store.All(f) }

// One is the loop's flow. There must be one.
func One(l *Loop) (found *Flow) {
	Each(l, func(f *Flow) { found = f })
	return found
}

// Chunks is how many pieces of memory the loop has for its flows.
func Chunks(l *Loop) int { return privateLen(&l.store, "chunks") }

// Rest makes the last datagram of a flow older, and sets its timer anew.
func Rest(l *Loop, f *Flow, by time.Duration) {
	f.active -= by
	l.arm(f)
}

// Descriptor is the flow's socket.
func Descriptor(f *Flow) int { return int(f.fd) }

// Block makes a flow wait for room in its socket, as after a send that would have blocked.
func Block(f *Flow) { f.blocked = true }

// Blocked reports whether a flow waits for room in its socket.
func Blocked(f *Flow) bool { return f.blocked }

// WatchRoom brings the event that a blocked flow waits for.
func WatchRoom(l *Loop, f *Flow) { l.backends.WatchRoom(int(f.fd), f.Index(), f.Generation(), true) }

// Keeps reports whether a flow has a backlog.
func Keeps(f *Flow) bool { return f.kept != nil }

// FreeBacklogs is how many backlogs the loop keeps for later.
func FreeBacklogs(l *Loop) int { return privateLen(&l.freeBacklogs, "free") }

// SendOne sends a datagram to the flow's backend.
func SendOne(l *Loop, f *Flow, datagram []byte) { l.sendOne(f, datagram) }

// MakeReady gives the flow a backend if it has none.
func MakeReady(l *Loop, f *Flow) tally.Drop { return l.makeReady(f) }

// Fail reports that the flow's backend cannot be reached.
func Fail(l *Loop, f *Flow, r sock.Report) { l.backendFailed(f, r) }

// PausePorts keeps the loop from looking for local ports of IPv4 for so long.
func PausePorts(l *Loop, pause time.Duration) { l.portPause[0] = l.Now + pause }

// ResumePorts ends PausePorts.
func ResumePorts(l *Loop) { l.portPause[0] = 0 }

// Evict makes a flow of the loop's first socket give way. It reports false if none may.
func Evict(l *Loop) bool { return l.evict(l.sockets[0], nil) }

// Crowd makes the loop's first socket one that falls behind. serves says whether it also has clients whose backend
// has answered; that stays so for an hour, since the test may be slow.
func Crowd(l *Loop, serves bool) {
	d := l.sockets[0]
	d.behind, d.regularAt = crowdedAfter, 0
	if serves {
		d.regularAt = l.Now + time.Hour
	}
}

// BlockSocket makes the loop's first socket take no more answers, as after a send that would have blocked.
func BlockSocket(l *Loop) { l.sockets[0].blocked = true }

// WatchSocketRoom brings the event that a blocked socket waits for.
func WatchSocketRoom(l *Loop) {
	d := l.sockets[0]
	l.clients.WatchRoom(d.fd, d.slot, 0, true)
}

// Waiting is how many flows wait for the loop's first socket to take answers.
func Waiting(l *Loop) int { return len(l.sockets[0].waiting) }

// FilterAll puts a filter before the flows of all sockets of the loop.
func FilterAll(l *Loop, by Filter) {
	for _, d := range l.sockets {
		d.filter = by
	}
}

// privateLen is the length of a slice in a struct of another package.
func privateLen(of any, field string) int { return reflect.ValueOf(of).Elem().FieldByName(field).Len() }

// Polices reports whether a flow has a limit of bandwidth. onLoop.
func Polices(f *Flow) bool { return f.police != nil }
