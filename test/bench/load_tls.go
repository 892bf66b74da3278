package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A tlsJob says how the load generator uses TLS. With its zero value each handshake is a full one of TLS 1.3.
type tlsJob struct {
	TLS12  bool `json:"tls12"`  // at most TLS 1.2; otherwise exactly TLS 1.3
	Resume bool `json:"resume"` // each connection resumes the one before it, by a ticket

	// Flood makes the load generator a client that does harm: from one address it only does handshakes, as fast as it
	// can, and takes failures as they come. It yields the CPU to everyone else, since it stands for another machine.
	Flood bool `json:"flood"`
}

// tlsConfig returns the client's configuration. It offers what a client with OpenSSL 3.0 offers: X25519 first and no
// post-quantum key exchange, and it takes tickets even if it never uses one. Only the order of the ciphers differs,
// since crypto/tls has no setting for it: AES-128 stands before AES-256.
func tlsConfig(j tlsJob, cache tls.ClientSessionCache) *tls.Config {
	c := &tls.Config{
		ServerName:         serverName,
		InsecureSkipVerify: true, // the certificate is self-signed; its signature in the handshake is still verified
		MinVersion:         tls.VersionTLS13,
		MaxVersion:         tls.VersionTLS13,
		CurvePreferences:   []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521},
		ClientSessionCache: cache,

		DynamicRecordSizingDisabled: true, // bulk is sent in full records from its first byte
	}
	if j.TLS12 {
		c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	}
	return c
}

// A tlsLoad is the load generator of TLS. Unlike load, it has a goroutine for each connection that is in use, since
// crypto/tls blocks. Its methods are for one goroutine unless they say otherwise; see runTLSLoad.
type tlsLoad struct {
	job     job
	started time.Time // all times are since then
	filler  []byte    // only read

	slots  []*tlsSlot // by number
	failed atomic.Bool
}

// A tlsSlot is one place for connections, which follow one another: the connections of a slot resume each other. Only
// one goroutine at a time uses it.
type tlsSlot struct {
	number  int
	config  *tls.Config
	conn    *tlsConn // the present one; nil if there is none
	opened  int      // connections so far
	buffer  []byte   // for bulk
	samples []time.Duration
	bytes   int64
	lost    uint64     // handshakes of a flood that failed
	last    negotiated // what the last connection negotiated
}

// A noSessions is a cache that keeps nothing. With it a client offers to take tickets, but has none to resume with.
// Without a cache crypto/tls would not offer it, and then OpenSSL's servers send tickets all the same while those of
// crypto/tls do not.
type noSessions struct{}

func (noSessions) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (noSessions) Put(string, *tls.ClientSessionState)        {}

// A negotiated is the result of a handshake.
type negotiated struct {
	version, suite uint16
	group          tls.CurveID
	resumed        bool
}

func (n negotiated) String() string {
	group, kind := n.group.String(), "full"
	if n.group == 0 {
		group = "no key exchange"
	}
	if n.resumed {
		kind = "resumed"
	}
	return fmt.Sprintf("%s, %s, %s, %s", tls.VersionName(n.version), tls.CipherSuiteName(n.suite), group, kind)
}

// runTLSLoad runs the load generator's process for TLS, see runLoad.
func runTLSLoad(j job, lines *bufio.Scanner, stdin io.Reader, stdout io.Writer) error {
	debug.SetGCPercent(400) // handshakes allocate; a few collections a second do not count beside them
	if j.Pattern != patternConnect {
		runtime.GOMAXPROCS(1) // one loop, like the other load generators
	}
	if j.TLS.Flood {
		if err := yieldCPU(); err != nil {
			return err
		}
	}
	l := &tlsLoad{job: j, started: time.Now(), filler: make([]byte, chunkBytes)}
	err := obey(lines, stdin, stdout, func() error {
		if err := l.warmUp(); err != nil {
			return err
		}
		for _, s := range l.slots {
			s.samples, s.bytes, s.lost = s.samples[:0], 0, 0
		}
		return nil
	}, func() (loadResult, error) {
		begin := l.now()
		if err := l.work(j.Duration); err != nil {
			return loadResult{}, err
		}
		return l.result(l.now() - begin)
	})
	if err != nil || j.Pattern != patternIdle {
		return err
	}
	return l.each(l.slots, idleBurst, l.recheck)
}

// now may be called from any goroutine.
func (l *tlsLoad) now() time.Duration { return time.Since(l.started) }

func (l *tlsLoad) warmUp() error {
	if l.job.Pattern == patternIdle {
		l.addSlots(min(idleBurst, l.job.Connections))
		if err := l.openKept(); err != nil {
			return err
		}
		var errs []error
		for _, s := range l.slots {
			errs = append(errs, s.conn.close())
		}
		l.slots = nil
		return errors.Join(errs...)
	}
	l.addSlots(l.job.Connections)
	if l.job.Pattern == patternKept {
		if err := l.openKept(); err != nil {
			return err
		}
	}
	return l.work(l.job.Warmup)
}

func (l *tlsLoad) addSlots(n int) {
	for i := range n {
		s := &tlsSlot{number: i}
		s.config = tlsConfig(*l.job.TLS, noSessions{})
		if l.job.TLS.Resume {
			s.config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
		if l.job.Pattern == patternKept {
			s.buffer = make([]byte, chunkBytes)
		}
		l.slots = append(l.slots, s)
	}
}

// work does the job for d, or opens the idle connections.
func (l *tlsLoad) work(d time.Duration) error {
	deadline := l.now() + d
	switch {
	case l.job.TLS.Flood:
		return l.each(l.slots, len(l.slots), func(s *tlsSlot) error { return l.flood(s, deadline) })
	case l.job.Pattern == patternKept:
		return l.each(l.slots, len(l.slots), func(s *tlsSlot) error { return l.keepAsking(s, deadline) })
	case l.job.Pattern == patternConnect:
		return l.each(l.slots, len(l.slots), func(s *tlsSlot) error { return l.keepConnecting(s, deadline) })
	case l.job.Pattern == patternIdle:
		l.addSlots(l.job.Connections)
		return l.openKept()
	}
	return fmt.Errorf("no load pattern %q with TLS", l.job.Pattern)
}

// each calls do for every slot, each in a goroutine of its own and so many at a time. It returns when all calls have
// returned. After an error, the calls that have not begun are left out.
func (l *tlsLoad) each(slots []*tlsSlot, parallel int, do func(*tlsSlot) error) error {
	var next atomic.Int64
	errs := make([]error, len(slots))
	var wg sync.WaitGroup
	for range min(parallel, len(slots)) {
		wg.Go(func() {
			for !l.failed.Load() {
				i := int(next.Add(1)) - 1
				if i >= len(slots) {
					return
				}
				if err := do(slots[i]); err != nil {
					l.failed.Store(true)
					errs[i] = fmt.Errorf("connection %d (%s): %w", i, slots[i].conn, err)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err // one is enough: the others have the same cause
		}
	}
	return nil
}

// openKept opens a connection in each slot and gets one answer on it.
func (l *tlsLoad) openKept() error {
	return l.each(l.slots, idleBurst, func(s *tlsSlot) error {
		begun := l.now()
		if err := l.connect(s); err != nil {
			return err
		}
		if err := l.exchange(s, 0, answerBytes); err != nil {
			return err
		}
		s.samples = append(s.samples, l.now()-begun)
		return nil
	})
}

// recheck gets one more answer on an idle connection, to detect a balancer that dropped some.
func (l *tlsLoad) recheck(s *tlsSlot) error {
	if err := s.conn.allow(stallTimeout); err != nil {
		return err
	}
	return l.exchange(s, 0, answerBytes)
}

// keepAsking sends requests on the slot's connection, one after the other, until the deadline.
func (l *tlsLoad) keepAsking(s *tlsSlot, deadline time.Duration) error {
	if err := s.conn.allow(deadline - l.now() + stallTimeout); err != nil {
		return err
	}
	for now := l.now(); now < deadline && !l.failed.Load(); {
		if err := l.exchange(s, l.job.Payload, l.job.Answer); err != nil {
			return err
		}
		done := l.now()
		s.samples = append(s.samples, done-now)
		s.bytes += l.job.Payload + l.job.Answer
		now = done
	}
	return nil
}

// keepConnecting connects, does a handshake, sends a request, reads its answer and closes, again and again until the
// deadline. The latency is that of all of it but the close.
func (l *tlsLoad) keepConnecting(s *tlsSlot, deadline time.Duration) error {
	for l.now() < deadline && !l.failed.Load() {
		begun := l.now()
		if err := l.connect(s); err != nil {
			return err
		}
		if want := l.job.TLS.Resume && s.opened > 1; s.last.resumed != want {
			return fmt.Errorf("handshake is resumed: %t, want %t", s.last.resumed, want)
		}
		if err := l.exchange(s, l.job.Payload, l.job.Answer); err != nil {
			return err
		}
		s.samples = append(s.samples, l.now()-begun)
		if err := s.conn.close(); err != nil {
			return err
		}
	}
	return nil
}

// flood connects, does a handshake and closes, again and again until the deadline.
func (l *tlsLoad) flood(s *tlsSlot, deadline time.Duration) error {
	for l.now() < deadline {
		begun := l.now()
		if err := l.connect(s); err != nil {
			s.lost++
			time.Sleep(time.Millisecond) // so that refusals do not become a busy loop
		} else {
			s.samples = append(s.samples, l.now()-begun)
		}
		if s.conn != nil {
			_ = s.conn.close() // the connection may be broken
		}
	}
	return nil
}

// result sums up the work. All connections must have negotiated the same.
func (l *tlsLoad) result(elapsed time.Duration) (loadResult, error) {
	r := loadResult{Elapsed: elapsed}
	var samples []time.Duration
	var first negotiated
	for _, s := range l.slots {
		samples = append(samples, s.samples...)
		r.Bytes += s.bytes
		r.Lost += s.lost
		switch {
		case s.opened == 0 || l.job.TLS.Flood:
		case l.job.TLS.Resume && s.opened == 1: // on a busy machine, its only one: there was nothing to resume yet
		case first == negotiated{}:
			first = s.last
			r.TLS = first.String()
		case s.last != first:
			return r, fmt.Errorf("connections negotiated different things: %s, and %s", first, s.last)
		}
	}
	slices.Sort(samples)
	r.Requests = uint64(len(samples))
	if len(samples) > 0 {
		r.P50, r.P99 = percentile(samples, 50), percentile(samples, 99)
		r.Max = samples[len(samples)-1]
	}
	return r, nil
}
