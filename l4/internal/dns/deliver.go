package dns

import (
	"slices"

	"github.com/limeload/limeload-l4/l4/internal/dns/dnscache"
)

// A delivery is answers that some clients of a loop do not have yet.
type delivery struct {
	forwarder *forwarder
	answers   dnscache.Answers[client]
	next      int
}

// clientsInTurn is how many clients of one answer a turn looks at, some two milliseconds' work: thousands may wait for
// one name.
const clientsInTurn = 1024

// deliver gives answers to those who wait for them, on whatever loop. An answer belongs to its client's loop alone:
// others are sent a message, each one.
func (f *forwarder) deliver(answers dnscache.Answers[client]) {
	atOnce := f.loop.atOnce
	if own := f.deliverOwn(answers, atOnce); own == answers.Len() {
		return
	}
	for _, service := range [...]*Service{f.service, f.service.sibling} {
		if service == nil {
			continue
		}
		for _, other := range service.forwarders {
			switch {
			case other == f || !other.isAmong(answers):
			case other.loop == f.loop:
				other.deliverOwn(answers, atOnce)
			default:
				other.loop.Post(func() { other.deliverOwn(answers, atOnce) })
			}
		}
	}
}

func (f *forwarder) isAmong(answers dnscache.Answers[client]) bool {
	for i := range answers.Len() {
		if answers.Waiter(i).forwarder == f {
			return true
		}
	}
	return false
}

// deliverOwn gives answers to the clients of this loop, now or in turns to come, and returns how many of those it has
// looked at are this loop's.
func (f *forwarder) deliverOwn(answers dnscache.Answers[client], atOnce bool) (own int) {
	to := answers.Len()
	if !atOnce && to > clientsInTurn {
		to = clientsInTurn
		f.loop.deliveries = append(f.loop.deliveries, delivery{f, answers, to})
	}
	return f.deliverSome(answers, 0, to)
}

// deliverSome gives answers to those clients of this loop that are among some.
func (f *forwarder) deliverSome(answers dnscache.Answers[client], from, to int) (own int) {
	l := f.loop
	for i := from; i < to; i++ {
		c := answers.Waiter(i)
		if c.forwarder != f {
			continue
		}
		own++
		if c.byTCP {
			f.questions.Leave(c.id)
			f.answerSession(&c, answers, i)
			continue
		}
		l.flows.Reply(&c.from, answers.Append(l.answer[:0], i))
		f.leave(&c.from, c.id)
	}
	return own
}

// deliverTurn goes on with what earlier turns have left over.
func (l *Loop) deliverTurn() {
	d := &l.deliveries[0]
	to := min(d.next+clientsInTurn, d.answers.Len())
	from := d.next
	d.next = to
	f, answers := d.forwarder, d.answers
	if to == answers.Len() {
		l.deliveries = slices.Delete(l.deliveries, 0, 1)
	}
	f.deliverSome(answers, from, to)
}
