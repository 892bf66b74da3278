package daemon

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/fdconn"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
)

// An OldProcess is the process that this one takes over from, at an upgrade; see MeetOldProcess. Meet, Refuse and New use
// it from one goroutine, and then Daemon.Run.
type OldProcess struct {
	// set once, then read-only
	conn    *fdconn.Conn
	hello   hello
	offer   offer
	sockets []l4.ListeningSocket

	http []int // the descriptors of offer.HTTP; -1 for those that were taken

	working sync.WaitGroup // the goroutine of follow; end ends it
	follows atomic.Bool    // the old process may hand over more

	// The goroutine of follow uses the fields below.
	taking                 *l4.Taking // taken, and not begun; nil for none
	admitted               bool
	sessions, flows, later int  // taken over; later is how many of the sessions came after the end of the hand-over
	gone                   bool // the old process has ended before the end of the hand-over
}

// errOldProcessGone is the error of an old process that has ended, or has given up.
var errOldProcessGone = errors.New("the process to take over from has ended")

// MeetOldProcess returns the process that has started this one to take over from it, and nil if none has. It must be
// called once, before any program is started. version is that of this program. It returns when the old process has
// offered all that is needed to prepare.
func MeetOldProcess(version string) (*OldProcess, error) {
	text, set := os.LookupEnv(upgradeVariable)
	if !set {
		return nil, nil
	}
	_ = os.Unsetenv(upgradeVariable) // a valid name: it cannot fail
	fd, err := strconv.ParseUint(text, 10, 16)
	if err != nil || fd < firstInherited {
		return nil, fmt.Errorf("%s: found %q; a process sets it that upgrades itself: needs to be unset otherwise",
			upgradeVariable, text)
	}
	conn, err := fdconn.Take(int(fd))
	if err != nil {
		return nil, fmt.Errorf("%s: %w; a process sets it that upgrades itself: needs to be unset otherwise",
			upgradeVariable, err)
	}
	o := &OldProcess{conn: conn}
	if err := o.meet(newHello(version, os.Getpid())); err != nil {
		o.Refuse(err)
		o.discard()
		return nil, fmt.Errorf("take over from another process: %w", err)
	}
	return o, nil
}

// meet exchanges hello, and receives the offer and the sockets.
func (o *OldProcess) meet(own hello) error {
	if _, err := o.receive(kindHello, &o.hello); err != nil {
		return err
	}
	if err := o.conn.Send(kindHello, own); isEnd(err) {
		return errOldProcessGone
	} else if err != nil {
		return err
	}
	if err := o.hello.fits(own); err != nil {
		return err
	}
	m, err := o.receive(kindOffer, &o.offer)
	if err != nil {
		return err
	}
	if o.http = m.FDs; m.Missing > 0 || len(o.http) != len(o.offer.HTTP) {
		return fmt.Errorf("%d descriptors for %d sockets of HTTP", len(o.http), len(o.offer.HTTP))
	}
	for len(o.sockets) < o.offer.Sockets {
		var more sockets
		m, err := o.receive(kindSockets, &more)
		if err != nil {
			return err
		}
		if m.Missing > 0 || len(m.FDs) != len(more.Sockets) || len(m.FDs) == 0 {
			m.CloseFDs()
			return fmt.Errorf("%d descriptors for %d listening sockets; a higher limit of open files may help "+
				"(LimitNOFILE= of systemd)", len(m.FDs), len(more.Sockets))
		}
		for i, fd := range m.FDs {
			more.Sockets[i].FD = fd
		}
		o.sockets = append(o.sockets, more.Sockets...)
	}
	return nil
}

// instance returns the old process's instance in its fleet; "" without one.
func (o *OldProcess) instance() string {
	if o == nil {
		return ""
	}
	return o.offer.Instance
}

// discard closes the descriptors that were received.
func (o *OldProcess) discard() {
	for _, fd := range o.http {
		_ = syscall.Close(fd)
	}
	for _, s := range o.sockets {
		_ = syscall.Close(s.FD)
	}
	o.http, o.sockets = nil, nil
}

// receive receives a message of one kind.
func (o *OldProcess) receive(kind string, body any) (fdconn.Message, error) {
	m, err := o.conn.Receive()
	switch {
	case isEnd(err):
		return m, errOldProcessGone
	case err != nil:
		return m, err
	case m.Kind != kind:
		m.CloseFDs()
		return m, fmt.Errorf("message %q came instead of %q", m.Kind, kind)
	}
	if err := m.Decode(body); err != nil {
		m.CloseFDs()
		return m, err
	}
	return m, nil
}

// isEnd reports whether the other process has closed its end, or has ended.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, syscall.ECONNRESET)
}

// Refuse tells the old process why this one does not take over. It goes on then. Nothing happens for a nil OldProcess.
func (o *OldProcess) Refuse(err error) {
	if o == nil {
		return
	}
	var mistake *conf.Error
	_ = o.conn.Send(kindRefused, refused{Error: err.Error(), Configuration: errors.As(err, &mistake)}) // it may be gone
	o.conn.Close()
}

// takeHTTP returns the old process's listening socket of a name, if it is at this address, or nil. For a Unix socket,
// path and mode are those of the file.
func (o *OldProcess) takeHTTP(name, address, path string, mode os.FileMode) (net.Listener, error) {
	if o == nil {
		return nil, nil
	}
	i := slices.Index(o.offer.HTTP, offeredSocket{name, address})
	if i < 0 || i >= len(o.http) || o.http[i] < 0 {
		return nil, nil
	}
	fd := o.http[i]
	o.http[i] = -1
	return admin.Inherit(fd, path, mode)
}

// listening returns the sockets for l4.Options; nil without an old process.
func (o *OldProcess) listening() []l4.ListeningSocket {
	if o == nil {
		return nil
	}
	return append([]l4.ListeningSocket{}, o.sockets...)
}

// prepared tells the old process that everything is ready, and which sockets of HTTP were taken. The others are closed.
func (o *OldProcess) prepared() {
	var p prepared
	for i, fd := range o.http {
		if fd < 0 {
			p.HTTP = append(p.HTTP, o.offer.HTTP[i].Name)
		} else {
			_ = syscall.Close(fd)
		}
	}
	o.http = nil
	_ = o.conn.Send(kindPrepared, p) // if it is gone, receiving says so
}

// follow takes over what the old process sends to the server, until finish, and returns nil. If the old process ends
// before that, this one goes on with what it has: o.gone is set, and the error is nil, too.
func (o *OldProcess) follow(s *l4.Server) error {
	for {
		m, err := o.conn.Receive()
		switch {
		case isEnd(err):
			o.gone = true
			o.begin()
			return nil
		case err != nil:
			return err
		case m.Kind == kindFinish:
			o.begin()
			return nil
		}
		if err := o.handle(s, m); err != nil && !isEnd(err) {
			m.CloseFDs()
			return err
		}
	}
}

// followLater takes over what the old process sends after finish, until it ends. It calls isMain once, when this process
// is the main one for the service manager too.
func (o *OldProcess) followLater(s *l4.Server, isMain func()) {
	isMain = sync.OnceFunc(isMain)
	defer isMain()
	before := o.sessions
	for {
		m, err := o.conn.Receive()
		switch {
		case err != nil:
		case m.Kind == kindMain:
			isMain()
			continue
		default:
			if err = o.handle(s, m); err != nil {
				m.CloseFDs()
			}
		}
		if err != nil {
			o.begin() // it has ended: nobody else serves them
			o.later = o.sessions - before
			return
		}
	}
}

// handle handles one message.
func (o *OldProcess) handle(s *l4.Server, m fdconn.Message) error {
	if m.Kind != kindMoving && len(m.FDs) > 0 {
		return fmt.Errorf("message %q has descriptors", m.Kind)
	}
	switch m.Kind {
	case kindMoving:
		return o.take(s, m)
	case kindBegin:
		o.begin()
		return nil
	case kindAdmit:
		o.admit(s)
		return o.conn.Send(kindAdmitted, noBody)
	case kindCounters:
		var counters l4.Counters
		if err := m.Decode(&counters); err != nil {
			return err
		}
		s.AddCounters(counters)
		return o.conn.Send(kindCounted, noBody)
	}
	return fmt.Errorf("message %q is not known", m.Kind)
}

// take takes sessions or flows over. If descriptors are missing, because this process has no room for more, it refuses
// all of the message. After an error the descriptors are the caller's.
func (o *OldProcess) take(s *l4.Server, m fdconn.Message) error {
	o.begin() // the old process has sent the next ones, and so it has had the last answer
	var all moving
	if err := m.Decode(&all); err != nil {
		return err
	}
	var answer taken
	if m.Missing > 0 {
		m.CloseFDs()
		answer.Full = true
		for i := range all.Moving {
			answer.Refused = append(answer.Refused, i)
		}
		_ = o.conn.Send(kindTaken, answer) // if the old process is gone, receiving says so
		return nil
	}
	if err := all.assign(m.FDs); err != nil {
		return err
	}
	o.taking = s.TakeOver(all.Moving)
	answer.Refused = o.taking.Refused
	// If the old process is gone, receiving says so: nobody else serves them then. But if this one is ending, the old one
	// has no answer, and goes on with them.
	if err := o.conn.Send(kindTaken, answer); errors.Is(err, net.ErrClosed) {
		o.taking.Drop()
		o.taking = nil
		return nil
	}
	if n := len(all.Moving) - len(answer.Refused); all.Protocol == l4.UDP {
		o.flows += n
	} else {
		o.sessions += n
	}
	return nil
}

// begin serves what was taken.
func (o *OldProcess) begin() {
	if o.taking != nil {
		o.taking.Begin()
		o.taking = nil
	}
}

// admit lets clients in, once.
func (o *OldProcess) admit(s *l4.Server) {
	if !o.admitted {
		o.admitted = true
		s.Admit()
	}
}

// mayHaveMore reports whether the old process may hand over more.
func (o *OldProcess) mayHaveMore() bool { return o != nil && o.follows.Load() }

// end ends the connection and waits for the goroutine. Nothing happens for a nil OldProcess.
func (o *OldProcess) end() {
	if o == nil {
		return
	}
	o.conn.Close()
	o.working.Wait()
}
