package daemon

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/healthcheck/probe"
	"github.com/limeload/limeload-l4/pool"
)

// Bounds of builtCheck.suspense and builtCheck.patience, however short or long the intervals are. The lower ones leave
// etcd some time, the upper ones bound how long a fleet may be wrong.
const (
	minSuspense, maxSuspense = 2 * time.Second, 30 * time.Second
	minPatience, maxPatience = time.Second, 10 * time.Second
)

// A builtCheck is the check of a pool's backends.
type builtCheck struct {
	checker healthcheck.Checker
	policy  healthcheck.Policy
	logins  []login // those parts of checker that log in or show a client certificate
	proxy   int     // the version of the PROXY header that its connections begin with; 0 = none
	sharing sharing // among the nodes of a fleet
}

// buildCheck builds the check of a pool's backends. echo serves all ICMP checks. It reads the files that the check
// names; an error has the place of the key.
func buildCheck(cfg *conf.Config, p *conf.Pool, from *files, echo *probe.ICMP) (*builtCheck, error) {
	h := p.Health
	b := &builtCheck{policy: healthcheck.Policy{
		Interval: h.Interval.Std(), Timeout: h.Timeout.Std(),
		FastInterval: min(h.FastInterval, h.Interval).Std(), // the default may be longer than the interval
		StaleAfter:   h.StaleAfter.Std(), Rise: h.Rise, Fall: h.Fall, Jitter: h.Jitter,
		Initial: healthcheck.Unknown,
	}}
	if h.Initial == "healthy" {
		b.policy.Initial = healthcheck.Healthy
	}
	b.proxy = checkedProxy(cfg, p)
	b.sharing = shareable(p, b.proxy)
	path := conf.Path("pool", p.Name, "health")
	var err error
	if h.Type != "all_of" && h.Type != "any_of" {
		if b.checker, err = b.add(cfg, path, &h.Check, p.SourceAddrs, from, echo); err == nil {
			b.checker = b.shared(b.proxied(b.checker), p, path, from)
		}
		return b, err
	}
	var checkers []healthcheck.Checker
	for i := range h.Checks {
		c, err := b.add(cfg, fmt.Sprintf("%s.checks[%d]", path, i), &h.Checks[i], p.SourceAddrs, from, echo)
		if err != nil {
			return nil, err
		}
		checkers = append(checkers, c)
	}
	if b.checker = probe.AnyOf(checkers); h.Type == "all_of" {
		b.checker = probe.AllOf(checkers)
	}
	b.checker = b.proxied(b.checker) // and not each part, which does not see any more whether the address is exact
	b.checker = b.shared(b.checker, p, path, from)
	return b, nil
}

// suspense returns how long another node may need to find out what this one has found by the same check.
func (b *builtCheck) suspense() time.Duration {
	p := b.policy
	fast := p.FastInterval
	if fast == 0 {
		fast = p.Interval
	}
	need := time.Duration(p.Fall)*fast + p.Interval + p.Timeout + time.Second
	return min(max(need, minSuspense), maxSuspense)
}

// patience returns how long a node waits for judges that say nothing: a new one has to find something out first.
func (b *builtCheck) patience() time.Duration {
	return min(max(2*b.policy.Interval+b.policy.Timeout, minPatience), maxPatience)
}

// checkedProxy returns the version of the PROXY header that checks of a pool's backends send; 0 is none. Backends that
// only get datagrams expect the header in front of each of them, and perhaps none on a TCP connection.
func checkedProxy(cfg *conf.Config, p *conf.Pool) int {
	uses := func(protocol string) bool {
		return slices.ContainsFunc(cfg.Listeners, func(l conf.Listener) bool {
			return slices.Contains(l.Protocols(), protocol) && slices.Contains(l.Pools(), p.Name)
		})
	}
	if uses("udp") && !uses("tcp") {
		return 0
	}
	return sendProxy(p)
}

// proxied returns a checker whose connections begin with the header, if there is one.
func (b *builtCheck) proxied(c healthcheck.Checker) healthcheck.Checker {
	if b.proxy == 0 {
		return c
	}
	return probe.Proxied{Checker: c, Version: b.proxy}
}

// add builds one check, which connects from one of these sources if there are any, and notes its login if it has one.
func (b *builtCheck) add(
	cfg *conf.Config, path string, c *conf.Check, sources []netip.Addr, from *files, echo *probe.ICMP,
) (healthcheck.Checker, error) {
	checker, err := buildChecker(cfg, path, c, from, echo)
	if err == nil && len(sources) > 0 && c.Type != "icmp" && c.Type != "exec" {
		checker = probe.From{Sources: sources, Checker: checker}
	}
	if key := credentialsKey(c); err == nil && key != "" {
		b.logins = append(b.logins, login{key: path + "." + key, checker: b.proxied(checker)})
	}
	return checker, err
}

// buildChecker builds one check that has no parts.
func buildChecker(
	cfg *conf.Config, path string, c *conf.Check, from *files, echo *probe.ICMP,
) (healthcheck.Checker, error) {
	secure, err := checkTLS(cfg, path, c, from)
	if err != nil {
		return nil, err
	}
	password, err := readPassword(cfg, path, c.PasswordFile, from)
	if err != nil {
		return nil, err
	}
	port := uint16(c.Port)
	switch c.Type {
	case "postgres":
		return probe.Postgres{
			Port: port, User: c.User, Database: c.Database, Password: password, TLS: secure,
			Role: checkRole(c.Role), Fallback: c.Fallback != "", MaxLag: c.MaxLag.Std(),
		}, nil
	case "redis":
		return probe.Redis{
			Port: port, User: c.User, Password: password, TLS: secure,
			Role: checkRole(c.Role), Fallback: c.Fallback != "", MaxLag: c.MaxLag.Std(),
		}, nil
	case "mysql":
		return probe.MySQL{
			Port: port, User: c.User, Password: password, Database: c.Database, Query: c.Query, TLS: secure,
			Role: checkRole(c.Role), Fallback: c.Fallback != "", MaxLag: c.MaxLag.Std(), AllowDonor: c.AllowDonor,
		}, nil
	case "mongodb":
		return probe.MongoDB{Port: port, Role: checkRole(c.Role), Fallback: c.Fallback != "", TLS: secure}, nil
	case "mqtt":
		return probe.MQTT{Port: port, User: c.User, Password: password, TLS: secure}, nil
	case "amqp":
		return probe.AMQP{Port: port, TLS: secure}, nil
	case "smtp":
		return probe.SMTP{Port: port, TLS: secure}, nil
	case "ldap":
		return probe.LDAP{Port: port, User: c.User, Password: password, TLS: secure}, nil
	case "tls":
		return probe.TLS{
			Port: port, ServerName: c.ServerName, Verify: c.Verify, Roots: secure.RootCAs, Certificates: secure.Certificates,
			ALPN: c.ALPN, MinDays: c.MinDays,
		}, nil
	case "http", "https":
		h := probe.HTTP{Port: port, TLS: secure, Method: c.Method, Path: c.Path, Host: c.Host, Body: c.Body}
		for _, s := range c.Statuses {
			h.Status = append(h.Status, probe.StatusRange{From: s.First, To: s.Last})
		}
		return h, nil
	case "grpc":
		return probe.GRPC{Port: port, TLS: secure, Service: c.Service, Authority: c.Authority}, nil
	case "icmp":
		return echo, nil
	case "udp":
		return probe.UDP{Port: port, Payload: c.PayloadBytes, Expect: c.AnswerBytes, RequireAnswer: c.RequireAnswer}, nil
	case "dns":
		return checkDNS(cfg, path, c)
	case "exec":
		return probe.Exec{Argv: c.Command}, nil
	case "tcp":
		if len(c.Steps) == 0 {
			return probe.TCP{Port: port}, nil
		}
		script, err := checkScript(c.Steps)
		if err != nil {
			return nil, cfg.ErrorAt(path+".steps", err)
		}
		script.Port, script.TLS = port, secure
		return script, nil
	}
	return nil, cfg.ErrorAt(path+".type", fmt.Errorf("this version has no check of type %q", c.Type))
}

// checkDNS builds a dns check.
func checkDNS(cfg *conf.Config, path string, c *conf.Check) (healthcheck.Checker, error) {
	name, kind, err := probe.ParseDNSQuery(c.QueryName + " " + c.QueryType)
	if err != nil {
		return nil, cfg.ErrorAt(path+".query", err)
	}
	d := probe.DNS{Port: uint16(c.Port), Name: name, Type: kind, TCP: c.Transport == "tcp"}
	for _, name := range c.Expect {
		d.Rcodes = append(d.Rcodes, dns.StringToRcode[name])
	}
	return d, nil
}

// checkScript builds the script of a tcp check.
func checkScript(steps []conf.Step) (probe.Script, error) {
	var script []probe.Step
	for _, s := range steps {
		var step probe.Step
		var err error
		switch {
		case s.Send != "":
			step, err = probe.SendText(s.Send)
		case s.SendHex != "":
			step, err = probe.SendHex(s.SendHex)
		case s.Expect != "":
			step, err = probe.ExpectText(s.Expect)
		case s.ExpectHex != "":
			step, err = probe.ExpectHex(s.ExpectHex)
		default:
			step, err = probe.ExpectRegexp(s.ExpectRegexp)
		}
		if err != nil {
			return probe.Script{}, err
		}
		script = append(script, step)
	}
	return probe.NewScript(script...)
}

// checkTLS returns the TLS settings of a check; nil if it uses no TLS.
func checkTLS(cfg *conf.Config, path string, c *conf.Check, from *files) (*tls.Config, error) {
	if !c.UsesTLS() {
		return nil, nil
	}
	return clientTLS{c.ServerName, c.Verify, c.CA, c.Cert, c.Key}.read(cfg, path, from)
}

func checkRole(text string) healthcheck.Role {
	for _, r := range []healthcheck.Role{healthcheck.RolePrimary, healthcheck.RoleReplica} {
		if r.String() == text {
			return r
		}
	}
	return healthcheck.RoleUnknown
}

// verdict converts a verdict of a check for package pool.
func verdict(v healthcheck.Verdict) pool.Verdict {
	switch v {
	case healthcheck.Healthy:
		return pool.Healthy
	case healthcheck.Unhealthy:
		return pool.Unhealthy
	case healthcheck.WrongRole:
		return pool.WrongRole
	case healthcheck.Lagging:
		return pool.Lagging
	case healthcheck.Fallback:
		return pool.Fallback
	}
	return pool.Unknown
}
