package main

import (
	"bufio"
	"errors"
	"io"
	"net/netip"
	"runtime"
	"sync"
	"time"
)

// A floodJob says how clients come that may be refused: connections (patternKnock), or datagrams (patternSpray).
type floodJob struct {
	Source  netip.Prefix `json:"source"`  // datagrams come from all of its addresses in turn, connections from its own
	Senders int          `json:"senders"` // threads
	Rate    int          `json:"rate"`    // a second, over all senders; 0 = as many as the machine gives

	// Slots is how many connections each sender has at once.
	Slots int `json:"slots,omitempty"`

	// Patience is how long the client keeps a connection that has not been refused or answered.
	Patience time.Duration `json:"patience_ns,omitempty"`

	// Ask says that each connection sends a request and waits for its answer, and that answers to datagrams count.
	Ask bool `json:"ask,omitempty"`

	// Harm makes the load generator yield the CPU to everyone else, since it stands for another machine. It has no
	// warm-up.
	Harm bool `json:"harm,omitempty"`
}

// A floodResult is what the load generator saw of such clients.
type floodResult struct {
	Offered   uint64        `json:"offered"`
	Refused   uint64        `json:"refused,omitempty"`  // connections that ended without an answer
	Answered  uint64        `json:"answered,omitempty"` // or sent something, unless they asked
	Abandoned uint64        `json:"abandoned,omitempty"`
	Failed    uint64        `json:"failed,omitempty"` // that could not even be sent: no port, no memory
	Elapsed   time.Duration `json:"elapsed_ns"`
}

func (r *floodResult) add(o floodResult) {
	r.Offered += o.Offered
	r.Refused += o.Refused
	r.Answered += o.Answered
	r.Abandoned += o.Abandoned
	r.Failed += o.Failed
	r.Elapsed = max(r.Elapsed, o.Elapsed)
}

// A floodSender is one thread's part of a flood.
type floodSender interface {
	// run does the work for d, and waits a little for answers that are under way.
	run(d time.Duration) (floodResult, error)
	close()
}

// refill is the pause after a warm-up, in which limits of a rate forget it.
const refill = 500 * time.Millisecond

// runFlood runs the load generator's process for patternKnock and patternSpray, see runLoad.
func runFlood(j job, lines *bufio.Scanner, stdin io.Reader, stdout io.Writer) error {
	f := *j.Flood
	runtime.GOMAXPROCS(f.Senders + 1) // a sender does not give its P back while it waits
	if f.Harm {
		if err := yieldCPU(); err != nil {
			return err
		}
	}
	var senders []floodSender
	defer func() {
		for _, s := range senders {
			s.close()
		}
	}()
	for i := range f.Senders {
		s, err := newFloodSender(j, i)
		if err != nil {
			return err
		}
		senders = append(senders, s)
	}
	return obey(lines, stdin, stdout, func() error {
		if f.Harm || f.Rate == 0 {
			return nil
		}
		_, err := floodFrom(senders, j.Warmup)
		time.Sleep(refill)
		return err
	}, func() (loadResult, error) {
		r, err := floodFrom(senders, j.Duration)
		return loadResult{Requests: r.Answered, Elapsed: r.Elapsed, Flood: &r}, err
	})
}

func newFloodSender(j job, number int) (floodSender, error) {
	if j.Pattern == patternKnock {
		return newKnocker(j)
	}
	return newSprayer(j, number)
}

// floodFrom lets all senders work for d, each on a thread of its own.
func floodFrom(senders []floodSender, d time.Duration) (floodResult, error) {
	results := make([]floodResult, len(senders))
	errs := make([]error, len(senders))
	var wg sync.WaitGroup
	for i, s := range senders {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			results[i], errs[i] = s.run(d)
		})
	}
	wg.Wait()
	var sum floodResult
	for _, r := range results {
		sum.add(r)
	}
	return sum, errors.Join(errs...)
}

// A pace says how many are due. The zero value has no rate: everything is due.
type pace struct{ every time.Duration }

// newPace returns one sender's pace of a rate that several share; 0 = none.
func newPace(perSecond, senders int) pace {
	if perSecond == 0 {
		return pace{}
	}
	return pace{every: time.Second * time.Duration(senders) / time.Duration(perSecond)}
}

// due reports whether the next one after n is due at that time since the start.
func (p pace) due(n uint64, at time.Duration) bool { return time.Duration(n)*p.every <= at }

// wait returns how long it is until then.
func (p pace) wait(n uint64, at time.Duration) time.Duration {
	return max(0, time.Duration(n)*p.every-at)
}
