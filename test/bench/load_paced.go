package main

import "time"

// runPaced sends job.Rate requests per second for d, evenly spaced and in turn on
// all connections. A request that is due while its connection still waits for an
// answer is sent right after that, and its latency counts from when it was due:
// a balancer that pauses does not get rid of the requests that fell into the
// pause ("coordinated omission").
func (l *load) runPaced(d time.Duration) error {
	start := l.now()
	due := func(k int) time.Duration {
		return start + time.Duration(int64(k)*int64(time.Second)/int64(l.job.Rate))
	}
	total := int(d.Seconds() * float64(l.job.Rate))
	next := 0 // the first request whose time has not come
	send := func(c *loadConn) error {
		if c.nextDue >= next || c.sent > c.answered {
			return nil
		}
		k := c.nextDue
		c.nextDue += len(l.conns)
		return c.begin(l, due(k))
	}
	for i, c := range l.conns {
		c.nextDue = i
	}
	for next < total || l.inFlight > 0 {
		for now := l.now(); next < total && due(next) <= now; {
			c := l.conns[next%len(l.conns)]
			next++
			if err := send(c); err != nil {
				return err
			}
		}
		timeout := waitSlice
		if next < total {
			timeout = due(next) - l.now()
		}
		if err := l.step(timeout, send); err != nil {
			return err
		}
	}
	return nil
}
