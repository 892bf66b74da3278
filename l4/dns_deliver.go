package l4

import (
	"slices"

	"github.com/limeload/limeload-l4/l4/internal/dnscache"
)

// A dnsDelivery is answers of which some clients of a loop have not had theirs yet.
type dnsDelivery struct {
	asker   *dnsAsker
	answers dnscache.Answers[dnsClient]
	next    int
}

// deliverTurn is how many clients of one answer a turn looks at, some two milliseconds' work: thousands may wait for one name.
const deliverTurn = 1024

// deliver gives answers to those who wait for them, on whatever loop. An answer belongs to its client's loop alone: others are sent a
// message, each one.
func (k *dnsAsker) deliver(answers dnscache.Answers[dnsClient]) {
	atOnce := k.loop.dns.atOnce
	if own := k.deliverOwn(answers, atOnce); own == answers.Len() {
		return
	}
	for _, other := range k.service.askers {
		if other != k && other.isAmong(answers) {
			other.loop.mailbox.post(message{do: func() { other.deliverOwn(answers, atOnce) }})
		}
	}
}

func (k *dnsAsker) isAmong(answers dnscache.Answers[dnsClient]) bool {
	for i := range answers.Len() {
		if answers.Waiter(i).asker == k {
			return true
		}
	}
	return false
}

// deliverOwn gives answers to the clients of this loop, now or in turns to come, and returns how many of those it has
// looked at are this loop's.
func (k *dnsAsker) deliverOwn(answers dnscache.Answers[dnsClient], atOnce bool) (own int) {
	to := answers.Len()
	if !atOnce && to > deliverTurn {
		to = deliverTurn
		k.loop.dns.deliveries = append(k.loop.dns.deliveries, dnsDelivery{k, answers, to})
	}
	return k.deliverSome(answers, 0, to)
}

// deliverSome gives answers to those clients of this loop that are among some.
func (k *dnsAsker) deliverSome(answers dnscache.Answers[dnsClient], from, to int) (own int) {
	l := k.loop
	for i := from; i < to; i++ {
		client := answers.Waiter(i)
		if client.asker != k {
			continue
		}
		own++
		if client.session != nil {
			k.clients.leave(client.id)
			k.answerTalk(client.session, client.generation, answers, i)
			continue
		}
		l.reply(&client.from, answers.Append(l.dns.answer[:0], i))
		k.leave(client.from.door, client.id)
	}
	return own
}

// deliverTurns goes on with what earlier turns have left over. onLoop.
func (l *loop) deliverTurns() {
	w := &l.dns
	d := &w.deliveries[0]
	to := min(d.next+deliverTurn, d.answers.Len())
	from := d.next
	d.next = to
	k, answers := d.asker, d.answers
	if to == answers.Len() {
		w.deliveries = slices.Delete(w.deliveries, 0, 1)
	}
	k.deliverSome(answers, from, to)
}

// deliverAll leaves nothing for later turns. onLoop.
func (l *loop) deliverAll() {
	for len(l.dns.deliveries) > 0 {
		l.deliverTurns()
	}
}
