package discovery

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// sentinelPing is how often a quiet subscription is asked for a sign of life. A Sentinel that hangs is noticed after
	// that and sentinelTimeout.
	sentinelPing = 2 * time.Second
	// The pauses before a subscription is tried again.
	firstResubscription, lastResubscription = 500 * time.Millisecond, 10 * time.Second
	// messageGap is the least time between two questions that messages of one Sentinel cause. A failover causes about ten
	// messages, of which the first and the last ones count.
	messageGap = 50 * time.Millisecond
	// maxMessages bounds the messages of one Sentinel in a second; one that sends more is left alone for a while. Even
	// with a hundred masters in trouble there are fewer.
	maxMessages = 1000
)

// sentinelChannels are the messages after which the answer of a Sentinel may be another one
// (redis.io/docs/management/sentinel, Pub/Sub messages).
func sentinelChannels() []string {
	return []string{
		"+switch-master", "+promoted-slave", "+slave", "+sdown", "-sdown", "+slave-reconf-done", "+convert-to-slave",
		"+reset-master", "+monitor", "-monitor",
	}
}

// Watch subscribes to all endpoints, again and again, until ctx is done. It calls changed each time a subscription
// begins, since messages may have been missed before, and after messages about the master and its replicas.
func (s *Sentinel) Watch(ctx context.Context, changed func()) error {
	announce := func() {
		select {
		case s.changed <- struct{}{}:
		default:
		}
		changed()
	}
	var watching sync.WaitGroup
	for _, endpoint := range s.Endpoints {
		watching.Go(func() { s.watchOne(ctx, endpoint, announce) })
	}
	watching.Wait()
	return nil
}

// watchOne keeps a subscription to one endpoint. Its errors are not reported: Find finds the same.
func (s *Sentinel) watchOne(ctx context.Context, endpoint string, changed func()) {
	for pause := firstResubscription; ctx.Err() == nil; pause = min(2*pause, lastResubscription) {
		if c, err := s.subscribe(ctx, endpoint); err == nil {
			pause = firstResubscription
			changed()
			n := newNotices(changed)
			s.follow(c, n)
			n.end()
			c.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// subscribe returns a connection that gets messages.
func (s *Sentinel) subscribe(ctx context.Context, endpoint string) (*sentinelConn, error) {
	begin, cancel := context.WithTimeout(ctx, sentinelTimeout)
	defer cancel()
	c, err := s.connect(begin, ctx, endpoint)
	if err != nil {
		return nil, err
	}
	if err := s.confirm(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// confirm subscribes, and waits until the Sentinel has confirmed it.
func (s *Sentinel) confirm(c *sentinelConn) error {
	if err := c.SetDeadline(time.Now().Add(sentinelTimeout)); err != nil {
		return err
	}
	if err := c.send(appendCommand(nil, append([]string{"SUBSCRIBE"}, sentinelChannels()...)...)); err != nil {
		return err
	}
	for range sentinelChannels() {
		v, err := c.read()
		switch {
		case err != nil:
			return err
		case v.kind == '-':
			return replyFault(v.text)
		case len(v.list) != 3 || v.list[0].text != "subscribe":
			return &endpointError{ErrBadAnswer, "it does not confirm a subscription"}
		}
	}
	return nil
}

// follow reads messages until the connection fails, or the Sentinel gives no sign of life.
func (s *Sentinel) follow(c *sentinelConn, n *notices) {
	var second time.Time
	var count int
	for {
		if !c.awaitReply() {
			return
		}
		v, err := c.read()
		if err != nil || v.kind == '-' {
			return
		}
		if now := time.Now(); now.Sub(second) > time.Second {
			second, count = now, 0
		}
		if count++; count > maxMessages {
			return
		}
		if message := v.texts(); len(message) == 3 && message[0] == "message" && s.concerns(message[1], message[2]) {
			n.note()
		}
	}
}

// awaitReply waits for the beginning of a reply, and asks for a sign of life if none comes. It returns false if none
// comes even then.
func (c *sentinelConn) awaitReply() bool {
	for _, wait := range []time.Duration{sentinelPing, sentinelTimeout} {
		if c.SetDeadline(time.Now().Add(wait)) != nil {
			return false
		}
		_, err := c.replies.r.Peek(1)
		if err == nil {
			return c.SetDeadline(time.Now().Add(sentinelTimeout)) == nil // for the rest of it
		}
		if wait == sentinelTimeout || !errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if c.SetDeadline(time.Now().Add(sentinelTimeout)) != nil || c.send(appendCommand(nil, "PING")) != nil {
			return false
		}
	}
	return false
}

// concerns reports whether a message is about the master that is asked for, or about its replicas.
func (s *Sentinel) concerns(channel, message string) bool {
	words := strings.Fields(message)
	if channel == "+switch-master" { // NAME OLD-IP OLD-PORT NEW-IP NEW-PORT
		return len(words) > 0 && words[0] == s.Master
	}
	// "master NAME IP PORT", or "slave NAME IP PORT @ MASTER MASTER-IP MASTER-PORT". Other Sentinels are of no interest.
	switch {
	case len(words) >= 2 && words[0] == "master":
		return words[1] == s.Master
	case len(words) >= 6 && words[0] == "slave":
		return words[5] == s.Master
	}
	return false
}

// notices pass on messages: the first of a burst at once, and the others together a moment later. newNotices makes
// them.
type notices struct {
	changed func() // never blocks

	mu sync.Mutex
	// mu guards the fields below
	last    time.Time   // of the last call of changed
	waiting *time.Timer // nil: no message waits
	ended   bool
}

func newNotices(changed func()) *notices { return &notices{changed: changed} }

// note passes on a message now or soon.
func (n *notices) note() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.waiting != nil {
		return
	}
	wait := messageGap - time.Since(n.last)
	if wait <= 0 {
		n.last = time.Now()
		n.changed()
		return
	}
	n.waiting = time.AfterFunc(wait, n.late)
}

// late passes on what has waited.
func (n *notices) late() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		return
	}
	n.waiting, n.last = nil, time.Now()
	n.changed()
}

// end passes on at once what waits. After it, changed is not called any more.
func (n *notices) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.waiting != nil {
		n.waiting.Stop()
		n.changed()
	}
	n.ended = true
}
