// Package daemon is the running balancer: one process's pools, health checks, discovery, listeners and admin socket. It
// is built from a configuration, changed by reloads and by the control API, and drained at the end. It does not parse
// the command line, and does not write the log itself. Run is called by one goroutine; the other exported methods of a
// Daemon may be called from any.
//
// # States
//
// Run goes through these states from top to bottom. It alone changes the state, in the file life.go.
//
//	state     event                                  what follows
//	--------  -------------------------------------  --------------------------------------------------------------
//	starting  every pool judged, or 5 s have passed  the server starts, reloads are allowed: serving
//	          HUP, reload by the API                 it waits for serving
//	          TERM, INT, ctx done                    draining, as from serving; a reload that waits is refused
//	          all that of an old process was taken   in a process that takes over from another one: serving
//	serving   HUP                                    a reload; one more follows if HUP arrives during a reload
//	          reload by the API, changed file        a reload, when it gets the turn
//	          USR2, upgrade by the API               handing over, when the upgrade gets the turn
//	          TERM                                   draining: drain_delay, then up to drain_timeout
//	          INT, ctx done                          draining without either: sessions are ended at once
//	handing   the new process has everything         draining, without drain_delay: what is left still goes over
//	over      it refuses, dies, or is too late       serving, with everything but what has died with it
//	          HUP, reload by the API                 it waits for serving; after the hand-over the new process gets HUP
//	          USR2, upgrade, run-time change         refused with admin.ErrUpgrading
//	          TERM, INT, ctx done                    before the first flow or session: given up, draining;
//	                                                 from then on the signal goes to the new process
//	draining  drain_delay, drain_timeout passed      the next step begins
//	          TERM or INT                            what is left of both is skipped: sessions are ended at once
//	          HUP, USR2                              ignored
//	          reload, plan or upgrade by the API     refused with admin.ErrEnding
//	          the last session has ended             everything is stopped, Run returns
//
// A reload, an upgrade, a plan, and an address found late for a host name need the configuration in force to stay as it
// is meanwhile. So each of them takes the one turn there is (life.takeTurn). Draining begins by cancelling whatever has
// the turn, waiting for it, and keeping the turn for good: a reload in its warm-up is dropped, one that is past it is
// completed first. A plan may also run in the state starting.
//
// Changes of backends by the API, drains among them, need no turn: package pool orders them, and a reload keeps them.
//
// # Upgrades
//
// At an upgrade the old process starts the new one and hands over to it: Daemon.Upgrade (upgrade*.go, new_process.go)
// in the old one, OldProcess (old_process.go, take_over.go) in the new one. Their messages are in handover_messages.go.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/healthcheck/probe"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
)

// Options are what a Daemon is made of. Config and Version are required.
type Options struct {
	Config  *conf.Config // resolved; each reload reads its File again
	Version string
	// Log logs all levels, since the daemon sets the global level of zerolog. Its writer must never block.
	Log zerolog.Logger

	// Program is the path and the arguments to start this program again, see ThisProgram; nil refuses upgrades.
	Program []string
	From    *OldProcess // to take over from; nil for a start

	Lookup     conf.Lookup   // resolves host names again; nil uses the hosts file and the DNS servers of this machine
	LogDropped func() uint64 // returns how many lines the writer has dropped so far; nil if it drops none
}

// A Daemon is a running balancer. Its zero value is of no use, see New.
type Daemon struct {
	// set once, then read-only
	version string
	log     zerolog.Logger
	dropped func() uint64 // number of log lines dropped; nil if none ever are
	lookup  conf.Lookup
	began   time.Time
	boot    *conf.Config // the configuration at the start
	server  *l4.Server
	checks  *healthcheck.Scheduler
	echo    *probe.ICMP // for all ICMP checks
	state   *stateStore
	drains  *drains
	rules   *accessRules
	notify  *notifier
	fleet   *membership  // nil without the table fleet
	metrics http.Handler // at the admin address
	// at metrics.address: bounded by itself, so that nobody there keeps others from the metrics at the admin address
	publicMetrics http.Handler

	program []string    // to start at an upgrade; nil for none
	from    *OldProcess // nil unless this process takes over from it

	loadFailure error // why the state file could not be read; nil if it was read

	changed     chan struct{} // has room for one; a pool has changed, or a discovery has answered for the first time
	judgedAgain chan struct{} // has room for one; a verdict has changed
	events      hub
	logTime     logTime
	life        *life

	// The goroutine that has the turn of life uses the fields below. Run uses them before the admin socket answers and
	// after life.end, and the watcher also before reloads are allowed.
	inherited map[string][]inheritedSocket // by listener
	admin     *adminSocket
	scrapes   *metricsSocket
	files     *files         // named by the configuration in force, with the contents they had when they were read
	retiring  sync.WaitGroup // one for each former socket that still ends
	watcher   watcher

	saidKernelTLS bool // by noteKernelTLS

	tlsWatcher, accessWatcher, includeWatcher fileWatcher
	// about the files of TLS and of prefixes, as they were when the configuration was put in force
	contentWarnings []string

	replaced atomic.Pointer[upgrade] // the upgrade that has replaced this process; nil for none

	upgrading atomic.Bool    // somebody is in Upgrade
	upgrades  sync.WaitGroup // those by a signal

	changes sync.RWMutex // held by run-time changes for reading
	// changes guards the field below
	changesHeld chan struct{} // nil unless a new process takes over: changes are refused until it is closed

	stopNaming context.CancelFunc // nil if every host name has an address
	naming     sync.WaitGroup     // the look-ups of host names; stopNaming ends them

	mu sync.RWMutex
	// mu guards the fields below; only the goroutine that has the turn sets cfg, pools, secured and access
	cfg     *conf.Config // in force
	pools   map[string]*served
	secured *secured // replaced as a whole
	access  accessLists
	reloads admin.Reloads

	tlsReloads, accessReloads fileReloads
}

// New builds pools, checks and the server, and opens the listeners and the admin socket. Clients that connect from now
// on wait in the kernel's queue. Everything that can fail happens here. Nothing runs before Run.
func New(o Options) (*Daemon, error) {
	d := &Daemon{
		version: o.Version, log: o.Log, dropped: o.LogDropped, began: time.Now(), boot: o.Config, cfg: o.Config,
		echo:   probe.NewICMP(),
		drains: newDrains(), notify: newNotifier(o.Log), changed: make(chan struct{}, 1),
		judgedAgain: make(chan struct{}, 1), life: newLife(), pools: make(map[string]*served),
		program: o.Program, from: o.From,
	}
	if d.lookup = o.Lookup; d.lookup == nil {
		d.lookup = systemLookup()
	}
	d.rules = newAccessRules(d.noteRule)
	if d.from != nil {
		d.notify.muted.Store(true)
	}
	zerolog.SetGlobalLevel(logLevel(o.Config))
	slots := checkSlotsFor(descriptorLimit())
	d.checks = healthcheck.NewScheduler(healthcheck.Options{
		Concurrency: slots.sockets, Programs: slots.programs, Report: d.takeVerdicts, Blind: d.logBlindness,
	})
	d.state = newStateStore(o.Config.FilePath(o.Config.Global.StateFile), func() any { return d.collectState() })
	d.files = newFiles(o.Config.File)
	if err := checkHost(o.Config); err != nil {
		return nil, err
	}
	token, err := readToken(o.Config, d.files)
	if err != nil {
		return nil, err
	}
	secure, err := proposeTLS(o.Config, &secured{}, d.files)
	if err != nil {
		return nil, err
	}
	var warnings []string
	if d.access, warnings, err = proposeAccess(o.Config, nil, d.files); err != nil {
		return nil, err
	}
	d.secured, d.contentWarnings = &secure.secured, append(secure.warnings, warnings...) // logged by start
	for i := range o.Config.Pools {
		s, err := d.newServed(o.Config, &o.Config.Pools[i], d.files, &secure.secured)
		if err != nil {
			return nil, err
		}
		d.pools[s.pool.Name()] = s
	}
	if d.fleet, err = d.newMembership(o.Config, d.files); err != nil {
		return nil, err
	}
	if err := d.restoreState(); err != nil {
		return nil, err
	}
	if d.inherited, err = inheritedSockets(); err != nil {
		return nil, err
	}
	if err := checkInherited(o.Config, d.inherited); err != nil {
		return nil, err
	}
	d.server, err = l4.New(l4.Options{
		Loops: o.Config.Global.Workers, MaxSessions: o.Config.Global.MaxSessions,
		NoOffload: !o.Config.Global.UDPOffload, Reserve: slots.descriptors(),
		Sockets: o.From.listening(), DrainTimeout: time.Duration(o.Config.Global.DrainTimeout),
		Access: o.Config.Log.Access.On(), AccessEvery: int(o.Config.Log.Access),
		NoProbes: !o.Config.Log.Probes, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	d.rules.useServer(d.server.SetAccessRules)
	d.fleet.resume()
	if err := d.server.Apply(d.buildPlan(o.Config, d.poolsByName(), d.secured, d.access)); err != nil {
		_ = d.server.Shutdown(context.Background()) // it has not started
		return nil, located(o.Config, err)
	}
	d.metrics, d.publicMetrics = d.newMetrics()
	if d.admin, err = d.openAdmin(o.Config, token); err == nil {
		if d.scrapes, err = d.openMetrics(o.Config); err != nil {
			d.admin.discard()
		}
	}
	if err != nil {
		_ = d.server.Shutdown(context.Background())
		return nil, err
	}
	return d, nil
}

// logLevel returns the log level of a configuration.
func logLevel(cfg *conf.Config) zerolog.Level {
	level, err := zerolog.ParseLevel(cfg.Log.Level)
	if err != nil {
		panic("conf let an unknown log level through: " + cfg.Log.Level)
	}
	return level
}

// poolsByName returns the pools in force.
func (d *Daemon) poolsByName() map[string]*pool.Pool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	pools := make(map[string]*pool.Pool, len(d.pools))
	for name, s := range d.pools {
		pools[name] = s.pool
	}
	return pools
}

// located adds to an error about a listener where in the file its address stands.
func located(cfg *conf.Config, err error) error {
	var listen *l4.ListenError
	if !errors.As(err, &listen) {
		return err
	}
	i := slices.IndexFunc(cfg.Listeners, func(l conf.Listener) bool { return l.Name == listen.Listener })
	l := &cfg.Listeners[i]
	elem := l.Binds[listen.Place].Element
	cause := listen.Err
	if where := whereOf(l, listen); where != "" {
		cause = fmt.Errorf("%s: %w", where, listen.Err)
	}
	network := listen.Protocol.String()
	if listen.Address.Path != "" {
		network = "unix"
	}
	e := cfg.ErrorAt(l.AddressPath(elem), cause)
	e.Found, e.Allowed = fmt.Sprintf("%q", l.Address[elem]), remedy(listen.Err, network)
	return e
}

// whereOf returns which of the ports and protocols of an address could not be listened on; "" if it has only one.
func whereOf(l *conf.Listener, e *l4.ListenError) string {
	elem := l.Binds[e.Place].Element
	ports := 0
	for _, b := range l.Binds {
		if b.Element == elem {
			ports++
		}
	}
	var words []string
	if len(l.Protocols()) > 1 {
		words = append(words, e.Protocol.String())
	}
	if ports > 1 && e.Address.IsValid() {
		words = append(words, fmt.Sprintf("port %d", e.Address.Port()))
	}
	return strings.Join(words, " ")
}

// remedy returns what to do about an address that cannot be listened on. network is "tcp", "udp" or "unix".
func remedy(err error, network string) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && network == "unix":
		return "end what listens there already (see `ss -lxp`), or choose another path"
	case errors.Is(err, syscall.EADDRINUSE):
		sockets := map[string]string{"tcp": "ss -ltnp", "udp": "ss -lunp"}[network]
		return "end what listens there already (see `" + sockets + "`), or choose another port"
	case errors.Is(err, syscall.EACCES) && network == "unix":
		return "needs a folder that this user may write to"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "needs an address of this machine (see `ip address`)"
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 need the capability CAP_NET_BIND_SERVICE, or choose another port"
	}
	return ""
}
