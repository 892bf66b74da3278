package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// says is a checker that finds the same each time.
type says struct {
	result Result
	err    error
	after  time.Duration
}

func (s says) Check(context.Context, Target) (Result, error) {
	time.Sleep(s.after)
	return s.result, s.err
}

func TestComposites(t *testing.T) {
	good, bad := says{result: Result{Detail: "fine", Latency: 1}}, says{err: errors.New("bad")}
	replica := says{result: Result{Role: RoleReplica}, err: fmt.Errorf("a replica: %w", ErrWrongRole)}
	late := says{err: fmt.Errorf("late: %w", ErrLagging)}
	unsure := says{err: fmt.Errorf("no descriptor: %w", ErrInconclusive)}
	primary := says{result: Result{Detail: "primary", Role: RolePrimary, Epoch: 7, Latency: 2}}
	for _, tt := range []struct {
		name    string
		checker Checker
		want    string // the details or the error
		kind    error  // wrapped by it
	}{
		{"all succeed", AllOf{good, primary}, "fine; primary", nil},
		{"one fails", AllOf{good, bad, says{err: errors.New("worse")}}, "check 2 of 3: bad", nil},
		{"one fails, and the role is wrong", AllOf{good, bad, replica}, "check 3 of 3: " + replica.err.Error(), ErrWrongRole},
		{"one lags, and one fails", AllOf{late, bad}, "check 2 of 2: bad", nil},
		{"one lags", AllOf{good, late}, "check 2 of 2: " + late.err.Error(), ErrLagging},
		{"one has the wrong role", AllOf{good, replica}, "check 2 of 2: a replica: " + ErrWrongRole.Error(), ErrWrongRole},
		{"one is unsure", AllOf{good, unsure}, unsure.err.Error(), ErrInconclusive},
		{"one is unsure and one fails", AllOf{unsure, bad}, "check 2 of 2: bad", nil},
		{"any succeeds", AnyOf{bad, good, primary}, "fine", nil},
		{"none does", AnyOf{bad, says{err: errors.New("worse")}}, "none of the checks succeeded: bad; worse", nil},
		{"none, and one has the wrong role", AnyOf{bad, replica}, "none of the checks succeeded: bad; " + replica.err.Error(), ErrWrongRole},
		{"none, and one lags", AnyOf{late, bad}, "none of the checks succeeded: " + late.err.Error() + "; bad", nil},
		{"none, and one is unsure", AnyOf{bad, unsure}, unsure.err.Error(), ErrInconclusive},
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
			for _, kind := range []error{ErrWrongRole, ErrLagging, ErrInconclusive} {
				if errors.Is(err, kind) != (kind == tt.kind) {
					t.Errorf("error %v wraps %v: %v", err, kind, errors.Is(err, kind))
				}
			}
		})
	}
	if r, _ := (AllOf{good, primary}).Check(t.Context(), target("a")); r.Role != RolePrimary || r.Epoch != 7 || r.Latency != 2 {
		t.Errorf("all together say %+v", r)
	}
}

// TestCompositesOfRealChecks has a port that is open and one that is not.
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

// TestCompositesRunAtTheSameTime holds that two slow checks take the time of one.
func TestCompositesRunAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, _ = AllOf{says{after: time.Second}, says{after: time.Second}}.Check(t.Context(), target("a"))
		if took := time.Since(start); took != time.Second {
			t.Errorf("two checks of a second took %v", took)
		}
	})
}
