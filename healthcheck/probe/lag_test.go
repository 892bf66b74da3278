package probe

import (
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// TestLag holds which results know how far a replica is behind: those of replicas that say it, even if it is too far.
func TestLag(t *testing.T) {
	const lag = 7 * time.Second
	primary, replica := healthcheck.RolePrimary, healthcheck.RoleReplica
	for name, tt := range map[string]struct {
		check interface {
			Judge(answer any) (healthcheck.Result, error)
		}
		answer any
		knows  bool
	}{
		"postgres":              {Postgres{}, postgresReport{role: replica, lag: lag}, true},
		"postgres, too far":     {Postgres{MaxLag: time.Second}, postgresReport{role: replica, lag: lag}, true},
		"postgres, wrong role":  {Postgres{Role: primary}, postgresReport{role: replica, lag: lag}, true},
		"postgres, not known":   {Postgres{}, postgresReport{role: replica, lag: -1}, false},
		"postgres, the primary": {Postgres{}, postgresReport{role: primary}, false},
		"redis":                 {Redis{}, redisReport{role: replica, link: redisLinkUp, silence: lag}, true},
		"redis, not known":      {Redis{}, redisReport{role: replica, link: redisLinkUp, silence: -1}, false},
		"redis, the primary":    {Redis{}, redisReport{role: primary, silence: -1}, false},
		"mysql":                 {MySQL{}, mysqlReport{role: replica, lag: &mysqlLag{sources: 1, lag: lag}}, true},
		"mysql, too far": {MySQL{MaxLag: time.Second},
			mysqlReport{role: replica, lag: &mysqlLag{sources: 1, lag: lag}}, true},
		"mysql, stopped":     {MySQL{}, mysqlReport{role: replica, lag: &mysqlLag{sources: 1, stopped: true}}, false},
		"mysql, not asked":   {MySQL{}, mysqlReport{role: replica}, false},
		"mysql, the primary": {MySQL{}, mysqlReport{role: primary}, false},
	} {
		got, _ := tt.check.Judge(tt.answer)
		if got.KnowsLag != tt.knows || tt.knows && got.Lag != lag {
			t.Errorf("%s: it knows a lag: %t, of %v", name, got.KnowsLag, got.Lag)
		}
	}
	whole := withRole(healthcheck.Result{}, healthcheck.Result{Role: replica, Lag: lag, KnowsLag: true})
	if !whole.KnowsLag || whole.Lag != lag {
		t.Errorf("a composite has %+v", whole)
	}
}
