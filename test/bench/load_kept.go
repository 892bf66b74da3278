package main

import "time"

// openKept opens the job's connections; they are established while their first
// requests are under way. Where they are many, each has had an answer before more
// are opened, since a listener's queue would not hold them all.
func (l *load) openKept() error {
	if l.job.Connections > idleBurst {
		return l.openIdle(l.job.Connections)
	}
	for i := range l.job.Connections {
		c, err := l.open(len(l.resting) + i)
		if err != nil {
			return err
		}
		l.conns = append(l.conns, c)
	}
	return nil
}

// runKept keeps job.Depth requests under way on each connection for d, and then
// waits for the answers that are due.
func (l *load) runKept(d time.Duration) error {
	deadline := l.now() + d
	refill := func(c *loadConn) error {
		for c.sent-c.answered < uint64(l.job.Depth) && !c.writing() {
			now := l.now()
			if now >= deadline {
				return nil
			}
			if err := c.begin(l, now); err != nil {
				return err
			}
		}
		return nil
	}
	for _, c := range l.conns {
		if err := refill(c); err != nil {
			return err
		}
	}
	return l.drain(refill)
}
