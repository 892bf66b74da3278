package l4

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/limeload/limeload-l4/l4/internal/dial"
	"github.com/limeload/limeload-l4/l4/internal/dns"
	"github.com/limeload/limeload-l4/l4/internal/farewell"
	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/gate"
	"github.com/limeload/limeload-l4/l4/internal/listen"
	"github.com/limeload/limeload-l4/l4/internal/postgres"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// A Protocol is what a listener's clients speak.
type Protocol = sock.Protocol

// The protocols.
const (
	TCP = sock.TCP
	UDP = sock.UDP
)

// KeepAlive says when the kernel asks a silent peer whether it is still there (tcp(7)). Idle 0 turns it off; both times
// count in whole seconds.
type KeepAlive = sock.KeepAlive

// A Refusal is how a client that cannot be served is turned away.
type Refusal = session.Refusal

// The refusals.
const (
	RefuseReset = session.RefuseReset // with a RST: the client knows at once that this was no orderly end
	RefuseClose = session.RefuseClose // with a FIN, after reading what the client has sent so far
)

// ProxySettings say from which addresses clients are other proxies, which name the real client in a PROXY header.
type ProxySettings = session.ProxySettings

// The versions of the PROXY protocol.
const (
	ProxyV1 = session.ProxyV1
	ProxyV2 = session.ProxyV2
)

// A Language is a protocol in which refused clients are told why they are refused. The zero value is none.
type Language = farewell.Language

// The languages.
const (
	Postgres = farewell.Postgres // an ErrorResponse, with SQLSTATE 57P03 or 53300
	Redis    = farewell.Redis    // an error, LOADING or that of too many clients
	DNS      = farewell.DNS      // SERVFAIL or REFUSED, with an extended error (RFC 8914)
	TLS      = farewell.TLS      // the alert internal_error, before the handshake
)

// Spoken is the protocol that a listener's clients speak. Sessions of pools that drain safely need it, see
// pool.Options.DrainSafely.
type Spoken = session.Spoken

// The protocols.
const (
	SpokenPostgres = session.SpokenPostgres
	SpokenRedis    = session.SpokenRedis
)

// FlowSettings are the settings of a UDP listener's flows. The zero value is usable, and comparable like any other.
type FlowSettings = flow.Settings

// A FlowKey says which datagrams go to one backend.
type FlowKey = flow.Key

// The flow keys.
const (
	ByClient   = flow.ByClient   // those of one address and port
	ByClientIP = flow.ByClientIP // those of one address
	ByPacket   = flow.ByPacket   // each has a backend chosen for it
)

// A ListenerSpec describes a listener: where it listens, what it sends clients to, and how. It is a value;
// Apply keeps a copy. Name, Address (or Inherited) and Pool or Routes are required; a zero time is without a limit.
type ListenerSpec struct {
	Name      string // with Protocol its identity: two listeners of different protocols may have one name
	Address   netip.AddrPort
	DualStack bool       // of Address, see Place
	Unix      UnixSocket // for TCP, instead of Address
	Inherited []int      // instead of Address, see Place
	More      []Place    // further places where it listens; MaxPlaces with the first

	Protocol Protocol
	Flows    FlowSettings // for UDP; and for TCP alone are Backlog and what follows upon it
	DNS      *DNSSettings // for clients who ask DNS questions; nil = what they send is relayed as it is

	Pool    *pool.Pool // where clients go that no route fits; nil = they are refused
	Backlog int        // clients that wait in the kernel to be accepted; 0 = 4096

	FastOpen          bool   // TCP Fast Open; without effect unless FastOpenAllowed
	CongestionControl string // of clients' connections; "" = the system's, or LoopbackCongestionControl

	MaxSessions      int           // at once on this listener; 0 = without a limit of its own
	IdleTimeout      time.Duration // neither side sent anything for so long
	HalfCloseTimeout time.Duration // the same, once one side has closed its half and the other has taken all
	UserTimeout      time.Duration // a peer that acknowledges nothing for so long has vanished; both sides; 0 = the kernel's
	KeepAlive        KeepAlive     // both sides
	Refuse           Refusal
	Proxy            ProxySettings // for TCP

	// TLS is what the listener terminates TLS with; nil = it does not. Only for TCP. A new one is for clients that come
	// from then on.
	TLS *TLSServer

	// Routes choose the pool by the ClientHello. A client must have sent its hello within InspectTimeout, which is not 0
	// then.
	Routes []Route
	// MQTT says that the listener reads the client identifier in the MQTT CONNECT of sessions whose pool needs it, see
	// pool.NeedsName. A client must have sent it within InspectTimeout, which is not 0 then. It is for TCP, and has no
	// effect with DNS.
	MQTT           bool
	InspectTimeout time.Duration

	Postgres PostgresSettings // for TCP

	// Spoken is what the clients speak; 0 = unknown, and then no session is asked to leave its backend.
	Spoken Spoken

	// Access says who may come in; nil = everybody. Two lists are the same only if they are one.
	Access *AccessList
	Limits Limits
	// OverFarewell is the language of clients that are told that they are over a limit (OverTell).
	OverFarewell Language

	// Farewell is the language of clients, in which they are told why they are refused. Then Refuse is for those only
	// that cannot be told: they are too many at once, or speak another language. 0 = none is told.
	Farewell Language
}

// A ListenerInfo is what a listener has counted, read without stopping it; an immutable copy.
type ListenerInfo struct {
	Name      string
	Address   pool.Address   // the first of Addresses
	Addresses []pool.Address // where it listens
	Pool      string         // where clients go that no route fits; "" if they are refused
	Protocol  Protocol
	Sessions  int                     // now, or flows
	Accepted  uint64                  // sessions that have begun: all but those refused with MaxSessions; or flows
	BytesIn   uint64                  // from clients; of running sessions up to some seconds ago, of ended ones exactly
	BytesOut  uint64                  // to clients, the same
	Ended     map[Reason]uint64       // sessions and refusals by their reason
	Retries   map[pool.Outcome]uint64 // connects that followed a failed one, by how that failed

	// Handshakes are those of TLS, by their kind: with clients if TLS ends at the listener, and with backends if a pool of
	// it encrypts.
	Handshakes map[TLSHandshake]uint64
	// Secured are the connections of these, by who encrypts what they carry.
	Secured map[TLSSecured]uint64

	DatagramsIn  uint64          // from clients, dropped ones included, but for those the kernel had no room for
	DatagramsOut uint64          // to clients
	Dropped      map[Drop]uint64 // datagrams either way
	DNS          *DNSInfo        // nil without DNS settings

	// WouldRefuse are the sessions and datagrams that Limits.DryRun has let in, by what they would have been refused for.
	WouldRefuse map[Reason]uint64

	// Clients is how many clients the listener knows, and ClientsMost how many it may know; 0 if it has no limit that
	// needs to know them. ClientsForgotten is how many were forgotten while they had sessions or were over a limit.
	Clients, ClientsMost int
	ClientsForgotten     uint64

	// Cancels are CancelRequests of Postgres, by what became of them; nil unless the listener reads them.
	Cancels map[CancelResult]uint64

	ConnectTime   Histogram // of connects that succeeded
	FirstByteTime Histogram // from when the backend was asked, or connected if it spoke unasked, to its first byte
	Duration      Histogram // of ended sessions that had been connected to a backend, from accept to end
	QueueTime     Histogram // of sessions that waited for a backend, until they were connected to one or ended without
}

// A ListenError is a listener that could not be opened; the system's error is wrapped.
type ListenError struct {
	Listener string
	Protocol Protocol
	Place    int          // of the spec's places: 0 for its Address, and from 1 on its More
	Address  pool.Address // invalid if it was to inherit its sockets
	Err      error
}

// Error says which listener could not listen where, and why.
func (e *ListenError) Error() string {
	if e.Address == (pool.Address{}) {
		return fmt.Sprintf("listener %q: %v", e.Listener, e.Err)
	}
	return fmt.Sprintf("listener %q: listen on %s: %v", e.Listener, e.Address, e.Err)
}

// Unwrap returns the system's error.
func (e *ListenError) Unwrap() error { return e.Err }

const defaultBacklog = 4096 // net.core.somaxconn's default since Linux 5.4; the kernel caps what is above it

// A listener is its bound addresses, and what the rooms of the data plane know of it. Its methods may be called from
// any goroutine.
type listener struct {
	// set once, then read-only
	name     string
	gate     *gate.Listener
	tcp      *session.Listener
	udp      *flow.Listener
	postgres *postgres.Service

	// Server.changing and Server.mu guard these
	bound []*listen.Binding // one for each place of the spec, in its order
	dns   *dns.Service      // nil without DNS settings

	spec atomic.Pointer[ListenerSpec] // replaced by Apply
}

// newListener makes a listener. id is its own, and no other's.
func (s *Server) newListener(name string, id dial.ListenerID) *listener {
	g := s.gate.NewListener(name, id, len(s.loops))
	return &listener{
		name: name, gate: g, tcp: session.NewListener(g, len(s.loops)), udp: flow.NewListener(g),
		postgres: postgres.NewService(id, s.cancels),
	}
}

// set gives the rooms what the listener's spec and DNS service say, for clients that come from now on.
func (ls *listener) set() {
	spec := ls.spec.Load()
	ls.gate.Set(gate.Settings{
		Pool: spec.poolName(), MaxSessions: spec.MaxSessions,
		MaxFlows: spec.Flows.MaxFlows(), ClientFlows: spec.Flows.ClientMax,
		Limits: spec.Limits, Access: spec.Access, Names: spec.names(),
	})
	ls.udp.Set(spec.Flows, spec.Pool)
	to := &session.Settings{
		Pool: spec.Pool, IdleTimeout: spec.IdleTimeout, HalfCloseTimeout: spec.HalfCloseTimeout,
		UserTimeout: spec.UserTimeout, KeepAlive: spec.KeepAlive, Refuse: spec.Refuse,
		Spoken: spec.Spoken,
	}
	if spec.Farewell != 0 {
		to.Farewell = spec.Farewell
	}
	if to.Over = spec.Limits.Over; spec.OverFarewell != 0 {
		to.OverFarewell = spec.OverFarewell
	}
	if spec.Proxy.Versions != 0 {
		to.Prefaces = append(to.Prefaces, session.ExpectProxy(spec.Proxy, len(ls.gate.Counters)))
	}
	to.Prefaces = ls.withPostgres(to.Prefaces, spec, false)
	if spec.TLS == nil && spec.startupTimeout() > 0 {
		to.ForRefused = len(to.Prefaces) // for cancels
	}
	if spec.TLS != nil {
		t := session.NewTerminator(spec.TLS, spec.Routes, len(ls.gate.Counters))
		to.Prefaces = append(to.Prefaces, t)
		if spec.Farewell != TLS {
			to.EndsTLS = len(to.Prefaces)
		}
		to.Prefaces = ls.withPostgres(to.Prefaces, spec, true)
	} else if len(spec.Routes) > 0 {
		inspector := session.NewInspector(spec.Routes, spec.InspectTimeout, len(ls.gate.Counters))
		to.Prefaces = append(to.Prefaces, inspector)
	}
	if spec.MQTT && ls.dns == nil {
		to.Prefaces = append(to.Prefaces, session.ReadMQTT(spec.InspectTimeout, len(ls.gate.Counters)))
	}
	if ls.dns != nil && spec.Protocol == TCP {
		to.Prefaces = append(to.Prefaces, ls.dns)
	}
	ls.tcp.Set(to)
}

func (ls *listener) info() ListenerInfo {
	spec := ls.spec.Load()
	info := ListenerInfo{
		Name: ls.name, Address: addressOf(ls.bound[0]), Addresses: addressesOf(ls.bound),
		Pool: spec.poolName(), Protocol: spec.Protocol,
		Sessions: ls.now(), Ended: make(map[Reason]uint64), Retries: make(map[pool.Outcome]uint64),
		Dropped: make(map[Drop]uint64), Handshakes: make(map[TLSHandshake]uint64),
		Secured:     make(map[TLSSecured]uint64),
		WouldRefuse: make(map[Reason]uint64),
	}
	secure := false
	for p := range spec.pools {
		secure = secure || p.Secure() != nil
	}
	for i := range ls.gate.Counters {
		c := &ls.gate.Counters[i]
		info.Accepted += c.Accepted.Load()
		info.BytesIn += c.BytesIn.Load()
		info.BytesOut += c.BytesOut.Load()
		info.DatagramsIn += c.DatagramsIn.Load()
		info.DatagramsOut += c.DatagramsOut.Load()
		for drop := range c.Dropped {
			if n := c.Dropped[drop].Load(); n > 0 {
				info.Dropped[Drop(drop)] += n
			}
		}
		for outcome := range c.Retries {
			if n := c.Retries[outcome].Load(); n > 0 {
				info.Retries[pool.Outcome(outcome)] += n
			}
		}
		if spec.TLS != nil {
			c.Handshakes.AddTo(info.Handshakes, tally.ClientSide)
			c.AddSecuredTo(info.Secured, tally.ClientSide)
		}
		if secure {
			c.Handshakes.AddTo(info.Handshakes, tally.BackendSide)
			c.AddSecuredTo(info.Secured, tally.BackendSide)
		}
		info.ConnectTime.Merge(&c.ConnectTime)
		info.FirstByteTime.Merge(&c.FirstByteTime)
		info.Duration.Merge(&c.Duration)
		info.QueueTime.Merge(&c.QueueTime)
	}
	if ls.dns != nil {
		info.DNS = ls.dns.Info()
	}
	info.Clients, info.ClientsMost, info.ClientsForgotten = ls.gate.Tracked()
	for _, r := range gate.Reasons() {
		if n := ls.gate.WouldRefuse(r); n > 0 {
			info.WouldRefuse[r.Ends()] += n
		}
	}
	if spec.startupTimeout() > 0 {
		info.Cancels = make(map[CancelResult]uint64)
		for _, r := range CancelResults() {
			info.Cancels[r] = ls.postgres.Count(r)
		}
	}
	for _, r := range Reasons() {
		if n := tally.Ended(ls.gate.Counters, r); n > 0 {
			info.Ended[r] = n
		}
	}
	return info
}

// now is how many sessions, or flows, the listener has now.
func (ls *listener) now() int { return ls.gate.Sessions() + ls.gate.Flows() }

// listenOptions are those of the spec's sockets, but for DualStack, which is each place's own.
func (spec *ListenerSpec) listenOptions() sock.ListenOptions {
	backlog := spec.Backlog
	if backlog == 0 {
		backlog = defaultBacklog
	}
	return sock.ListenOptions{
		Backlog: backlog, UserTimeout: spec.UserTimeout, KeepAlive: spec.KeepAlive,
		FastOpen: spec.FastOpen, CongestionControl: spec.CongestionControl,
	}
}

// sameOptions reports whether the sockets of one spec have the options of the other.
func (spec *ListenerSpec) sameOptions(other *ListenerSpec) bool {
	if spec.Protocol == UDP {
		return spec.Flows.SocketOptions(sock.Offload{}) == other.Flows.SocketOptions(sock.Offload{}) &&
			spec.Flows.Steered() == other.Flows.Steered()
	}
	return spec.listenOptions() == other.listenOptions()
}

// equal reports whether two specs, whose sockets are the same, mean the same.
func (spec *ListenerSpec) equal(other *ListenerSpec) bool {
	return spec.Name == other.Name && spec.Pool == other.Pool && spec.listenOptions() == other.listenOptions() &&
		spec.MaxSessions == other.MaxSessions && spec.IdleTimeout == other.IdleTimeout &&
		spec.HalfCloseTimeout == other.HalfCloseTimeout && spec.Refuse == other.Refuse &&
		spec.Farewell == other.Farewell && spec.Flows == other.Flows &&
		spec.TLS == other.TLS && spec.MQTT == other.MQTT && spec.InspectTimeout == other.InspectTimeout &&
		slices.EqualFunc(spec.Routes, other.Routes, sameRoute) && spec.Proxy.Equal(&other.Proxy) &&
		spec.sameDNS(other) && spec.Postgres == other.Postgres && spec.Spoken == other.Spoken &&
		spec.Access == other.Access && spec.Limits == other.Limits && spec.OverFarewell == other.OverFarewell
}

// poolName is the name of the spec's pool for clients that no route fits; "" if they are refused.
func (spec *ListenerSpec) poolName() string {
	if spec.Pool == nil {
		return ""
	}
	return spec.Pool.Name()
}

// pools calls yield with each pool of the spec, some perhaps more than once.
func (spec *ListenerSpec) pools(yield func(*pool.Pool) bool) {
	if spec.Pool != nil && !yield(spec.Pool) {
		return
	}
	for i := range spec.Routes {
		if !yield(spec.Routes[i].Pool) {
			return
		}
	}
}

func (spec *ListenerSpec) validate() error {
	switch {
	case spec.Name == "":
		return errors.New("a listener has no name")
	case spec.Pool == nil && len(spec.Routes) == 0:
		return fmt.Errorf("listener %q has no pool", spec.Name)
	case spec.Protocol > UDP:
		return fmt.Errorf("listener %q has an undefined protocol", spec.Name)
	case spec.TLS != nil && spec.Protocol != TCP:
		return fmt.Errorf("listener %q has TLS, which is for TCP", spec.Name)
	case spec.Farewell > TLS, spec.OverFarewell > TLS:
		return fmt.Errorf("listener %q has an undefined language for refusals", spec.Name)
	case spec.Spoken > SpokenRedis:
		return fmt.Errorf("listener %q has clients that speak an undefined protocol", spec.Name)
	}
	if err := spec.validatePlaces(); err != nil {
		return err
	}
	if err := spec.Limits.Validate(); err != nil {
		return fmt.Errorf("listener %q: %w", spec.Name, err)
	}
	err := spec.Flows.Validate()
	if err == nil {
		err = spec.Proxy.Validate(spec.Protocol == TCP)
	}
	if err == nil {
		err = spec.validateRoutes()
	}
	if err == nil {
		err = spec.validatePostgres()
	}
	if err == nil && spec.DNS != nil {
		err = spec.DNS.Validate(spec.Protocol == TCP, spec.Flows.SendProxy)
	}
	if err != nil {
		return fmt.Errorf("listener %q: %w", spec.Name, err)
	}
	return nil
}
