package main

// idleBurst is how many idle connections are being opened at once, and how many
// the balancer has served before its memory is first looked at: enough for what
// it allocates once, and few beside the thousands that follow.
const idleBurst = 64

// warmUpIdle opens a few connections, gets one answer on each, and closes them.
func (l *load) warmUpIdle() error {
	if err := l.openIdle(idleBurst); err != nil {
		return err
	}
	for _, c := range l.conns {
		closeFD(c.fd)
	}
	l.conns = nil
	return nil
}

// runIdle opens job.Connections and gets one answer on each, so that the sessions are at rest and not unused.
func (l *load) runIdle() error { return l.openIdle(l.job.Connections) }

// recheckIdle gets one more answer on each idle connection, to detect a balancer that dropped some.
func (l *load) recheckIdle() error {
	for _, c := range l.conns {
		if err := c.begin(l, l.now()); err != nil {
			return err
		}
	}
	return l.drain(func(*loadConn) error { return nil })
}

func (l *load) openIdle(n int) error {
	open := func() error {
		c, err := l.openAndAsk(len(l.resting) + len(l.conns))
		if err != nil {
			return err
		}
		l.conns = append(l.conns, c)
		return nil
	}
	for range min(n, idleBurst) {
		if err := open(); err != nil {
			return err
		}
	}
	return l.drain(func(c *loadConn) error {
		if c.sent > c.answered || len(l.conns) == n {
			return nil
		}
		return open()
	})
}
