package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/wire"
	"github.com/limeload/limeload-l4/pool"
)

const (
	// maxKnown and maxUnknown are how many cancels of either kind are sent at once: whoever invents keys holds up no
	// others. One takes a server some milliseconds, and a backend that does not answer holds a worker for its
	// connect_timeout.
	maxKnown   = 32
	maxUnknown = 16

	// maxWaiting is how many cancels of either kind wait for a worker. Further ones are dropped.
	maxWaiting = 1024

	// cancelPatience is how long a cancel may take from the client's request on. One that has waited for longer is
	// dropped: the query that it was for is likely over, and the client gone.
	cancelPatience = 30 * time.Second

	// closePatience is how long a server may take to close the connection of a cancel, which it does when the query is
	// signalled.
	closePatience = 10 * time.Second

	// maxAnswer bounds what is read of a server until then. It should send nothing.
	maxAnswer = 8 << 10
)

// A Sender sends CancelRequests to backends, on goroutines of its own: there are some while there are cancels. Its
// methods may be called from any goroutine; its zero value is of no use, see NewSender.
type Sender struct {
	// Encrypt makes a connection to a backend one that speaks TLS, if connections of its pool do, and otherwise returns
	// it as it is. It is done when ctx is. Nil encrypts none. It is set before the first cancel.
	Encrypt func(ctx context.Context, c net.Conn, p *pool.Pool, at pool.Address) (net.Conn, error)

	// set once, then read-only
	started time.Time
	stopped context.Context // kept here, since a cancel outlives each call, and no caller's context can end it
	stop    context.CancelFunc

	running sync.WaitGroup

	// mu guards the fields below
	mu      sync.Mutex
	dialer  *dial.Dialer
	waiting [2][]*delivery // for a worker, by kind
	workers [2]int         // by kind
	closed  bool
}

// The kinds of deliveries.
const (
	known   = iota // to the backend that the key is of
	unknown        // to all backends in use
)

// A delivery is a cancel on its way to one backend; or, without one, on its way to all that are in use.
type delivery struct {
	*request
	to target
}

// NewSender makes a Sender whose sockets are noted in these chains.
func NewSender(chains *dial.Chains) *Sender {
	s := &Sender{started: time.Now(), dialer: dial.NewDialer(chains)}
	s.stopped, s.stop = context.WithCancel(context.Background())
	return s
}

// Close drops what waits, cuts the connections, and returns when the last goroutine is gone.
func (s *Sender) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.running.Wait()
}

// send sends a request to the backends of its key, or to all in use if there is none. It reports false, and does
// nothing, if too many wait.
func (s *Sender) send(r *request, owners []target) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	kind := known
	if len(owners) == 0 {
		kind = unknown
	}
	if s.closed || len(s.waiting[kind]) >= maxWaiting {
		return false
	}
	if kind == unknown {
		s.addLocked(unknown, &delivery{request: r})
		return true
	}
	r.left = len(owners)
	for _, to := range owners {
		s.addLocked(known, &delivery{r, to})
	}
	return true
}

// addLocked adds a delivery, and has a worker for it if there may be one more. A worker stays while deliveries of its
// kind wait, so each is made.
func (s *Sender) addLocked(kind int, d *delivery) {
	s.waiting[kind] = append(s.waiting[kind], d)
	s.hireLocked(kind, 1)
}

// hireLocked has up to n further workers for a kind.
func (s *Sender) hireLocked(kind, n int) {
	most := maxKnown
	if kind == unknown {
		most = maxUnknown
	}
	for ; n > 0 && s.workers[kind] < most; n-- {
		s.workers[kind]++
		s.running.Go(func() { s.work(kind) })
	}
}

// work makes deliveries of a kind until there are no more.
func (s *Sender) work(kind int) {
	for {
		s.mu.Lock()
		if len(s.waiting[kind]) == 0 {
			s.waiting[kind] = nil
			s.workers[kind]--
			s.mu.Unlock()
			return
		}
		d := s.waiting[kind][0]
		s.waiting[kind][0] = nil
		s.waiting[kind] = s.waiting[kind][1:]
		s.mu.Unlock()
		switch {
		case d.to.backend == nil:
			s.spread(d.request)
		case s.stopped.Err() != nil || time.Since(d.began) > cancelPatience:
			d.over(errTooLate)
		default:
			d.over(s.deliver(d))
		}
	}
}

// spread makes a request with an unknown key one for each backend in use. They go before all that waits: so no more
// than maxUnknown requests are spread, however many wait.
func (s *Sender) spread(r *request) {
	var all []*delivery
	for _, p := range r.pools {
		for _, b := range p.Leased() {
			all = append(all, &delivery{r, target{p, b, r.port}})
		}
	}
	if len(all) == 0 {
		r.left = 1
		r.over(nil)
		return
	}
	r.left = len(all)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[unknown] = append(all, s.waiting[unknown]...)
	s.hireLocked(unknown, len(all))
}

// errTooLate is why a delivery was not tried.
var errTooLate = errors.New("it has waited too long")

// deliver sends a cancel to one backend, and waits until that has closed the connection.
func (s *Sender) deliver(d *delivery) error {
	ctx, cancel := context.WithTimeout(s.stopped, d.to.pool.ConnectTimeout())
	defer cancel()
	link := d.link.OnBehalf()
	plain, err := s.connect(d, &link)
	if err != nil {
		return err
	}
	defer func() {
		plain.Close()
		s.mu.Lock()
		s.dialer.Forget(link)
		s.mu.Unlock()
	}()
	defer context.AfterFunc(s.stopped, func() { plain.SetDeadline(time.Unix(1, 0)) })()

	deadline, _ := ctx.Deadline()
	plain.SetDeadline(deadline)
	var head []byte
	if version := d.to.pool.SendProxy(); version != 0 {
		head = appendProxy(head, version)
	}
	c := plain
	if s.Encrypt != nil {
		if len(head) > 0 {
			if _, err := plain.Write(head); err != nil {
				return err
			}
			head = nil
		}
		if c, err = s.Encrypt(ctx, plain, d.to.pool, d.to.address()); err != nil {
			return err
		}
	}
	if _, err := c.Write(wire.AppendPostgresCancel(head, d.key)); err != nil {
		return err
	}
	plain.SetDeadline(time.Now().Add(closePatience))
	_, err = io.Copy(io.Discard, io.LimitReader(c, maxAnswer))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil // a reset is an end, too
}

// appendProxy appends a PROXY header that names no client.
func appendProxy(to []byte, version int) []byte {
	if version == 2 {
		return wire.AppendProxyLocal(to, wire.ProxyV2)
	}
	return wire.AppendProxyLocal(to, wire.ProxyV1)
}

// ErrDeclined is wrapped when a server does not want TLS.
var ErrDeclined = errors.New("the server declines TLS")

// StartTLS asks the server at the other end of a connection for TLS. If the error is nil, the handshake follows.
func StartTLS(c net.Conn) error {
	if _, err := c.Write(wire.AppendPostgresSSLRequest(nil)); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return err
	}
	if answer[0] != 'S' {
		return ErrDeclined
	}
	return nil
}

// connect begins to connect to a delivery's backend: the first write waits for that.
func (s *Sender) connect(d *delivery, link **dial.Link) (net.Conn, error) {
	client := dial.Client{By: d.by, Link: link, Port: d.to.port}
	s.mu.Lock()
	fd, e := s.dialer.Dial(time.Since(s.started), sock.TCP, d.to.pool, d.to.backend, client)
	s.mu.Unlock()
	if e != 0 && e != sock.InProgress {
		return nil, e
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		s.mu.Lock()
		s.dialer.Forget(*link)
		s.mu.Unlock()
	}
	return c, err
}
