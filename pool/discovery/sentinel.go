package discovery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/pool"
)

const (
	// straggling is how long an answer waits for further Sentinels while a change is waiting, once more than half have
	// named the same master. A Sentinel that hangs must not delay a failover.
	straggling = 50 * time.Millisecond
	// Sentinels that have just switched are followed by the others within about a second. If they name different masters
	// and none has a majority, they are asked again for so long, with such pauses.
	disagreement      = time.Second
	disagreementPause = 100 * time.Millisecond
	// maxRestarts bounds how often one answer begins again because a change was announced meanwhile.
	maxRestarts = 10
	// linkTTL is how long an answer is valid with a replica whose link is down: no message comes when it is up again.
	linkTTL = time.Second
	// maxReplicas bounds the replicas that one Sentinel may name.
	maxReplicas = 1000
)

// A Sentinel finds the master and the replicas of Redis that Sentinels (redis.io/docs/management/sentinel) watch; a
// backend's id is its address and port. NewSentinel makes it; it must not be copied.
//
// The master is the address that more than half of the endpoints name. So a Sentinel that lies, or that is cut off from
// the others, cannot move writes. A replica is a backend if more than half of the endpoints name it, too. The Sentinels
// that they know of are not asked: only the configured ones are trusted.
//
// The weight of a backend is 1. It is 0 for a replica of which most Sentinels say that it is down, or that its link to
// its master is.
type Sentinel struct {
	SentinelOptions

	changed chan struct{} // has room for one; a change waits to be found

	// only the goroutine of Find uses the fields below
	known    map[string]netip.Addr // last addresses of host names that Sentinels have named
	troubles map[string]error      // by endpoint, what is wrong with it
}

// SentinelOptions are the settings of a Sentinel. They must not be changed after NewSentinel.
type SentinelOptions struct {
	Endpoints []string // "host:port", at least one, each once
	Master    string   // its name at the Sentinels
	User      string   // of the Sentinels; "" = the default user
	Password  string   // "" = no login, unless there is a User
	// TLS has the settings of connections; nil means plain. Without a ServerName, certificates must be for the
	// endpoint's host.
	TLS *tls.Config
}

// NewSentinel returns a source that connects to nothing before Find and Watch.
func NewSentinel(o SentinelOptions) *Sentinel {
	return &Sentinel{
		SentinelOptions: o, changed: make(chan struct{}, 1), known: make(map[string]netip.Addr),
		troubles: make(map[string]error),
	}
}

// A SentinelError says why Sentinels gave no answer that can be used. It wraps the kinds of the endpoints' errors if
// all of them failed, and else ErrNoMajority.
type SentinelError struct {
	Master string
	Detail string // what each endpoint said
	Kinds  []error
}

// Error says what was asked for, and what came of it.
func (e *SentinelError) Error() string {
	return fmt.Sprintf("ask Sentinels for %q: %s", e.Master, e.Detail)
}

// Unwrap returns the kinds.
func (e *SentinelError) Unwrap() []error { return e.Kinds }

// Find asks all endpoints at the same time. Its errors are *SentinelError. While endpoints disagree, it asks them for
// up to a second.
func (s *Sentinel) Find(ctx context.Context) (Found, error) {
	var asked, restarts int
	var hurry bool
	for began := time.Now(); ; {
		answers, restart := s.askAll(ctx, &hurry, restarts < maxRestarts)
		asked += len(answers)
		if restart && ctx.Err() == nil {
			restarts++
			continue
		}
		found, err := s.decide(ctx, answers)
		found.Asked = asked
		if err == nil || !undecided(answers) || time.Since(began) >= disagreement || ctx.Err() != nil {
			return found, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(disagreementPause):
		}
	}
}

// undecided reports whether endpoints name different masters, so that another question may help.
func undecided(answers []sentinelAnswer) bool {
	named := make(map[string]bool)
	for _, a := range answers {
		if a.err == nil {
			named[a.view.master] = true
		}
	}
	return len(named) > 1
}

// A sentinelAnswer is what came of asking one endpoint. It is a plain value.
type sentinelAnswer struct {
	endpoint string
	view     sentinelView
	err      error // an *endpointError, or nil
	late     bool  // it was not waited for
}

// askAll asks all endpoints, and returns their answers in the order of the endpoints. If a change is announced, it sets
// hurry: with it, the last answers are not waited for long. If they have not decided on a master by then, and
// mayRestart is true, it stops and returns restart, since the answers may be from before the change.
func (s *Sentinel) askAll(
	ctx context.Context, hurry *bool, mayRestart bool,
) (answers []sentinelAnswer, restart bool) {
	ctx, cancel := context.WithTimeout(ctx, sentinelTimeout)
	defer cancel()
	answers = make([]sentinelAnswer, len(s.Endpoints))
	arrived := make(chan int, len(s.Endpoints)) // never closed
	var asking sync.WaitGroup
	for i, endpoint := range s.Endpoints {
		answers[i].endpoint = endpoint
		asking.Go(func() {
			view, err := s.askOne(ctx, endpoint)
			answers[i].view, answers[i].err = view, err
			arrived <- i
		})
	}
	there := make([]bool, len(answers))
	votes := make(map[string]int)
	decided := false
	var enough <-chan time.Time // nil while all answers are waited for
	for n := 0; n < len(answers); {
		select {
		case i := <-arrived:
			n++
			there[i] = true
			if a := answers[i]; a.err == nil {
				votes[a.view.master]++
				decided = decided || votes[a.view.master] >= s.majority()
			}
		case <-s.changed:
			*hurry = true
			restart = !decided && mayRestart
		case <-enough:
			n = len(answers)
		}
		if restart {
			break
		}
		if *hurry && decided && enough == nil {
			enough = time.After(straggling)
		}
	}
	cancel()
	asking.Wait()
	for i := range answers {
		answers[i].late = !there[i]
	}
	return answers, restart
}

// majority returns how many endpoints are more than half.
func (s *Sentinel) majority() int { return len(s.Endpoints)/2 + 1 }

// A nominated server is one that Sentinels name. It is a plain value.
type nominated struct {
	named int // by so many endpoints
	down  int // for so many of these, or its link is
	cut   int // for so many of these it is only its link
}

// decide returns what most of the endpoints say.
func (s *Sentinel) decide(ctx context.Context, answers []sentinelAnswer) (Found, error) {
	at := s.resolve(ctx, answers)
	votes := make(map[netip.AddrPort]int)
	servers := make(map[netip.AddrPort]nominated)
	for i := range answers {
		a := &answers[i]
		if a.err != nil {
			continue
		}
		master, known := at[a.view.master]
		if !known {
			a.err = &endpointError{ErrBadAnswer, "the master " + quoted(a.view.master) + " has no usable address"}
			continue
		}
		votes[master]++
		for addr, v := range a.view.at(at) {
			n := servers[addr]
			n.named++
			if v.down || v.cut {
				n.down++
			}
			if v.cut && !v.down {
				n.cut++
			}
			servers[addr] = n
		}
	}
	for master, n := range votes {
		if n >= s.majority() {
			f := s.found(master, servers)
			f.Unusable = s.outvoted(answers, at, master)
			return f, nil
		}
	}
	return Found{}, s.undecidedError(answers, at, votes)
}

// found returns the answer for a master, with its replicas.
func (s *Sentinel) found(master netip.AddrPort, servers map[netip.AddrPort]nominated) Found {
	var f Found
	for _, addr := range slices.SortedFunc(maps.Keys(servers), netip.AddrPort.Compare) {
		n := servers[addr]
		if n.named < s.majority() {
			continue
		}
		b := pool.Spec{ID: addr.String(), Addr: pool.At(addr), Weight: 1, Role: pool.RoleReplica}
		switch {
		case addr == master:
			b.Role = pool.RolePrimary
		case 2*n.down > n.named:
			b.Weight = 0
			if n.cut > 0 {
				f.TTL = linkTTL
			}
		}
		f.Backends = append(f.Backends, b)
	}
	return f
}

// outvoted returns what is wrong with endpoints whose answers do not count; nil if all of them name the master.
func (s *Sentinel) outvoted(answers []sentinelAnswer, at map[string]netip.AddrPort, master netip.AddrPort) error {
	var texts []string
	for _, a := range answers {
		if !a.late { // otherwise what was wrong before still is
			err := a.err
			if named := at[a.view.master]; err == nil && named != master {
				err = fmt.Errorf("it names the master %s, and most others name %s", named, master)
			}
			s.troubles[a.endpoint] = err
		}
		if err := s.troubles[a.endpoint]; err != nil {
			texts = append(texts, fmt.Sprintf("Sentinel %s: %v", a.endpoint, err))
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return errors.New(someOf(texts))
}

// undecidedError returns the error of answers without a majority.
func (s *Sentinel) undecidedError(
	answers []sentinelAnswer, at map[string]netip.AddrPort, votes map[netip.AddrPort]int,
) error {
	e := &SentinelError{Master: s.Master}
	var said, failures []string
	for _, a := range answers {
		if a.err == nil {
			said = append(said, fmt.Sprintf("%s names %s (config epoch %d)", a.endpoint, at[a.view.master], a.view.epoch))
			continue
		}
		said = append(said, a.endpoint+": "+a.err.Error())
		failures = append(failures, a.err.Error())
		if one, is := errors.AsType[*endpointError](a.err); is && !slices.Contains(e.Kinds, error(one.kind)) {
			e.Kinds = append(e.Kinds, one.kind)
		}
	}
	slices.Sort(failures)
	switch {
	case len(votes) > 0:
		e.Kinds = []error{ErrNoMajority}
		e.Detail = fmt.Sprintf("no majority of %d endpoints: %s", len(answers), someOf(said))
	case len(failures) > 1 && failures[0] == failures[len(failures)-1]:
		e.Detail = fmt.Sprintf("all %d endpoints: %s", len(answers), failures[0])
	default:
		e.Detail = someOf(said)
	}
	return e
}
