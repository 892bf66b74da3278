package daemon

import (
	"slices"
	"testing"

	"github.com/limeload/limeload-l4/pool"
)

// TestOnePrimary holds that of several backends that call themselves primary the first one in the configuration is
// kept, whatever the order of the verdicts, and that verdicts without a healthy one stay as they are.
func TestOnePrimary(t *testing.T) {
	specs := []pool.Spec{{ID: "c"}, {ID: "a"}, {ID: "b"}}
	a, b := pool.Judgement{ID: "a", Verdict: pool.Healthy}, pool.Judgement{ID: "b", Verdict: pool.Healthy}
	c := pool.Judgement{ID: "c", Verdict: pool.WrongRole, Reason: "a replica"}
	for _, tt := range []struct{ known, want []pool.Judgement }{
		{[]pool.Judgement{a, b, c}, []pool.Judgement{a}},
		{[]pool.Judgement{b, c, a}, []pool.Judgement{a}},
		{[]pool.Judgement{c, b}, []pool.Judgement{b}},
		{[]pool.Judgement{c}, []pool.Judgement{c}},
		{nil, nil},
	} {
		if got := onePrimary(tt.known, specs); !slices.Equal(got, tt.want) {
			t.Errorf("of %v it keeps %v, want %v", tt.known, got, tt.want)
		}
	}
}
