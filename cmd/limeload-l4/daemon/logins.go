package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

// loginPatience is the least time that a backend gets to answer a tried login, even if its check has a shorter timeout.
// A reload that fails because of a slow answer would be worse than one that takes a second longer.
const loginPatience = 2 * time.Second

// A login is a check that logs in or shows a client certificate.
type login struct {
	key     string // path of the credentials in the configuration, for errors
	checker healthcheck.Checker
}

// credentialsKey returns the key, below the check, that names the credentials of a check; "" if it has none.
func credentialsKey(c *conf.Check) string {
	logsIn := slices.Contains([]string{"postgres", "redis", "mysql", "mqtt", "ldap"}, c.Type)
	switch {
	case logsIn && c.PasswordFile != "":
		return "password_file"
	case c.Cert != "":
		return "cert"
	case logsIn && c.User != "":
		return "user"
	case logsIn:
		return "type"
	}
	return ""
}

// A trial is the logins of one pool's checks, and the backends at which they are tried before they are put in force.
type trial struct {
	logins  []login
	targets []healthcheck.Target
	timeout time.Duration // per attempt
}

func newTrial(p *conf.Pool, check *builtCheck, specs []pool.Spec) trial {
	t := trial{logins: check.logins, timeout: max(check.policy.Timeout, loginPatience)}
	for _, s := range specs {
		if s.Addr.IsValid() {
			t.targets = append(t.targets,
				place{addr: s.Addr}.locate(healthcheck.Target{ID: targetID(p.Name, s.ID), Group: p.Name, Name: s.ID}))
		}
	}
	return t
}

// tryLogins tries the logins of all trials at the same time. It returns an error for each login that all backends
// refuse that answer.
func tryLogins(ctx context.Context, cfg *conf.Config, trials []trial) error {
	ctx, cancel := context.WithTimeout(ctx, maxFirstVerdicts)
	defer cancel()
	var trying sync.WaitGroup
	var mu sync.Mutex
	var mistakes []error // mu guards it
	for _, t := range trials {
		for _, l := range t.logins {
			trying.Go(func() {
				err := l.try(ctx, cfg, t)
				mu.Lock()
				defer mu.Unlock()
				mistakes = append(mistakes, err)
			})
		}
	}
	trying.Wait()
	slices.SortFunc(mistakes, func(a, b error) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return errors.Join(mistakes...)
}

// try tries one login of a trial.
func (l login) try(ctx context.Context, cfg *conf.Config, t trial) error {
	target, refusal := healthcheck.TryLogin(ctx, l.checker, t.targets, t.timeout)
	if refusal == nil {
		return nil
	}
	return cfg.ErrorAt(l.key, fmt.Errorf("every backend that answers refuses the login; %s: %w", target.Name, refusal))
}

// changesLogin reports whether a pool's checks are to log in differently or elsewhere: it is so if more has changed
// than their times and counts.
func (pp *proposedPool) changesLogin() bool {
	timing := []string{"interval", "fast_interval", "timeout", "rise", "fall", "jitter", "initial", "stale_after"}
	return slices.ContainsFunc(pp.keys, func(k conf.Difference) bool {
		return k.Keys[0] == "health" && (len(k.Keys) == 1 || !slices.Contains(timing, k.Keys[1]))
	})
}

// tryLogins tries the logins that a proposal changes: those of new pools, of changed checks, and of files with new
// contents. The others were tried before. If they fail now, that must not block an unrelated change.
//
// For a configuration that was sent, it only tries new contents of files, with the checks and at the backends of the
// configuration in force. Otherwise whoever sent it could have a password shown to an address of his own.
func (p *proposal) tryLogins(ctx context.Context, sent bool) error {
	var trials []trial
	for _, pp := range p.pools {
		other := pp.isNew || pp.changesLogin()
		if pp.check == nil || other && sent || !other && len(pp.contents) == 0 {
			continue
		}
		var specs []pool.Spec
		for _, b := range pp.served.pool.Backends() {
			if !pp.removed[b.ID] {
				specs = append(specs, pool.Spec{ID: b.ID, Addr: b.Addr})
			}
		}
		for _, s := range pp.specs {
			if pp.added[s.ID] && !sent {
				specs = append(specs, s)
			}
		}
		trials = append(trials, newTrial(pp.conf, pp.check, specs))
	}
	return tryLogins(ctx, p.cfg, trials)
}
