// Package daemon is the running balancer: one process's pools, health checks, discovery, listeners and admin socket, made from a
// configuration, changed by the next one and by the control API, and drained at the end.
//
// It is where the packages of the house meet. What it is told comes from a configuration, from signals and from package admin; it
// owns no command line and no log output.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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
	Config  *conf.Config // resolved; its File is read again at each reload
	Version string
	Log     zerolog.Logger // its writer must never block; of all levels, for the library's global one decides, which is the daemon's

	Lookup     conf.Lookup   // finds the addresses of host names again; nil is by the hosts file and DNS servers of this machine
	LogDropped func() uint64 // how many lines that writer has dropped so far; nil if it never does
}

// A phase is where in its life a daemon is.
type phase = int32

const (
	starting phase = iota
	serving
	draining
)

// A Daemon is a running balancer. Its zero value is of no use, see New.
type Daemon struct {
	// set once, then read-only
	version string
	log     zerolog.Logger
	dropped func() uint64 // lines of the log; nil for none
	lookup  conf.Lookup
	began   time.Time
	boot    *conf.Config // what it was started with
	server  *l4.Server
	checks  *healthcheck.Scheduler
	echo    *probe.ICMP // for all checks that ping
	state   *stateStore
	drains  *drains
	notify  *notifier
	metrics http.Handler

	loadFailure error // why the state file was not read; nil if it was

	inherited   map[string]inheritedSocket // by listener
	changed     chan struct{}              // has room for one: a pool has changed, or a discovery has answered for the first time
	judgedAgain chan struct{}              // has room for one: there is another verdict
	started     chan struct{}              // closed when clients are served
	ending      context.Context            // done when the daemon drains; stored, since what it ends are contexts of callers
	beginEnd    context.CancelFunc
	events      hub
	phase       atomic.Int32

	// applying is held by who reloads or plans, and guards the fields below
	applying sync.Mutex
	admin    *adminSocket
	files    *files         // that the configuration in force names, as they were when they were read
	retiring sync.WaitGroup // admin sockets that end
	watcher  watcher

	stopNaming context.CancelFunc // nil: every name of the configuration has an address
	naming     sync.WaitGroup     // stopNaming ends it

	mu sync.RWMutex
	// mu guards the fields below; cfg and pools change with applying held
	cfg     *conf.Config // in force
	pools   map[string]*served
	reloads admin.Reloads
}

// New makes pools, checks and the server and opens the listeners and the admin socket. Clients that connect from now on wait in the
// kernel's queue. All that can fail is done here; nothing runs before Run.
func New(o Options) (*Daemon, error) {
	d := &Daemon{
		version: o.Version, log: o.Log, dropped: o.LogDropped, began: time.Now(), boot: o.Config, cfg: o.Config, echo: probe.NewICMP(),
		drains: newDrains(), notify: newNotifier(o.Log), changed: make(chan struct{}, 1), judgedAgain: make(chan struct{}, 1), started: make(chan struct{}),
		pools: make(map[string]*served),
	}
	if d.lookup = o.Lookup; d.lookup == nil {
		d.lookup = systemLookup()
	}
	d.ending, d.beginEnd = context.WithCancel(context.Background())
	zerolog.SetGlobalLevel(logLevel(o.Config))
	slots := checkSlotsFor(descriptorLimit())
	d.checks = healthcheck.NewScheduler(healthcheck.Options{
		Concurrency: slots.sockets, Programs: slots.programs, Report: d.takeVerdicts, Blind: d.logBlindness,
	})
	d.state = newStateStore(o.Config.FilePath(o.Config.Global.StateFile), d.collectState)
	d.files = newFiles(o.Config.File)
	token, err := readToken(o.Config, d.files)
	if err != nil {
		return nil, err
	}
	for i := range o.Config.Pools {
		s, err := d.newServed(o.Config, &o.Config.Pools[i], d.files)
		if err != nil {
			return nil, err
		}
		d.pools[s.pool.Name()] = s
	}
	d.loadState()
	if d.inherited, err = inheritedSockets(); err != nil {
		return nil, err
	}
	if err := checkInherited(o.Config, d.inherited); err != nil {
		return nil, err
	}
	d.server, err = l4.New(l4.Options{
		Loops: o.Config.Global.Workers, MaxSessions: o.Config.Global.MaxSessions, NoOffload: !o.Config.Global.UDPOffload,
		Reserve: slots.descriptors(), DrainTimeout: time.Duration(o.Config.Global.DrainTimeout), Access: o.Config.Log.Access,
		NoProbes: !o.Config.Log.Probes, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	if err := d.server.Apply(d.buildPlan(o.Config, d.poolsByName())); err != nil {
		_ = d.server.Shutdown(context.Background()) // it has not started
		return nil, located(o.Config, err)
	}
	d.metrics = d.newMetrics()
	if d.admin, err = d.openAdmin(o.Config, token); err != nil {
		_ = d.server.Shutdown(context.Background())
		return nil, err
	}
	return d, nil
}

// logLevel is the level of a configuration.
func logLevel(cfg *conf.Config) zerolog.Level {
	level, err := zerolog.ParseLevel(cfg.Log.Level)
	if err != nil {
		panic("conf let an unknown log level through: " + cfg.Log.Level)
	}
	return level
}

// poolsByName is the pools in force.
func (d *Daemon) poolsByName() map[string]*pool.Pool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	pools := make(map[string]*pool.Pool, len(d.pools))
	for name, s := range d.pools {
		pools[name] = s.pool
	}
	return pools
}

// located says of an error about a listener where in the file the cause stands.
func located(cfg *conf.Config, err error) error {
	var listen *l4.ListenError
	if !errors.As(err, &listen) {
		return err
	}
	e := cfg.ErrorAt(conf.Path("listener", listen.Listener, "address"), listen.Err)
	for _, l := range cfg.Listeners {
		if l.Name == listen.Listener {
			e.Found = fmt.Sprintf("%q", l.Address)
			e.Allowed = remedy(listen.Err, l.Protocol)
		}
	}
	return e
}

// remedy is what to do about an address of that network ("tcp", "udp" or "unix") that cannot be listened on.
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
