package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"
)

// A pattern is how the load generator uses its connections.
type pattern string

const (
	// closed loop: each connection stays open, and sends the next request after an answer
	patternKept    pattern = "kept"
	patternConnect pattern = "connect" // closed loop: connect, one request, its answer, close
	// open loop: requests are due at fixed times, whether or not earlier ones have been answered
	patternPaced  pattern = "paced"
	patternIdle   pattern = "idle"   // connections that have had one answer and then stay silent
	patternTrains pattern = "trains" // closed loop: each socket has one train of datagrams under way
	patternDNS    pattern = "dns"    // dnsperf: so many sockets, and so many questions under way in all
	// pgbench: select-only transactions, due at fixed times, from so many connections
	patternPostgres pattern = "postgres"
	patternRedis    pattern = "redis" // redis-benchmark: closed loop from so many connections, see redisJob

	patternKnock  pattern = "knock"  // connections that may be refused, see floodJob
	patternSpray  pattern = "spray"  // datagrams of ever new clients, see floodJob
	patternPing   pattern = "ping"   // datagrams at fixed times from so many sockets that are kept
	patternStream pattern = "stream" // connections on which one side always sends
)

// A job describes one run of the load generator. Its zero value is of no use; the scenarios make them.
type job struct {
	Pattern     pattern          `json:"pattern"`
	Targets     []netip.AddrPort `json:"targets"` // connections take turns among them
	Connections int              `json:"connections"`
	Depth       int              `json:"depth"` // requests under way on one connection, patternKept; on all, patternDNS
	Payload     int64            `json:"payload_bytes"`
	Answer      int64            `json:"answer_bytes"`
	Raw         bool             `json:"raw,omitempty"`     // requests and answers have no heads, patternKept
	Resting     int              `json:"resting,omitempty"` // further connections that stay silent, patternPaced
	Redis       *redisJob        `json:"redis,omitempty"`   // of patternRedis
	// requests per second over all connections, patternPaced and patternPostgres (0 = a closed loop), and patternDNS
	// unless 0
	Rate     int            `json:"rate"`
	TLS      *tlsJob        `json:"tls,omitempty"`      // nil: plain; of patternKept, patternConnect and patternIdle
	Flooders int            `json:"flooders,omitempty"` // connections of a flood of handshakes meanwhile, patternPostgres
	Flood    *floodJob      `json:"flood,omitempty"`    // of patternKnock and patternSpray
	Beside   *job           `json:"beside,omitempty"`   // a flood meanwhile
	Lead     time.Duration  `json:"lead_ns,omitempty"`  // before transactions count and the flood begins, patternPostgres
	Datagram datagramKind   `json:"datagram,omitempty"` // patternPing and patternSpray
	In       bool           `json:"in,omitempty"`       // the client is the side that sends, patternStream
	Meter    netip.AddrPort `json:"meter,omitzero"`     // a backend, without a balancer between, patternStream
	Warmup   time.Duration  `json:"warmup_ns"`
	Duration time.Duration  `json:"duration_ns"`
}

// A loadResult is what the load generator saw between "go" and the last answer. With TCP every request has been
// answered, since otherwise there is no result.
type loadResult struct {
	Requests uint64        `json:"requests"`
	Lost     uint64        `json:"lost"`  // requests by UDP that were not answered
	Bytes    int64         `json:"bytes"` // payloads and answers
	Elapsed  time.Duration `json:"elapsed_ns"`
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
	P999     time.Duration `json:"p999_ns"`
	Max      time.Duration `json:"max_ns"`

	TLS        string  `json:"tls,omitempty"`        // what all connections negotiated
	Handshakes float64 `json:"handshakes,omitempty"` // of the flood, per second

	Reload time.Duration `json:"reload_ns,omitempty"` // that of the balancer meanwhile took so long

	Flood  *floodResult  `json:"flood,omitempty"`  // of patternKnock and patternSpray, or of one beside
	Stream *streamResult `json:"stream,omitempty"` // of patternStream
}

const (
	// stallTimeout is how long the load generator waits without any progress while an answer is due: far longer than
	// any contender's longest pause.
	stallTimeout = 10 * time.Second

	// waitSlice is the longest single wait: short, so that a stall is seen.
	waitSlice = 20 * time.Millisecond

	// sourceCount is how many loopback addresses connections come from in turn.
	// The client closes first and so keeps each four-tuple in TIME_WAIT for a
	// minute: at 10,000 connections a second that is 600,000 of them, and one
	// address has 28,000 ports.
	sourceCount = 64
)

// A load is the load generator's one loop. It belongs to one goroutine; see runLoad.
//
// Invariant: inFlight is the number of requests begun and not yet answered, over
// all connections.
type load struct {
	job     job
	poll    *poller
	started time.Time // all times of the loop are since then
	filler  []byte

	conns    []*loadConn // by number
	resting  []*loadConn // those that stay silent beside them
	byFD     []*loadConn
	opened   int // connections ever opened; gives each its target and source
	inFlight int
	samples  []time.Duration
	bytes    int64
	lastSeen time.Duration // when something last happened
}

// runLoad runs the load generator's process. It reads a job as one line of JSON, warms up, says "ready" once nothing is
// under way any more, waits for a line, does the job, prints its result as one line of JSON, and keeps its connections
// until stdin ends (idle ones must then still answer). So clocks and counters that are read before the line and after
// the result differ by exactly the job's work.
func runLoad(stdin io.Reader, stdout io.Writer) error {
	lines := bufio.NewScanner(stdin)
	lines.Buffer(nil, 1<<20)
	var j job
	if err := nextLine(lines, &j); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	if j.TLS != nil {
		return runTLSLoad(j, lines, stdin, stdout)
	}
	quiet()
	switch j.Pattern {
	case patternTrains:
		return runTrains(j, lines, stdin, stdout)
	case patternKnock, patternSpray:
		return runFlood(j, lines, stdin, stdout)
	case patternPing:
		return runPing(j, lines, stdin, stdout)
	case patternStream:
		return runStreams(j, lines, stdin, stdout)
	}
	poll, err := newPoller()
	if err != nil {
		return err
	}
	defer poll.close()
	l := &load{job: j, poll: poll, started: time.Now(), filler: make([]byte, chunkBytes)}
	err = obey(lines, stdin, stdout, func() error {
		if err := l.warmUp(); err != nil {
			return err
		}
		l.samples = make([]time.Duration, 0, 1<<20) // 8 MiB: seldom grows while it counts
		l.bytes = 0
		return nil
	}, func() (loadResult, error) {
		begin := l.now()
		err := l.work(l.job.Duration)
		return l.result(l.now() - begin), err
	})
	if err != nil {
		return err
	}
	if l.job.Resting > 0 {
		l.conns = l.resting
	}
	if l.job.Pattern == patternIdle || l.job.Resting > 0 {
		return l.recheckIdle()
	}
	return nil
}

// obey follows the bench's commands, once the load generator has its job.
func obey(lines *bufio.Scanner, stdin io.Reader, stdout io.Writer, warmUp func() error,
	work func() (loadResult, error)) error {
	if err := warmUp(); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	if _, err := fmt.Fprintln(stdout, "ready"); err != nil {
		return err
	}
	if !lines.Scan() {
		return lines.Err()
	}
	r, err := work()
	if err != nil {
		return err
	}
	if err := json.NewEncoder(stdout).Encode(r); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stdin)
	return err
}

func nextLine(lines *bufio.Scanner, v any) error {
	if !lines.Scan() {
		if err := lines.Err(); err != nil {
			return err
		}
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(lines.Bytes(), v)
}

func (l *load) now() time.Duration { return time.Since(l.started) }

// warmUp opens the connections that are kept and does the job's work for the warm-up time.
func (l *load) warmUp() error {
	switch l.job.Pattern {
	case patternKept, patternPaced:
		// those that stay silent, a few at a time: a listener's queue does not hold them all
		if err := l.openIdle(l.job.Resting); err != nil {
			return err
		}
		l.conns, l.resting = nil, l.conns
		if err := l.openKept(); err != nil {
			return err
		}
		return l.work(l.job.Warmup)
	case patternIdle:
		return l.warmUpIdle()
	}
	return l.work(l.job.Warmup)
}

func (l *load) work(d time.Duration) error {
	switch l.job.Pattern {
	case patternKept:
		return l.runKept(d)
	case patternConnect:
		return l.runConnect(d)
	case patternPaced:
		return l.runPaced(d)
	case patternIdle:
		return l.runIdle()
	}
	return fmt.Errorf("no load pattern %q", l.job.Pattern)
}

// step waits up to timeout, advances every ready connection, records each answered request, and calls visit for each
// connection with an event, so that the pattern decides what comes next. It fails if answers are due and nothing has
// happened for stallTimeout.
func (l *load) step(timeout time.Duration, visit func(*loadConn) error) error {
	events, err := l.poll.wait(min(timeout, waitSlice))
	if err != nil {
		return err
	}
	now := l.now()
	if len(events) > 0 {
		l.lastSeen = now
	} else if l.inFlight > 0 && now-l.lastSeen > stallTimeout {
		return fmt.Errorf("%d requests unanswered for %s", l.inFlight, stallTimeout)
	}
	for i := range events {
		c := l.byFD[events[i].Fd]
		done, err := c.advance(l, events[i].Events)
		if err == nil {
			if done {
				l.samples = append(l.samples, l.now()-c.finish(l))
			}
			err = visit(c)
		}
		if err != nil {
			return fmt.Errorf("connection %d (%s to %s): %w", c.number, c.source, c.target, err)
		}
	}
	return nil
}

// drain steps until every request is answered.
func (l *load) drain(visit func(*loadConn) error) error {
	for l.inFlight > 0 {
		if err := l.step(waitSlice, visit); err != nil {
			return err
		}
	}
	return nil
}

func (l *load) result(elapsed time.Duration) loadResult {
	slices.Sort(l.samples)
	r := loadResult{Requests: uint64(len(l.samples)), Bytes: l.bytes, Elapsed: elapsed}
	if len(l.samples) > 0 {
		r.P50, r.P99, r.P999 = percentile(l.samples, 50), percentile(l.samples, 99), percentile(l.samples, 99.9)
		r.Max = l.samples[len(l.samples)-1]
	}
	return r
}

// open connects a new connection with the given number, from the next source
// address to the next target. It must not be open.
func (l *load) open(number int) (*loadConn, error) {
	fd, err := socketFD()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	for fd >= len(l.byFD) {
		l.byFD = append(l.byFD, &loadConn{}) // used again, since the collector is off
	}
	c := l.byFD[fd]
	*c = loadConn{
		fd:     fd,
		number: number,
		source: netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + l.opened%sourceCount)}),
		target: l.job.Targets[l.opened%len(l.job.Targets)],
	}
	c.awaitAnswer(l)
	l.opened++
	if err := c.connect(l); err != nil {
		closeFD(fd)
		return nil, fmt.Errorf("connect %s to %s: %w", c.source, c.target, err)
	}
	return c, nil
}
