package probe

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// says is a fake checker that always returns the same.
type says struct {
	result healthcheck.Result
	err    error
	after  time.Duration
}

func (s says) Check(context.Context, healthcheck.Target) (healthcheck.Result, error) {
	time.Sleep(s.after)
	return s.result, s.err
}

func TestComposites(t *testing.T) {
	good, bad := says{result: healthcheck.Result{Detail: "fine", Latency: 1}}, says{err: errors.New("bad")}
	replica := says{result: healthcheck.Result{Role: healthcheck.RoleReplica},
		err: fmt.Errorf("a replica: %w", healthcheck.ErrWrongRole)}
	late := says{err: fmt.Errorf("late: %w", healthcheck.ErrLagging)}
	unsure := says{err: fmt.Errorf("no descriptor: %w", healthcheck.ErrInconclusive)}
	primary := says{result: healthcheck.Result{Detail: "primary", Role: healthcheck.RolePrimary, Epoch: 7, Latency: 2,
		Cluster: "one"}}
	for _, tt := range []struct {
		name    string
		checker healthcheck.Checker
		want    string // the details or the error
		kind    error  // wrapped by it
	}{
		{"all succeed", AllOf{good, primary}, "fine; primary", nil},
		{"one fails", AllOf{good, bad, says{err: errors.New("worse")}}, "check 2 of 3: bad", nil},
		{"one fails, and the role is wrong", AllOf{good, bad, replica}, "check 3 of 3: " + replica.err.Error(),
			healthcheck.ErrWrongRole},
		{"one lags, and one fails", AllOf{late, bad}, "check 2 of 2: bad", nil},
		{"one lags", AllOf{good, late}, "check 2 of 2: " + late.err.Error(), healthcheck.ErrLagging},
		{"one has the wrong role", AllOf{good, replica}, "check 2 of 2: a replica: " + healthcheck.ErrWrongRole.Error(),
			healthcheck.ErrWrongRole},
		{"one is unsure", AllOf{good, unsure}, unsure.err.Error(), healthcheck.ErrInconclusive},
		{"one is unsure and one fails", AllOf{unsure, bad}, "check 2 of 2: bad", nil},
		{"any succeeds", AnyOf{bad, good, primary}, "fine", nil},
		{"none does", AnyOf{bad, says{err: errors.New("worse")}}, "none of the checks succeeded: bad; worse", nil},
		{"none, and one has the wrong role", AnyOf{bad, replica},
			"none of the checks succeeded: bad; " + replica.err.Error(), healthcheck.ErrWrongRole},
		{"none, and one lags", AnyOf{late, bad}, "none of the checks succeeded: " + late.err.Error() + "; bad", nil},
		{"none, and one is unsure", AnyOf{bad, unsure}, unsure.err.Error(), healthcheck.ErrInconclusive},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := tt.checker.Check(t.Context(), target("a"))
			got := r.Detail
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("says %q, want %q", got, tt.want)
			}
			for _, kind := range []error{
				healthcheck.ErrWrongRole, healthcheck.ErrLagging, healthcheck.ErrInconclusive,
			} {
				if errors.Is(err, kind) != (kind == tt.kind) {
					t.Errorf("error %v wraps %v: %v", err, kind, errors.Is(err, kind))
				}
			}
		})
	}
	if r, _ := (AllOf{good, primary}).Check(t.Context(), target("a")); r.Role != healthcheck.RolePrimary ||
		r.Epoch != 7 || r.Latency != 2 || r.Cluster != "one" {
		t.Errorf("all together say %+v", r)
	}
}

// TestCompositesOfRealChecks checks an open port and a closed one.
func TestCompositesOfRealChecks(t *testing.T) {
	_, open := listen(t, "127.0.0.1:0")
	closed := TCP{Port: refusing(t).Addr.Port()}
	_, err := AllOf{TCP{}, closed}.Check(deadlineIn(t, patience), open)
	failsWith(t, err, "check 2 of 2: connect refused", syscall.ECONNREFUSED)
	_, err = AnyOf{closed, UDP{Port: closed.Port, RequireAnswer: true}}.Check(deadlineIn(t, patience), open)
	failsWith(t, err, "none of the checks succeeded: connect refused; port unreachable", syscall.ECONNREFUSED)
	if _, err = (AnyOf{closed, TCP{}}).Check(deadlineIn(t, patience), open); err != nil {
		t.Error(err)
	}
}

// TestCompositesRunAtTheSameTime: two slow checks take the time of one.
func TestCompositesRunAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, _ = AllOf{says{after: time.Second}, says{after: time.Second}}.Check(t.Context(), target("a"))
		if took := time.Since(start); took != time.Second {
			t.Errorf("two checks of a second took %v", took)
		}
	})
}

// TestCompositeCredentials: all_of reports refused credentials only if no other check fails; any_of also if another
// fails.
func TestCompositeCredentials(t *testing.T) {
	refused, sick, fine := fails(refusedf("authentication refused")), fails(unhealthyf("connect refused")), fails(nil)
	replica := fails(wrongRolef("is a replica, wanted a primary"))
	for _, tt := range []struct {
		name    string
		checker healthcheck.Checker
		healthy bool
		refused bool
		wrong   bool
	}{
		{"all_of refused and fine", AllOf{refused, fine}, false, true, false},
		{"all_of refused and sick", AllOf{refused, sick}, false, false, false},
		{"any_of refused and fine", AnyOf{refused, fine}, true, false, false},
		{"any_of refused and sick", AnyOf{refused, sick}, false, true, false},
		{"any_of sick and refused", AnyOf{sick, refused}, false, true, false},
		{"any_of replica and refused", AnyOf{replica, refused}, false, true, true},
		{"any_of sick twice", AnyOf{sick, sick}, false, false, false},
	} {
		_, err := tt.checker.Check(t.Context(), target("a"))
		if (err == nil) != tt.healthy || errors.Is(err, healthcheck.ErrCredentials) != tt.refused ||
			errors.Is(err, healthcheck.ErrWrongRole) != tt.wrong {
			t.Errorf("%s: %v, refused %v, wrong role %v", tt.name, err, errors.Is(err, healthcheck.ErrCredentials),
				errors.Is(err, healthcheck.ErrWrongRole))
		}
	}
}

func fails(err error) healthcheck.Checker {
	return says{err: err}
}

// TestCostsOfComposites: a composite check costs what its parts cost together.
func TestCostsOfComposites(t *testing.T) {
	three := AllOf{TCP{}, AnyOf{DNS{}, UDP{}}}
	for _, tt := range []struct {
		checker           healthcheck.Checker
		sockets, programs int
	}{
		{TCP{}, 1, 0},
		{three, 3, 0},
		{AllOf{}, 0, 0},
		{Exec{}, 0, 1},
		{AnyOf{TCP{}, Exec{}, AllOf{Exec{}, TCP{}}}, 2, 2},
	} {
		if sockets, programs := healthcheck.CostOf(tt.checker); sockets != tt.sockets || programs != tt.programs {
			t.Errorf("%T costs %d sockets and %d programs, want %d and %d", tt.checker, sockets, programs, tt.sockets,
				tt.programs)
		}
	}
}
