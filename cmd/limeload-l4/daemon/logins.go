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

// loginPatience is how long a backend may take to answer a login that is tried, where its check gives it less: a reload that fails for
// a slow answer would be worse than one that takes a second longer.
const loginPatience = 2 * time.Second

// A login is one check that shows credentials.
type login struct {
	key     string // of the credentials, for the error of a mistake
	checker healthcheck.Checker
}

// credentialsKey is the key, below the check, of the credentials that a check shows; "" for one that shows none.
func credentialsKey(c *conf.Check) string {
	logsIn := c.Type == "postgres" || c.Type == "redis"
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

// A trial is the logins of a pool's checks, and where they are tried before anything rests on them.
type trial struct {
	logins  []login
	targets []healthcheck.Target
	timeout time.Duration // of one attempt
}

func newTrial(p *conf.Pool, check *builtCheck, specs []pool.Spec) trial {
	t := trial{logins: check.logins, timeout: max(check.policy.Timeout, loginPatience)}
	for _, s := range specs {
		if s.Addr.IsValid() {
			t.targets = append(t.targets, healthcheck.Target{ID: targetID(p.Name, s.ID), Group: p.Name, Name: s.ID, Addr: s.Addr})
		}
	}
	return t
}

// tryLogins tries the logins of all trials at once. Its errors are those that every backend refuses which answers.
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

// changesLogin tells whether the configuration has a pool's checks log in otherwise than before, or elsewhere: more has changed than their
// times and counts.
func (pp *proposedPool) changesLogin() bool {
	timing := []string{"interval", "fast_interval", "timeout", "rise", "fall", "jitter", "initial", "stale_after"}
	return slices.ContainsFunc(pp.keys, func(k conf.Difference) bool {
		return k.Keys[0] == "health" && (len(k.Keys) == 1 || !slices.Contains(timing, k.Keys[1]))
	})
}

// tryLogins tries the logins that a proposal brings: those of new pools and changed checks, and of files with other contents. Others
// were tried before, and what became of them since must not stand in the way of another change.
//
// Of a configuration that was sent only the contents of files are tried, by the checks and at the backends that there are: for
// whatever else it says, whoever sent it could have a password shown to an address of his own.
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
