package main

import "time"

// runConnect lets each of job.Connections slots connect, send one request, read
// its answer and close, again and again for d. The latency is that of all of it
// but the close.
func (l *load) runConnect(d time.Duration) error {
	deadline := l.now() + d
	for i := range l.job.Connections {
		if _, err := l.openAndAsk(i); err != nil {
			return err
		}
	}
	return l.drain(func(c *loadConn) error {
		if c.answered == 0 {
			return nil
		}
		closeFD(c.fd) // nothing unread, so it is a FIN
		if l.now() >= deadline {
			return nil
		}
		_, err := l.openAndAsk(c.number)
		return err
	})
}

// openAndAsk opens a connection and begins its first request.
func (l *load) openAndAsk(number int) (*loadConn, error) {
	begun := l.now()
	c, err := l.open(number)
	if err != nil {
		return nil, err
	}
	return c, c.begin(l, begun)
}
