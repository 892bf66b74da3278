package fleet

import (
	"errors"
	"net"
	"time"
)

// A Link is the state of the connection to etcd. It is a plain value.
type Link struct {
	Up       bool
	Endpoint string    // that answers, or answered last
	Since    time.Time // of Up
	// Err is why it is not up or, if it is up, why etcd refuses what this node writes: it reads on then. nil: it is up and
	// takes it, or there was no attempt yet.
	Err error
}

// Link returns the state of the connection.
func (f *Fleet) Link() Link {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.link
}

// linkUp records that this node reads at an endpoint, and reports it.
func (f *Fleet) linkUp(endpoint string) {
	f.mu.Lock()
	f.link = Link{Up: true, Endpoint: endpoint, Since: time.Now(), Err: f.trouble}
	f.stats.Connects++
	l := f.link
	f.mu.Unlock()
	f.report(l)
}

// linkDown records why there is no connection, and reports it.
func (f *Fleet) linkDown(endpoint string, err error) {
	f.mu.Lock()
	f.loseLinkLocked(endpoint, err)
	l := f.link
	f.mu.Unlock()
	f.report(l)
}

// loseLinkLocked records why there is no connection. A change that was not written in time is one that was made without
// a connection: there may be later ones when it is written. Fleet.mu is held.
func (f *Fleet) loseLinkLocked(endpoint string, err error) {
	now := time.Now()
	since := now
	if f.link.Up {
		f.contact = now
	} else if f.link.Err != nil {
		since = f.link.Since
	}
	f.link = Link{Endpoint: endpoint, Since: since, Err: err}
	for _, k := range f.unwritten {
		if k.state == changed {
			k.state = changedAway
		}
	}
}

// setTrouble records why etcd refuses what this node writes, nil for nothing, and reports it.
func (f *Fleet) setTrouble(err error) {
	f.mu.Lock()
	same := f.trouble == nil && err == nil
	f.trouble = err
	if f.link.Up {
		f.link.Err = err
	}
	l := f.link
	f.mu.Unlock()
	if l.Up && !same {
		f.report(l)
	}
}

// reportEvery is the shortest time between two reports of losses, so that a connection that comes and goes does not
// fill the log.
const reportEvery = 10 * time.Second

// reports is what LinkChanged was told last. Its zero value is that of no report. It is not safe for concurrent use.
type reports struct {
	up, down bool              // the state that was reported last; neither: none was
	trouble  string            // that was reported with up
	causes   map[string]string // why there is no connection, by endpoint; of this loss
	at       time.Time         // of the last report of a loss or of trouble
}

// report calls LinkChanged if there is something new.
func (f *Fleet) report(l Link) {
	f.calls.Lock()
	defer f.calls.Unlock()
	if f.reported.news(l, time.Now()) && f.o.LinkChanged != nil {
		f.o.LinkChanged(l)
	}
}

// news reports whether a link is worth a report now, which is noted: a loss, another reason for it, a connection after
// a loss, trouble and its end. A loss soon after another report waits for its next failed attempt.
func (r *reports) news(l Link, now time.Time) bool {
	soon := !r.at.IsZero() && now.Sub(r.at) < reportEvery
	if l.Up {
		trouble := cause(l.Err)
		switch {
		case r.up && trouble == r.trouble:
			return false
		case r.up && trouble != "" && soon:
			return false
		}
		*r = reports{up: true, trouble: trouble, at: r.at}
		if trouble != "" {
			r.at = now
		}
		return true
	}
	if soon {
		return false
	}
	if !r.down {
		*r = reports{down: true, causes: make(map[string]string)}
	} else if r.causes[l.Endpoint] == cause(l.Err) {
		return false
	}
	r.causes[l.Endpoint] = cause(l.Err)
	r.at = now
	return true
}

// cause returns the text of an error without what differs in each attempt, such as the port of a connection.
func cause(err error) string {
	var network *net.OpError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &network):
		return network.Op + ": " + network.Err.Error()
	}
	return err.Error()
}
