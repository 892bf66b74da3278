package session

import (
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// A State is a session at rest on its way to another process, without its descriptors. It is written as JSON. Moments
// are ages in nanoseconds, so that the processes need not have one clock; see age.
type State struct {
	ID       tally.ID     `json:"id"`
	Listener string       `json:"listener"`
	Pool     string       `json:"pool"`
	Backend  string       `json:"backend"` // its id
	At       pool.Address `json:"at"`      // the backend's address

	Client  netip.AddrPort   `json:"client,omitzero"`
	Via     netip.AddrPort   `json:"via,omitzero"`
	Local   netip.AddrPort   `json:"local,omitzero"`
	TLVs    []byte           `json:"tlvs,omitempty"`
	Unix    bool             `json:"unix,omitempty"`
	Process sock.Credentials `json:"process,omitzero"`
	Port    uint16           `json:"port,omitempty"`
	Name    uint32           `json:"name,omitempty"`
	Retries int              `json:"retries,omitempty"`

	In  Way `json:"in"`
	Out Way `json:"out"`

	First   string  `json:"first,omitempty"` // the reason of whose FIN came first
	Settled bool    `json:"settled,omitempty"`
	Shunned bool    `json:"shunned,omitempty"`
	Looks   bool    `json:"looks,omitempty"`
	Behind  bool    `json:"behind,omitempty"`
	Excused [2]bool `json:"excused,omitzero"` // the client, the backend
	Kernel  [2]bool `json:"kernel,omitzero"`  // the same; TLS is the kernel's

	Accepted  age `json:"accepted"`
	Connect   age `json:"connect"`
	Connected age `json:"connected"`
	Asked     age `json:"asked"`
	FirstByte age `json:"first_byte"`
	Active    age `json:"active"`
	Looked    age `json:"looked"`

	Queued *time.Duration `json:"queued,omitempty"` // how long it has waited for a backend; nil if it never did

	Spoken string `json:"spoken,omitempty"` // what Turns are of
	Turns  []byte `json:"turns,omitempty"`  // see wire.PostgresTurns.AppendState

	Key []byte `json:"key,omitempty"` // of a session of Postgres, see Keyed
}

// A Way is one direction of a State.
type Way struct {
	Bytes  uint64 `json:"bytes"`
	Writes uint8  `json:"writes,omitempty"`
	Ended  bool   `json:"ended,omitempty"` // the source has sent its FIN, which was passed on
}

// An age is how long ago a moment was; never for a moment that has not come. Moments of a Loop are never negative, and
// some of them are zero for never.
type age time.Duration

const never age = -1

func (l *Loop) ageOf(moment time.Duration) age {
	if moment == 0 {
		return never
	}
	return age(max(l.Now-moment, 0))
}

// momentOf is the moment of an age. One that was before the loop's first moment becomes that.
func (l *Loop) momentOf(a age) time.Duration {
	if a < 0 {
		return 0
	}
	return max(l.Now-time.Duration(a), 1)
}

// Keyed is an Overhearer that has learned the key of its session.
type Keyed interface{ Key() string }

var spokenNames = map[Spoken]string{SpokenPostgres: "postgres", SpokenRedis: "redis"}

// stateOf describes a session at rest.
func (l *Loop) stateOf(s *Session) State {
	b := s.lease.Backend()
	st := State{
		ID: s.id, Listener: s.listener.Name, Pool: s.pool.Name(), Backend: b.ID(), At: b.Addr(),
		Client: s.peer, Name: s.name, Retries: len(s.tried()), In: wayOf(&s.in), Out: wayOf(&s.out),
		Settled: s.settled, Shunned: s.shunned, Looks: s.looks, Behind: s.behind,
		Excused:  [2]bool{s.client.excused, s.backend.excused},
		Kernel:   [2]bool{s.client.kernel, s.backend.kernel},
		Accepted: l.ageOf(s.accepted), Connect: l.ageOf(s.connect), Connected: l.ageOf(s.connected),
		Asked: l.ageOf(s.asked), FirstByte: l.ageOf(s.firstByte), Active: l.ageOf(s.active), Looked: l.ageOf(s.looked),
	}
	if s.first != tally.NoReason {
		st.First = s.first.String()
	}
	if s.waiter != nil {
		waited := s.waited(l.Now)
		st.Queued = &waited
	}
	x := s.extra
	if x == nil {
		return st
	}
	st.Via, st.Local, st.TLVs, st.Unix, st.Process, st.Port = x.via, x.local, x.tlvs, x.unix, x.process, x.port
	if k, is := x.overhears.(Keyed); is {
		st.Key = []byte(k.Key())
	}
	if t := x.turns; t != nil {
		st.Spoken = spokenNames[t.spoken]
		if t.spoken == SpokenPostgres {
			st.Turns = t.postgres.AppendState(nil)
		} else {
			st.Turns = t.redis.AppendState(nil)
		}
	}
	return st
}

func wayOf(d *direction) Way { return Way{Bytes: d.bytes, Writes: d.writes, Ended: d.shut} }

// A Placing is what a State's names stand for in this process.
type Placing struct {
	Pool  *pool.Pool
	Lease pool.Lease
}

// maxRetries bounds what a State says of retries.
const maxRetries = 1 << 10

// fill makes a session of an Adoption.
func (l *Loop) fill(s *Session, a *Adoption) {
	st := a.State
	s.phase, s.watched = relaying, true
	s.id, s.listener, s.settings = st.ID, a.Listener, a.Listener.settings.Load()
	s.pool, s.lease, s.peer, s.name = a.Place.Pool, a.Place.Lease, st.Client, st.Name
	for range min(max(st.Retries, 0), maxRetries) {
		s.triedAt(s.lease.Backend()) // which ones they were matters only for a further try
	}
	s.client = conn{fd: int32(a.FDs[0]), open: true, excused: st.Excused[0], kernel: st.Kernel[0]}
	s.backend = conn{fd: int32(a.FDs[1]), open: true, excused: st.Excused[1], kernel: st.Kernel[1]}
	s.in, s.out = directionOf(&st.In), directionOf(&st.Out)
	s.settled, s.shunned, s.looks, s.behind = st.Settled, st.Shunned, st.Looks, st.Behind
	switch r := tally.ReasonNamed(st.First); r {
	case tally.ClientClosed, tally.BackendClosed:
		s.first = r
	default:
		if st.In.Ended || st.Out.Ended {
			s.first = tally.ClientClosed
		}
	}
	s.accepted, s.connect, s.connected = l.momentOf(st.Accepted), l.momentOf(st.Connect), l.momentOf(st.Connected)
	s.asked, s.firstByte, s.active = l.momentOf(st.Asked), l.momentOf(st.FirstByte), l.momentOf(st.Active)
	s.looked = l.momentOf(st.Looked)
	if st.Queued != nil {
		s.waiter = &wait{counted: true, waiting: *st.Queued}
	}
	if st.Via.IsValid() || st.Unix || st.Port != 0 || len(st.TLVs) > 0 {
		x := l.more(s)
		x.via, x.local, x.tlvs, x.unix, x.process, x.port = st.Via, st.Local, st.TLVs, st.Unix, st.Process, st.Port
	}
	l.fillTurns(s, st)
}

// fillTurns makes a session go on following its turns.
func (l *Loop) fillTurns(s *Session, st *State) {
	spoken := s.settings.Spoken
	if spoken == SpokenUnknown || spokenNames[spoken] != st.Spoken {
		return
	}
	t := turns{spoken: spoken}
	known := false
	if spoken == SpokenPostgres {
		known = t.postgres.SetState(st.Turns)
	} else {
		known = t.redis.SetState(st.Turns)
	}
	if !known || !t.visible() {
		return
	}
	x := l.more(s)
	x.turns = l.freeTurns.Take()
	*x.turns = t
}

func directionOf(w *Way) direction {
	return direction{bytes: w.Bytes, flushed: w.Bytes, writes: w.Writes, ended: w.Ended, shut: w.Ended}
}
