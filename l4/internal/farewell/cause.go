package farewell

import (
	"fmt"

	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/l4/internal/wire"
)

// A cause is why a client is refused, in words for people. They name the pool or the listener, and no address.
type cause struct {
	full bool // a limit or a queue; otherwise there is no backend, or the process ends
	ends bool // the process, or the listener
	text string
}

func causeOf(s *session.Session, why tally.Reason) cause {
	pool, listener := "", s.Listener().Name
	if p := s.Pool(); p != nil { // a listener with routes only may have none yet
		pool = p.Name()
	}
	switch why {
	case tally.MaxSessions:
		return cause{full: true, text: fmt.Sprintf("listener %q has reached its limit of sessions", listener)}
	case tally.ClientSessions:
		return cause{full: true,
			text: fmt.Sprintf("this client has all the sessions that it may have at listener %q", listener)}
	case tally.ClientRate:
		return cause{full: true, text: fmt.Sprintf("this client comes to listener %q more often than it may", listener)}
	case tally.Rate:
		return cause{full: true, text: fmt.Sprintf("clients come to listener %q more often than they may", listener)}
	case tally.BackendsFull:
		return cause{full: true, text: fmt.Sprintf("all backends of pool %q are full", pool)}
	case tally.QueueFull:
		return cause{full: true, text: fmt.Sprintf("all backends of pool %q are full, and so is its queue", pool)}
	case tally.QueueTimeout:
		return cause{full: true,
			text: fmt.Sprintf("all backends of pool %q are full, and none had room in time", pool)}
	case tally.HoldFull:
		return cause{
			text: fmt.Sprintf("no backend of pool %q is available, and as many sessions wait for one as may", pool),
		}
	case tally.HoldTimeout:
		return cause{text: fmt.Sprintf("no backend of pool %q is available, and none became so in time", pool)}
	case tally.NoDescriptors:
		return cause{full: true, text: fmt.Sprintf("no descriptor or port is left to connect to pool %q", pool)}
	case tally.NoSource:
		return cause{text: fmt.Sprintf("no source address of pool %q can be used", pool)}
	case tally.ConnectFailed:
		return cause{text: fmt.Sprintf("no backend of pool %q could be connected to", pool)}
	case tally.BackendTLS:
		return cause{text: fmt.Sprintf("no TLS handshake with a backend of pool %q succeeded", pool)}
	case tally.Drained:
		return cause{ends: true, text: fmt.Sprintf("listener %q is shutting down", listener)}
	}
	return cause{text: fmt.Sprintf("no backend of pool %q is available", pool)}
}

// dns is the cause as an answer to DNS questions. A client asks another server after either code.
func (c *cause) dns() *wire.DNSError {
	switch {
	case c.full:
		return &wire.DNSError{Code: wire.DNSRefused, Extended: wire.DNSOther, Text: c.text}
	case c.ends:
		return &wire.DNSError{Code: wire.DNSFailed, Extended: wire.DNSNotReady, Text: c.text}
	}
	return &wire.DNSError{Code: wire.DNSFailed, Extended: wire.DNSUnreachable, Text: c.text}
}
