package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// settle is the pause before and after a measurement, so that the balancer's remaining work for ended sessions
	// counts in the right measurement.
	settle = 100 * time.Millisecond

	// settleIdle is the pause for idle sessions, and then how long they are observed. limeload-l4 sets some options of
	// a session when it is a second old, which must not count as work at rest.
	settleIdle = 2 * time.Second

	// grace is how much longer than planned a client may take, in addition to stallTimeout: it has to open thousands of
	// sessions, and the machine may be busy.
	grace = 30 * time.Second
)

// A bench is one run: it starts backends, contenders and clients, one after the other, and records their figures. It is
// for one goroutine; see newBench.
type bench struct {
	// set once, then read-only
	opts        options
	contenders  []contender
	programs    map[string]program // by contender
	descriptors int                // RLIMIT_NOFILE of every process
	dir         string             // for configurations and logs
	progress    io.Writer

	tools   map[string]program  // nsd and dnsperf, if there is something to do for them
	servers map[traffic]*server // by traffic.serverOf
	etcd    *server             // nil if no scenario needs it
	ports   portFinder

	certificates map[traffic]certificate       // by kind of TLS
	configs      map[string]map[traffic]string // by contender, as of its first start for each traffic
	ownConfigs   map[string]map[string]string  // by contender and scenario, of those with settings of their own
}

// newBench looks up all programs and limits first, so that it fails before the first measurement. close removes its
// files.
func newBench(ctx context.Context, o options, progress io.Writer) (*bench, error) {
	b := &bench{
		opts: o, programs: map[string]program{}, progress: progress, tools: map[string]program{},
		servers: map[traffic]*server{},
		configs: map[string]map[traffic]string{}, ownConfigs: map[string]map[string]string{},
	}
	var errs []error
	for _, c := range contenders() {
		if !slices.Contains(o.contenders, c.name) || !slices.ContainsFunc(o.scenarios, c.does) {
			continue
		}
		b.contenders = append(b.contenders, c)
		if c.direct() {
			continue
		}
		p, err := c.find(ctx, c.pathIn(o))
		if err == nil {
			p.digest, err = digest(p.path)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w (or leave it out with -contenders)", c.name, err))
		}
		b.programs[c.name] = p
	}
	if slices.ContainsFunc(o.scenarios, func(s scenario) bool { return s.traffic.dns() }) {
		errs = append(errs, b.findTools(ctx))
	}
	if slices.ContainsFunc(o.scenarios, func(s scenario) bool { return s.traffic.serverOf() == trafficPostgres }) {
		errs = append(errs, b.findPostgres(ctx))
	}
	if slices.ContainsFunc(o.scenarios, func(s scenario) bool { return s.traffic == trafficRedis }) {
		errs = append(errs, b.findRedis(ctx))
	}
	if slices.ContainsFunc(o.scenarios, func(s scenario) bool { return s.feature.Fleet }) {
		etcd, _, err := lookUp(ctx, o.etcd, "apt-get install etcd-server", "--version")
		b.tools["etcd"] = etcd
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var err error
	if b.descriptors, err = limitDescriptors(o); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "limeload-bench-"); err != nil {
		return nil, err
	}
	if b.certificates, err = writeCertificates(b.dir); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// findTools looks up the programs that DNS scenarios need.
func (b *bench) findTools(ctx context.Context) error {
	nsd, _, err := lookUp(ctx, b.opts.nsd, "apt-get install nsd", "-v")
	b.tools["nsd"] = nsd
	// dnsperf has no option that only prints the version, but always prints it first
	dnsperf, out, dnsperfErr := lookUp(ctx, b.opts.dnsperf, "apt-get install dnsperf", "-h")
	for line := range strings.Lines(out) {
		if strings.Contains(line, "Version") {
			dnsperf.version = "dnsperf " + strings.TrimSpace(line)
		}
	}
	b.tools["dnsperf"] = dnsperf
	return errors.Join(err, dnsperfErr)
}

// limitDescriptors sets this process's limit, which its children inherit, high enough for the idle sessions, and
// returns it. It is not simply the highest allowed: nginx and HAProxy allocate by it.
func limitDescriptors(o options) (int, error) {
	const usual = 20_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	var most scenario
	for _, s := range o.scenarios {
		if most.name == "" || s.descriptors(o) > most.descriptors(o) {
			most = s
		}
	}
	need := uint64(most.descriptors(o) + 1000) // with what a balancer holds or reserves besides
	if limit.Max < need {
		return 0, fmt.Errorf("%s needs %d descriptors in the balancer and the limit is %d: raise it (ulimit -n), ask "+
			"for fewer sessions (-idle), or leave the scenario out", most.name, need, limit.Max)
	}
	limit.Cur = min(limit.Max, max(usual, need))
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("setrlimit", err)
	}
	return int(limit.Cur), nil
}

// close ends the backends and removes all files.
func (b *bench) close() error {
	var errs []error
	for _, s := range b.servers {
		errs = append(errs, s.proc.stop(), s.cleanUp())
	}
	if b.etcd != nil {
		errs = append(errs, b.etcd.proc.stop())
	}
	return errors.Join(errors.Join(errs...), os.RemoveAll(b.dir))
}

// run measures everything. Even with an error it returns the measurements so far. A failed measurement is one of them
// and does not end the run.
func (b *bench) run(ctx context.Context) ([]measurement, error) {
	if err := b.startServers(ctx); err != nil {
		return nil, err
	}
	var all []measurement
	for round := range b.opts.rounds {
		for _, s := range b.opts.scenarios {
			for _, c := range inTurn(b.contenders, round) {
				if !c.does(s) {
					continue
				}
				var m measurement
				paced, err := s.paced(round+1, all)
				if err == nil {
					m, err = b.measure(ctx, paced, c)
				}
				if ctx.Err() != nil {
					return all, ctx.Err()
				}
				if err == nil {
					err = b.servers[s.traffic.serverOf()].proc.running()
				}
				m.Round, m.Scenario, m.Contender = round+1, s.name, c.name
				if err != nil {
					m.Error = err.Error()
				}
				m.compare(s, all)
				all = append(all, m)
				fmt.Fprintf(b.progress, "round %d/%d  %s\n", round+1, b.opts.rounds, m.line(s))
			}
		}
	}
	return all, nil
}

// startServers starts the backends for each kind of traffic in the run.
func (b *bench) startServers(ctx context.Context) error {
	for _, s := range b.opts.scenarios {
		if s.feature.Fleet && b.etcd == nil {
			var err error
			if b.etcd, err = startEtcd(ctx, b.tools["etcd"], &b.ports, b.dir); err != nil {
				return err
			}
		}
		for _, t := range s.traffic.servers() {
			if b.servers[t] != nil {
				continue
			}
			behind, err := b.startServer(ctx, t)
			if err != nil {
				return err
			}
			b.servers[t] = behind
		}
	}
	return nil
}

func (b *bench) startServer(ctx context.Context, t traffic) (*server, error) {
	switch {
	case t.dns():
		return startNameServer(ctx, b.tools["nsd"], &b.ports, b.dir)
	case t.udp():
		return startBackends(roleTrainBackend, b.dir)
	case t == trafficPostgres:
		return startPostgres(ctx, b.tools, &b.ports, b.dir)
	case t == trafficRedis:
		return startRedis(ctx, b.tools["redis-server"], &b.ports, b.dir)
	case t == trafficMeter:
		return startBackends(roleMeterBackend, b.dir)
	}
	return startBackends(roleBackend, b.dir)
}

// inTurn returns the contenders in the order of a round. Each round begins with another one, so that no contender
// always runs after the same one.
func inTurn(cs []contender, round int) []contender {
	k := round % len(cs)
	return slices.Concat(cs[k:], cs[:k])
}

// measure runs one scenario with one contender, in a fresh process.
func (b *bench) measure(ctx context.Context, s scenario, c contender) (measurement, error) {
	if c.direct() {
		return b.load(ctx, s, b.backends(s), nil, nil)
	}
	targets, err := b.findPorts(s.traffic)
	if err != nil {
		return measurement{}, err
	}
	running, err := b.startContender(c, s, targets)
	if err != nil {
		return measurement{}, err
	}
	proc, processes := running.proc, c.processes(b.workers(s))
	if s.reload {
		processes = anyProcesses
	}
	pids, err := waitReady(ctx, proc, s.traffic, targets[0], processes)
	if err == nil && len(targets) > 1 {
		_, err = waitReady(ctx, proc, trafficFlood, targets[1], processes)
	}
	var reload func(context.Context) error
	if err == nil && s.reload {
		pids = nil // they come and go: their CPU time is not measured
		reload, err = b.reloading(c, proc, running.file, running.setup)
	}
	if err != nil {
		return measurement{}, errors.Join(err, proc.stop())
	}
	m, err := b.load(ctx, s, targets, pids, reload)
	if err != nil {
		err = errors.Join(err, proc.running())
	}
	return m, errors.Join(err, proc.stop())
}

// findPorts returns the addresses of a balancer's listeners for t: one, or a second one for a flood.
func (b *bench) findPorts(t traffic) ([]netip.AddrPort, error) {
	addrs := make([]netip.AddrPort, 1)
	if t == trafficPostgres {
		addrs = make([]netip.AddrPort, 2)
	}
	var errs []error
	for i := range addrs {
		var err error
		addrs[i], err = b.ports.find()
		errs = append(errs, err)
	}
	return addrs, errors.Join(errs...)
}

// backends returns the addresses of a scenario's backends.
func (b *bench) backends(s scenario) []netip.AddrPort {
	all, n := b.servers[s.traffic.serverOf()].addrs, s.backends
	if n == 0 {
		n = backendCount
	}
	return all[:min(n, len(all))]
}

// workers returns how many loops, threads or worker processes a balancer has in a scenario.
func (b *bench) workers(s scenario) int {
	if s.workers > 0 {
		return s.workers
	}
	return b.opts.workers
}

func (b *bench) startContender(c contender, work scenario, listen []netip.AddrPort) (balancer, error) {
	dir, err := os.MkdirTemp(b.dir, c.name+"-")
	if err != nil {
		return balancer{}, err
	}
	t := work.traffic
	s := setup{
		traffic:     t,
		listen:      listen[0],
		backends:    b.backends(work),
		workers:     b.workers(work),
		descriptors: b.descriptors,
		dir:         dir,
		certificate: b.certificates[t],
		aes128:      b.opts.aes128,
		limits:      work.limits,
		feature:     work.feature,
		reloads:     work.reload,
	}
	if work.limits.Denied > 0 {
		if s.denied, err = writeDenied(b.dir, work.limits.Denied); err != nil {
			return balancer{}, err
		}
	}
	if work.feature.Fleet {
		s.etcd = b.etcd.addrs[0]
	}
	if t == trafficPostgres {
		s.flood, s.floodBackends = listen[1], b.servers[trafficFlood.serverOf()].addrs[:backendCount]
		s.certificate = b.certificates[trafficFlood]
	}
	running, err := startBalancer(c, b.programs[c.name], s)
	b.keepConfig(c, work, running.config)
	return running, err
}

// keepConfig keeps a configuration for the report, unless there is an earlier one for the same work.
func (b *bench) keepConfig(c contender, work scenario, config string) {
	if b.configs[c.name] == nil {
		b.configs[c.name], b.ownConfigs[c.name] = map[traffic]string{}, map[string]string{}
	}
	if work.ownConfig() {
		b.ownConfigs[c.name][work.name] = config
	} else if _, ok := b.configs[c.name][work.traffic]; !ok {
		b.configs[c.name][work.traffic] = config
	}
}

// load runs a client with the scenario's job against the targets. pids are the
// balancer's; there are none without a balancer. Unless reload is nil, it is called
// when a sixth of the work is done. The client is gone when it returns, and so the
// balancer has no session left.
func (b *bench) load(ctx context.Context, s scenario, targets []netip.AddrPort, pids []int,
	reload func(context.Context) error) (measurement, error) {
	j := s.jobFor(b.opts)
	j.Targets = targets
	if s.traffic == trafficMeter {
		j.Meter = b.servers[s.traffic].addrs[0]
	}
	cl, err := b.startLoader(j)
	if err != nil {
		return measurement{}, err
	}
	if reload != nil {
		cl = &reloader{loader: cl, after: j.Duration / 6, reload: reload}
	}
	m, err := b.observe(ctx, s, j, cl, pids)
	return m, errors.Join(err, cl.close())
}

func (b *bench) startLoader(j job) (loader, error) {
	if j.Beside != nil {
		flood := *j.Beside
		flood.Targets, flood.Duration, j.Beside = j.Targets, j.Duration, nil
		l, err := b.startLoader(j)
		return &besieged{loader: l, job: flood, lead: j.Lead, dir: b.dir}, err
	}
	switch j.Pattern {
	case patternDNS:
		return newDNSPerf(b.tools["dnsperf"], j, b.dir)
	case patternPostgres:
		return newPGBench(b.tools["pgbench"], j, b.dir)
	case patternRedis:
		return newRedisBenchmark(b.tools["redis-benchmark"], j, b.dir)
	}
	return startClient(j, b.dir)
}

// observe looks at all processes before and after the client does its job.
func (b *bench) observe(ctx context.Context, s scenario, j job, cl loader, pids []int) (measurement, error) {
	if err := cl.ready(ctx, j.Warmup+stallTimeout+grace); err != nil {
		return measurement{}, err
	}
	before, err := b.look(ctx, s, settle, cl, pids)
	if err != nil {
		return measurement{}, err
	}
	r, err := cl.run(ctx, j.Duration+stallTimeout+grace)
	if err != nil {
		return measurement{}, err
	}
	after, err := b.look(ctx, s, settle, cl, pids)
	if err != nil {
		return measurement{}, err
	}
	if err := s.sustained(r, j); err != nil {
		return measurement{}, err
	}
	m := newMeasurement(s, r, before, after)
	if j.Pattern == patternIdle {
		settled, err := b.look(ctx, s, settleIdle, cl, pids)
		if err != nil {
			return measurement{}, err
		}
		rested, err := b.look(ctx, s, settleIdle, cl, pids)
		if err != nil {
			return measurement{}, err
		}
		m.Idle = newIdleFigures(j.Connections, before, settled, rested)
	}
	return m, cl.finish(ctx, stallTimeout+grace)
}

// A view has the CPU time and resources of the processes at one time.
type view struct {
	at        time.Time
	processes int // of the balancer; 0 without one
	balancer  cpuReading
	client    cpuReading
	backend   cpuReading
	machine   time.Duration
	holds     holding // the balancer
	switches  int64   // of it: how often its threads went to sleep
}

// look waits for everything to settle and then looks.
func (b *bench) look(ctx context.Context, s scenario, rest time.Duration, cl loader, pids []int) (view, error) {
	if err := pause(ctx, rest); err != nil {
		return view{}, err
	}
	v := view{at: time.Now(), processes: len(pids)}
	var errs [6]error
	v.balancer, errs[0] = readCPU(pids)
	v.client, errs[1] = cl.cpu()
	for _, t := range s.traffic.servers() {
		r, err := b.servers[t].cpu()
		v.backend.clock += r.clock
		v.backend.stat += r.stat
		errs[2] = errors.Join(errs[2], err)
	}
	v.holds, errs[3] = readHolding(pids)
	v.machine, errs[4] = machineCPU()
	v.switches, errs[5] = readSwitches(pids)
	return v, errors.Join(errs[:]...)
}
