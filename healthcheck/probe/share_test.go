package probe

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// A parrot answers each question with the same, and counts the questions.
type parrot struct {
	answer any
	asked  *atomic.Int32
	role   healthcheck.Role
}

func (p parrot) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	return check(ctx, p, t)
}

func (p parrot) Ask(context.Context, healthcheck.Target) (any, error) {
	p.asked.Add(1)
	return p.answer, nil
}

func (p parrot) Judge(answer any) (healthcheck.Result, error) {
	return healthcheck.Result{Detail: answer.(string), Role: p.role}, nil
}

func (p parrot) Join(other healthcheck.Checker) healthcheck.Checker {
	p.answer = p.answer.(string) + "+" + other.(parrot).answer.(string)
	return p
}

// TestJoinedThroughWrappers holds that one question of combined and wrapped checks serves two pools, and that each part
// is joined with its counterpart.
func TestJoinedThroughWrappers(t *testing.T) {
	build := func(asked *atomic.Int32, name string, role healthcheck.Role) healthcheck.Checker {
		part := func(n string) healthcheck.Checker {
			return From{Sources: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
				Checker: parrot{answer: name + n, asked: asked, role: role}}
		}
		return Proxied{Version: 2, Checker: AllOf{part("1"), AnyOf{part("2"), TCP{}}}}
	}
	var asked atomic.Int32
	a, b := build(&asked, "a", healthcheck.RolePrimary), build(&asked, "b", healthcheck.RoleReplica)
	joined := healthcheck.Join(a, b)
	if s, p := healthcheck.CostOf(joined); s != 3 || p != 0 {
		t.Errorf("a check costs %d sockets and %d programs", s, p)
	}
	answer := healthcheck.Ask(t.Context(), joined, healthcheck.Target{Addr: netip.MustParseAddrPort("127.0.0.1:1")})
	for _, by := range []struct {
		c    healthcheck.Checker
		role healthcheck.Role
	}{{a, healthcheck.RolePrimary}, {b, healthcheck.RoleReplica}} {
		r, err := answer.Judge(by.c)
		if err != nil || r.Detail != "a1+b1; a2+b2" || r.Role != by.role {
			t.Errorf("it is judged as %+v, %v", r, err)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("%d questions were asked", n)
	}
}

// TestJoinedWishes holds that a joined check asks what either of the two needs, and that each judges by its own wishes.
func TestJoinedWishes(t *testing.T) {
	const primary, replica = healthcheck.RolePrimary, healthcheck.RoleReplica
	reads := Redis{Role: replica, MaxLag: time.Second}
	writes := Redis{Role: primary}
	if !writes.Join(reads).(Redis).needsLag() || !reads.Join(writes).(Redis).needsLag() ||
		writes.Join(writes).(Redis).needsLag() {
		t.Error("redis: the lag is not asked for exactly when one needs it")
	}
	late := redisReport{role: replica, link: redisLinkUp, silence: time.Minute}
	if _, err := reads.Judge(late); !errors.Is(err, healthcheck.ErrLagging) {
		t.Errorf("redis: the reader finds %v", err)
	}
	if _, err := (Redis{}).Judge(late); err != nil {
		t.Errorf("redis: one without wishes finds %v", err)
	}

	slow := MySQL{Role: replica, MaxLag: time.Second}
	joined := MySQL{Role: primary}.Join(slow).(MySQL)
	needsLag := func(c MySQL) bool { return c.looksAtLag(replica) }
	if !joined.anyOf(needsLag) || (MySQL{Role: primary}).anyOf(needsLag) {
		t.Error("mysql: the lag is not asked for exactly when one needs it")
	}
	noRight := refusedf("the user may not see the lag")
	for name, r := range map[string]mysqlReport{
		"late":              {role: replica, lag: &mysqlLag{sources: 1, lag: time.Minute}},
		"without the right": {role: replica, lagError: noRight},
	} {
		if _, err := slow.Judge(r); err == nil {
			t.Errorf("mysql: the reader finds nothing wrong with a replica that is %s", name)
		}
		if _, err := (MySQL{}).Judge(r); err != nil {
			t.Errorf("mysql: one without wishes finds %v of a replica that is %s", err, name)
		}
	}
	reserve := MySQL{Role: replica, Fallback: true}
	for _, query := range []error{nil, unhealthyf("the query returned no row")} {
		_, err := reserve.Judge(mysqlReport{role: primary, query: query})
		if errors.Is(err, healthcheck.ErrFallback) != (query == nil) || err == nil {
			t.Errorf("mysql: a primary in reserve whose query ends with %v is %v", query, err)
		}
	}
	_, err := (Postgres{Role: replica}).Judge(postgresReport{role: primary})
	if !errors.Is(err, healthcheck.ErrWrongRole) {
		t.Errorf("postgres: %v", err)
	}
}
