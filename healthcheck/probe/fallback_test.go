package probe

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// TestFallback holds, for each check with roles, what it says of a primary where replicas are wanted: that it may serve
// if nothing is wrong with it, and else what is wrong. Without Fallback it has the wrong role.
func TestFallback(t *testing.T) {
	const primary, replica = healthcheck.RolePrimary, healthcheck.RoleReplica
	mongo := func(c MongoDB, writable bool) error {
		truth := func(b bool) bsonValue { return bsonValue{bsonBool, []byte{map[bool]byte{true: 1}[b]}} }
		_, err := c.judge(map[string]bsonValue{"ok": {bsonInt32, []byte{1, 0, 0, 0}},
			"isWritablePrimary": truth(writable), "secondary": truth(!writable)})
		return err
	}
	redisPrimary := redisReport{role: primary, silence: -1}
	loading := redisPrimary
	loading.ping = errors.New("loading its data")
	for name, tt := range map[string]struct{ is, without error }{
		"postgres": {Postgres{Role: replica, Fallback: true}.judge(postgresReport{role: primary}),
			Postgres{Role: replica}.judge(postgresReport{role: primary})},
		"redis": {Redis{Role: replica, Fallback: true, MaxLag: time.Second}.judge(redisPrimary),
			Redis{Role: replica}.judge(redisPrimary)},
		"mysql": {MySQL{Role: replica, Fallback: true}.judge(mysqlReport{role: primary}),
			MySQL{Role: replica}.judge(mysqlReport{role: primary})},
		"mongodb": {mongo(MongoDB{Role: replica, Fallback: true}, true), mongo(MongoDB{Role: replica}, true)},
	} {
		if !errors.Is(tt.is, healthcheck.ErrFallback) || errors.Is(tt.is, healthcheck.ErrWrongRole) {
			t.Errorf("%s: a primary in reserve is %v", name, tt.is)
		}
		documented(t, tt.is)
		if !errors.Is(tt.without, healthcheck.ErrWrongRole) {
			t.Errorf("%s: without fallback a primary is %v", name, tt.without)
		}
	}
	for name, err := range map[string]error{
		"redis that loads": Redis{Role: replica, Fallback: true}.judge(loading),
		"galera node that is not ready": MySQL{Role: replica, Fallback: true}.judge(
			mysqlReport{role: primary, galera: &galeraNode{component: "Primary", state: galeraSynced}}),
	} {
		if err == nil || isReport(err) {
			t.Errorf("a %s may serve: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"postgres": Postgres{Role: replica, Fallback: true}.judge(postgresReport{role: replica}),
		"mongodb":  mongo(MongoDB{Role: replica, Fallback: true}, false),
	} {
		if err != nil {
			t.Errorf("%s: a replica is %v", name, err)
		}
	}
}

// TestFallbackInAllOf holds that a failure of another check counts more than that the target is in reserve.
func TestFallbackInAllOf(t *testing.T) {
	reserve := fallbackf("is a primary, which serves while no replica can")
	refused := unhealthyf("connect refused").because(syscall.ECONNREFUSED)
	for _, tt := range []struct {
		errs []error
		want int
	}{
		{[]error{nil, reserve}, 1}, {[]error{reserve, refused}, 1}, {[]error{laggingf("late"), reserve}, 0},
		{[]error{reserve, refusedf("no")}, 1}, {[]error{reserve, wrongRolef("other")}, 1},
	} {
		if got := worst(tt.errs); got != tt.want {
			t.Errorf("the worst of %v is %d, want %d", tt.errs, got, tt.want)
		}
	}
}
