package admin

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Media types of requests and answers.
const (
	mediaJSON    = "application/json"
	mediaTOML    = "application/toml"
	mediaProblem = "application/problem+json" // RFC 9457
	mediaEvents  = "text/event-stream"
	mediaText    = "text/plain"
	mediaYAML    = "application/yaml" // RFC 9512
)

const (
	// idleTimeout is for a connection between two requests, also in the Client: longer than any scrape interval.
	idleTimeout = 2 * time.Minute
	// heartbeatInterval is how often a stream without events sends a sign of life: less than the minute after which
	// NATs and proxies forget a silent connection.
	heartbeatInterval = 15 * time.Second
	// metricsConnections is how many connections a server of metrics alone has at once, apart from the spares: enough
	// for some Prometheus servers and the checks of balancers in front. Everybody who can reach it may take them.
	metricsConnections = 64
)

// Options are what a Server needs. Only Balancer must be set.
type Options struct {
	Balancer Balancer
	Metrics  http.Handler   // answers /metrics; without it there is no such route
	Token    string         // a bearer token for all requests except /ready and /live; "" for none
	Log      zerolog.Logger // gets a line for each request that may change something
	MaxTOML  int64          // bytes of a configuration in a request; 0 = 4 MiB

	// MetricsOnly makes a server of /metrics, /ready and /live alone, which needs no token: Token is not used.
	MetricsOnly bool
}

// limits bounds what clients may use of the daemon. Tests make them small.
type limits struct {
	header      time.Duration // to send the header of a request
	request     time.Duration // to send all of it
	idle        time.Duration // between two requests
	write       time.Duration // to take an answer, or an event
	heartbeat   time.Duration // between two signs of life on a stream
	live        time.Duration // for the loops to answer /live
	connections int           // at once; see connections
	spares      int           // more, for /ready and /live
	streams     int           // of events at once; more are refused
	plans       int           // of configurations in a request at once; more are refused
	headerBytes int
	jsonBytes   int64 // of a body
	tomlBytes   int64
}

func defaultLimits() limits {
	return limits{
		header:      10 * time.Second,
		request:     time.Minute, // 4 MiB in that time are 0.6 Mbit/s
		idle:        idleTimeout,
		write:       30 * time.Second,
		heartbeat:   heartbeatInterval,
		live:        2 * time.Second, // a loop turns within milliseconds, and callers wait a few seconds at most
		connections: 256,             // descriptors that sessions cannot use
		spares:      16,              // more than the health checks that one balancer in front makes at the same time
		streams:     128,             // fewer than connections, so that streams never take all of them
		plans:       2,               // one of 4 MiB takes a second or two of CPU
		headerBytes: 32 << 10,        // a backend's name in the path and a filter are short
		jsonBytes:   1 << 20,
		tomlBytes:   4 << 20,
	}
}

// A Server is the control API, or with Options.MetricsOnly a part of it. Its zero value is of no use, see NewServer;
// its methods may be called from any goroutine.
//
// With a token, every listener requires it, also a Unix socket. Without one, a Unix socket is protected by its file
// mode. A TCP listener without a token must be on loopback and answers only requests that read, since every user of the
// machine can reach it, and every program that can be made to connect there. None of this is about a server of metrics
// alone: it changes nothing, and other machines are meant to reach it.
type Server struct {
	// set once, then read-only
	name     string // of its address in messages: "admin" or "metrics"
	limited  bool   // to routes without control
	balancer Balancer
	metrics  http.Handler
	log      zerolog.Logger
	limits   limits
	mux      *http.ServeMux
	origins  *http.CrossOriginProtection
	http     *http.Server
	streams  chan struct{} // one element for each open stream of events
	plans    chan struct{} // one element for each configuration that is being planned
	clients  *connections

	token atomic.Pointer[token] // never nil

	ending  chan struct{} // closed by Shutdown; ends the streams
	serving sync.WaitGroup

	// mu guards the fields below
	mu        sync.Mutex
	isEnding  bool
	isLeaving bool // see Leave
	listeners map[net.Listener]bool
}

// NewServer makes a server. Nothing runs before Serve.
func NewServer(o Options) *Server {
	l := defaultLimits()
	if o.MaxTOML > 0 {
		l.tomlBytes = o.MaxTOML
	}
	if o.MetricsOnly {
		l.connections = metricsConnections
	}
	return newServer(o, l)
}

func newServer(o Options, l limits) *Server {
	s := &Server{
		name:      "admin",
		limited:   o.MetricsOnly,
		balancer:  o.Balancer,
		metrics:   o.Metrics,
		log:       o.Log,
		limits:    l,
		mux:       http.NewServeMux(),
		origins:   http.NewCrossOriginProtection(),
		streams:   make(chan struct{}, l.streams),
		plans:     make(chan struct{}, l.plans),
		clients:   newConnections(l.connections, l.spares),
		ending:    make(chan struct{}),
		listeners: make(map[net.Listener]bool),
	}
	if s.limited {
		s.name, o.Token = "metrics", ""
	}
	s.SetToken(o.Token)
	for _, r := range routes() {
		if (r.path != metricsPath || o.Metrics != nil) && (!s.limited || r.measures) {
			s.mux.Handle(r.method+" "+r.path, &handler{server: s, route: r})
		}
	}
	s.http = &http.Server{
		Handler:                      s,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            l.header,
		ReadTimeout:                  l.request,
		WriteTimeout:                 l.write, // renewed for each answer, see extend
		IdleTimeout:                  l.idle,
		MaxHeaderBytes:               l.headerBytes,
		ConnContext:                  s.clients.opened,
		ConnState:                    s.clients.changed,
		ErrorLog:                     log.New(errorLog{o.Log}, "", 0),
	}
	return s
}

// SetToken sets the token that requests need from now on; "" is none, as it must be for a server of metrics alone.
func (s *Server) SetToken(text string) { s.token.Store(newToken(text)) }

// Serve answers on l until Shutdown, and then returns nil. It owns l. It may be called for several listeners. Without a
// token, it refuses a TCP listener that other machines can reach.
func (s *Server) Serve(l net.Listener) error {
	if !s.limited && !s.token.Load().isSet() && !guardedByPlace(l.Addr()) {
		l.Close()
		return fmt.Errorf("admin address %s: other machines can reach it, and there is no token", l.Addr())
	}
	s.mu.Lock()
	if s.isEnding {
		s.mu.Unlock()
		l.Close()
		return nil
	}
	s.listeners[l] = true
	s.serving.Add(1)
	s.mu.Unlock()
	defer s.serving.Done()

	err := s.http.Serve(peerListener{l})
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	if s.isEnding || s.isLeaving || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("%s address %s: %w", s.name, l.Addr(), err)
}

// Leave closes the listeners: clients that connect from now on are somebody else's. Those that are connected stay until
// Shutdown, which has to follow.
func (s *Server) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isLeaving = true
	for l := range s.listeners {
		l.Close()
	}
}

// Shutdown closes the listeners, ends the streams of events, waits for the running requests, and returns when the last
// goroutine is gone. If ctx ends first, it closes their connections and returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	s.BeginShutdown()
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		s.http.Close()
	})
	s.serving.Wait()
	s.clients.wait()
	if stop() {
		return nil
	}
	<-cut
	return ctx.Err()
}

// BeginShutdown closes the listeners and the idle connections, and ends the streams of events. Shutdown waits for the
// rest.
func (s *Server) BeginShutdown() {
	s.http.SetKeepAlivesEnabled(false)
	s.beginEnd()
}

// Close is Shutdown without waiting for requests.
func (s *Server) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// beginEnd closes the listeners and the idle connections. Calls after the first do nothing.
func (s *Server) beginEnd() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isEnding {
		return
	}
	s.isEnding = true
	close(s.ending)
	for l := range s.listeners {
		l.Close()
	}
	s.clients.end()
}

// ServeHTTP answers one request. It checks the caller before it looks at the request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	spare := onSpare(r.Context())
	found, _ := s.mux.Handler(r)
	h, isRoute := found.(*handler)
	if err := s.checkOrigin(r, isRoute && h.route.opensPage(r)); err != nil {
		s.refuse(w, err)
		return
	}
	if spare {
		header.Set("Connection", "close")
		if !isRoute || !h.route.open || h.route.page {
			s.refuse(w, newProblem(problemBusy,
				"each of "+strconv.Itoa(s.limits.connections)+" connections has a request under way"))
			return
		}
	}
	if !s.token.Load().allows(r) && !(isRoute && h.route.open) {
		header.Set("WWW-Authenticate", "Bearer")
		s.refuse(w, newProblem(problemUnauthorized,
			"a request needs the header Authorization: Bearer TOKEN, with the token of admin.token_file"))
		return
	}
	if !isRoute {
		s.refuse(w, s.noRoute(found, header, r))
		return
	}
	if !h.route.reads() && !s.trusts(r) {
		s.refuse(w, newProblem(problemReadOnly,
			"an admin address on TCP without a token only answers requests that read: set admin.token_file, "+
				"or make the address a Unix socket"))
		return
	}
	s.mux.ServeHTTP(w, r) // not h, since the mux sets the values of the path
}

// noRoute returns why the mux has no route for a request. A path that the mux would redirect to its clean form has no
// route either.
func (s *Server) noRoute(found http.Handler, header http.Header, r *http.Request) *Problem {
	answer := discarded{header: make(http.Header)}
	found.ServeHTTP(&answer, r)
	if answer.status != http.StatusMethodNotAllowed && s.limited {
		return newProblem(problemNotFound, "there is no route "+clip(r.URL.EscapedPath())+
			"; metrics.address has /metrics, /ready and /live alone, and admin.address has the API")
	}
	if answer.status != http.StatusMethodNotAllowed {
		return newProblem(problemNotFound,
			"there is no route "+clip(r.URL.EscapedPath())+"; GET /v1/openapi.yaml describes those there are")
	}
	allowed := answer.header.Get("Allow")
	header.Set("Allow", allowed)
	return newProblem(problemMethod,
		clip(r.URL.EscapedPath())+" has not the method "+clip(r.Method)+"; it has "+allowed)
}

// discarded is an answer of which only status and header are read.
type discarded struct {
	header http.Header
	status int
}

func (d *discarded) Header() http.Header         { return d.header }
func (d *discarded) Write(p []byte) (int, error) { return len(p), nil }
func (d *discarded) WriteHeader(status int)      { d.status = status }

// clip shortens input of a client for a message.
func clip(text string) string {
	const most = 512 // bytes
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}

// errorLog logs the messages of net/http: failed accepts, and panics of handlers with their stack.
type errorLog struct{ log zerolog.Logger }

// Write logs one message of net/http.
func (l errorLog) Write(p []byte) (int, error) {
	l.log.Error().Str("err", strings.TrimSpace(string(p))).Str("event", "admin_failed").Msg("admin server")
	return len(p), nil
}
