package daemon

import (
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/pool/discovery"
	"github.com/limeload/limeload-l4/pool/rate"
)

// PoolOptions converts a pool's part of the configuration for package pool, but for Secure, which is made of files.
func PoolOptions(c *conf.Pool) pool.Options {
	return pool.Options{
		Name: c.Name, Algorithm: c.Algorithm, Initial: initialVerdict(c.Health),
		ConnectTimeout: c.ConnectTimeout.Std(), Retries: c.Retries,
		HashPort: c.HashKey == "client", HashName: c.HashKey == "sni" || c.HashKey == "mqtt_client_id",
		HashBalance: c.HashBalance, Zone: c.Zone, SlowStart: c.SlowStart.Std(),
		StickyTTL: c.Sticky.TTL.Std(), StickyEntries: c.Sticky.MaxEntries, StickyName: c.Sticky.Key != "client_ip",
		NamedBy:  nameKind(c),
		QueueMax: c.Queue.Max, QueueTimeout: c.Queue.Timeout.Std(),
		HoldMax: c.Hold.Max, HoldTimeout: c.Hold.Timeout.Std(),
		SendProxy:      sendProxy(c),
		TryAllWhenNone: c.WhenNone == "all", CloseOnUnhealthy: c.OnUnhealthy == "close",
		CloseOnRemove: c.OnRemove == "close", Checked: c.Health != nil,
		DrainSafely: c.Drain == "safe", Rebalance: pool.Rebalance{
			MaxSkew: c.Rebalance.MaxSkew, Rate: c.Rebalance.Rate.Share(), MinAge: c.Rebalance.MinAge.Std(),
		},
		Source: c.SourceAddrs, CongestionControl: c.CongestionControl,
		LoopbackCongestionControl: l4.LoopbackCongestionControl(),
		Breaker: pool.BreakerOptions{
			Failures: c.Breaker.Failures, FailureRatio: c.Breaker.FailureRatio, Window: c.Breaker.Window.Std(),
			MinSamples: c.Breaker.MinSamples, OpenFor: c.Breaker.OpenFor.Std(), MaxOpenFor: c.Breaker.MaxOpenFor.Std(),
			Trials: c.Breaker.Trials, MaxOpenShare: c.Breaker.MaxOpenShare,
		},
	}
}

// nameKind returns what the name of a pool's sessions is.
func nameKind(c *conf.Pool) pool.NameKind {
	if c.NamedBy() == "mqtt_client_id" {
		return pool.MQTTClientID
	}
	return pool.ServerName
}

// sendProxy returns the version of the PROXY protocol that a pool's backends get; 0 is none.
func sendProxy(c *conf.Pool) int {
	switch c.SendProxy {
	case "v1":
		return 1
	case "v2":
		return 2
	}
	return 0
}

// BackendSpecs converts backends of the configuration, or of a file of backends, for package pool.
func BackendSpecs(backends []conf.Backend) []pool.Spec {
	specs := make([]pool.Spec, len(backends))
	for i, b := range backends {
		specs[i] = pool.Spec{
			ID: b.Name, Addr: pool.Address{AddrPort: b.Addr, Path: b.Path}, Weight: uint32(b.Weight),
			MaxSessions: b.MaxSessions, MaxRate: rateLimit(b.MaxRate),
			Tier: b.Tier, Zone: b.Zone, Mode: poolMode(b.Mode), Check: b.CheckAddr,
		}
	}
	return specs
}

// rateLimit converts a rate of the configuration.
func rateLimit(r conf.Rate) rate.Limit { return rate.Limit{Every: r.Every(), Burst: r.Burst} }

// poolMode converts a valid mode of the configuration or of a request; "" is ready.
func poolMode(text string) pool.Mode {
	mode, err := pool.ParseMode(text)
	if err != nil {
		return pool.Ready
	}
	return mode
}

// addressFamily converts the family of the configuration for package discovery.
func addressFamily(text string) discovery.Family {
	for _, f := range []discovery.Family{discovery.IPv4, discovery.IPv6} {
		if f.String() == text {
			return f
		}
	}
	return discovery.AnyFamily
}

// parseBackends parses a file of discovered backends.
func parseBackends(path string, data []byte) ([]pool.Spec, error) {
	found, err := conf.ParseBackends(path, data)
	if err != nil {
		return nil, err
	}
	return BackendSpecs(found), nil
}

// parseBackend parses the value of a key that describes one backend.
func parseBackend(name string, value []byte) (pool.Spec, error) {
	found, err := conf.ParseBackend(name, value)
	if err != nil {
		return pool.Spec{}, err
	}
	return BackendSpecs([]conf.Backend{found})[0], nil
}

// initialVerdict is the verdict on a backend before its first check. Without checks it stays healthy.
func initialVerdict(h *conf.Health) pool.Verdict {
	if h == nil || h.Initial == "healthy" {
		return pool.Healthy
	}
	return pool.Unknown
}

// buildPlan converts a configuration for the data plane.
func (d *Daemon) buildPlan(
	cfg *conf.Config, pools map[string]*pool.Pool, secure *secured, access accessLists,
) l4.Plan {
	var plan l4.Plan
	for _, c := range cfg.Listeners {
		for _, protocol := range c.Protocols() {
			spec := d.buildListener(cfg, &c, protocol, pools, secure)
			spec.Access = access.of(c.Name)
			plan.Listeners = append(plan.Listeners, spec)
		}
	}
	return plan
}

// buildListener converts a listener's part of the configuration, for one of its protocols.
func (d *Daemon) buildListener(
	cfg *conf.Config, c *conf.Listener, protocol string, pools map[string]*pool.Pool, secure *secured,
) l4.ListenerSpec {
	spec := l4.ListenerSpec{
		Name: c.Name, Pool: pools[c.DefaultPool()],
		Backlog: c.Backlog, MaxSessions: c.MaxSessions,
		FastOpen: c.FastOpen, CongestionControl: c.CongestionControl, TLS: secure.servers[c.Name],
		IdleTimeout: c.IdleTimeout.Std(), HalfCloseTimeout: c.HalfCloseTimeout.Std(),
		UserTimeout: c.UserTimeout.Std(),
		KeepAlive: l4.KeepAlive{Idle: c.Keepalive.Idle.Std(), Interval: c.Keepalive.Interval.Std(),
			Count: c.Keepalive.Count},
	}
	for _, t := range c.Routes {
		spec.Routes = append(spec.Routes,
			l4.Route{ServerNames: t.SNI, Protocols: t.ALPN, Pool: pools[t.Pool]})
	}
	if spec.MQTT = cfg.ReadsMQTT(c); spec.MQTT || len(spec.Routes) > 0 {
		spec.InspectTimeout = c.InspectTimeout.Std()
	}
	d.placeListener(&spec, c, protocol)
	switch c.RefuseWith {
	case "close":
		spec.Refuse = l4.RefuseClose
	case "protocol":
		spec.Farewell = language(c)
	}
	spec.Proxy = proxySettings(&c.ProxyProtocol)
	spec.Limits = limitSettings(&c.Limits)
	if c.Limits.OverLimit == "protocol" {
		spec.OverFarewell = language(c)
	}
	switch {
	case protocol == "udp":
	case c.Profile == "postgres":
		spec.Spoken = l4.SpokenPostgres
	case c.Profile == "redis":
		spec.Spoken = l4.SpokenRedis
	}
	if cfg.ReadsPostgres(c) {
		spec.Postgres.Timeout = c.InspectTimeout.Std()
	}
	if protocol == "udp" {
		spec.Protocol, spec.Flows, spec.DNS = l4.UDP, flowSettings(cfg, c), dnsSettings(c)
	} else if c.Cache != nil {
		spec.DNS = dnsSettings(c)
	}
	return spec
}

// placeListener sets where a listener listens: at its addresses, or by the sockets that it inherited for them.
func (d *Daemon) placeListener(spec *l4.ListenerSpec, c *conf.Listener, protocol string) {
	var inherited map[int]inheritedSocket
	if protocol == "tcp" {
		inherited, _ = assignSockets(c, d.inherited[c.Name])
	}
	for i, b := range c.Binds {
		place := l4.Place{Address: b.Addr, DualStack: b.DualStack, Inherited: inherited[i].fds}
		if b.Path != "" {
			place.Unix = l4.UnixSocket{Path: b.Path, Mode: c.Mode, Owner: c.Owner, Group: c.Group}
		}
		if i == 0 {
			spec.Address, spec.DualStack = place.Address, place.DualStack
			spec.Unix, spec.Inherited = place.Unix, place.Inherited
		} else {
			spec.More = append(spec.More, place)
		}
	}
}

// proxySettings converts the PROXY protocol's settings of a listener for the data plane.
func proxySettings(c *conf.ProxyProtocol) l4.ProxySettings {
	p := l4.ProxySettings{Trusted: c.Prefixes, Timeout: c.Timeout.Std()}
	switch c.Accept {
	case "v1":
		p.Versions = l4.ProxyV1
	case "v2":
		p.Versions = l4.ProxyV2
	case "any":
		p.Versions = l4.ProxyV1 | l4.ProxyV2
	default:
		return l4.ProxySettings{}
	}
	return p
}

// language is the language in which the clients of a listener are told why they are refused; 0 if none is known.
func language(c *conf.Listener) l4.Language {
	switch c.Profile {
	case "postgres":
		return l4.Postgres
	case "redis":
		return l4.Redis
	case "dns":
		return l4.DNS
	}
	if c.BeginsWithTLS() {
		return l4.TLS
	}
	return 0
}

// flowSettings converts the settings of a UDP listener for the data plane.
func flowSettings(cfg *conf.Config, c *conf.Listener) l4.FlowSettings {
	f := l4.FlowSettings{
		Timeout: c.FlowTimeout.Std(), Responses: c.Responses, Max: c.MaxFlows, ClientMax: c.ClientFlows,
		ReceiveBuffer: int(c.ReceiveBuffer), SendBuffer: int(c.SendBuffer),
	}
	for _, key := range []l4.FlowKey{l4.ByClient, l4.ByClientIP, l4.ByPacket} {
		if key.String() == c.FlowKey {
			f.Key = key
		}
	}
	for _, p := range cfg.Pools {
		if p.Name == c.Pool {
			f.SendProxy = p.SendProxy == "v2"
		}
	}
	return f
}

// dnsSettings converts the DNS settings of a listener for the data plane; nil if it relays without reading DNS.
func dnsSettings(c *conf.Listener) *l4.DNSSettings {
	if c.Cache == nil && c.Profile != "dns" {
		return nil
	}
	s := &l4.DNSSettings{MaxUDP: int(c.MaxUDPAnswer)}
	if k := c.Cache; k != nil {
		s.Cache = l4.DNSCacheSettings{
			MaxEntries: k.MaxEntries, MaxBytes: int64(k.MaxBytes), MinTTL: k.MinTTL.Std(), MaxTTL: k.MaxTTL.Std(),
			NegativeTTL: k.NegativeTTL.Std(), StaleTTL: k.StaleTTL.Std(), FailureTTL: k.FailureTTL.Std(),
			Prefetch: k.Prefetch,
		}
	}
	return s
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}
