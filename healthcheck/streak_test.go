package healthcheck

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestStreak(t *testing.T) {
	for _, tt := range []struct {
		name       string
		rise, fall int
		initial    Verdict
		results    string // s: success, f: failure, r: wrong role, l: lagging, p: a primary that may serve
		want       string // the verdict after each, h, u, w, l, p, ?; upper case: not settled
	}{
		{"one is enough", 1, 1, Unknown, "sfs", "huh"},
		{"unknown rises", 2, 3, Unknown, "ss", "?h"},
		{"unknown falls", 2, 3, Unknown, "fff", "??u"},
		{"unknown, undecided", 2, 2, Unknown, "sfsfsff", "??????u"},
		{"initially healthy falls", 2, 3, Healthy, "fff", "HHu"},
		{"initially unhealthy rises", 2, 3, Unhealthy, "ss", "Uh"},
		{"a success begins anew", 2, 3, Healthy, "ffsffsfff", "HHhHHhHHu"},
		{"a failure begins anew", 3, 1, Unhealthy, "ssfssfsss", "UUuUUuUUh"},
		{"many more change nothing", 2, 2, Healthy, "sssssf", "hhhhhH"},
		{"a wrong role", 2, 3, Healthy, "rrrss", "HHwWh"},
		{"failures of any kind are failures", 2, 3, Healthy, "lrf", "HHu"},
		{"from lag to worse takes as many", 2, 3, Healthy, "lllfffl", "HHlLLuU"},
		{"and a mixture stays", 2, 2, Lagging, "frfrl", "LLLLl"},
		{"recovery is the same for all", 2, 1, WrongRole, "sslss", "WhlLh"},
		{"a primary that may serve rises", 2, 3, Unknown, "pp", "?p"},
		{"and after a failure", 2, 3, Unhealthy, "pfppffffss", "UuUpPPuuUh"},
		{"a replica is promoted", 2, 3, Healthy, "ppppss", "HHppPh"},
		{"a primary that fails", 2, 2, Fallback, "fpff", "PpPu"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := streak{rise: tt.rise, fall: tt.fall, verdict: tt.initial}
			if got := s.settled(); got != (tt.initial != Unknown) {
				t.Errorf("settled before the first result: %v", got)
			}
			var got strings.Builder
			for _, r := range tt.results {
				s.add(map[rune]Verdict{'s': Healthy, 'f': Unhealthy, 'r': WrongRole, 'l': Lagging, 'p': Fallback}[r])
				letter := map[Verdict]string{Unknown: "?", Healthy: "h", Unhealthy: "u", WrongRole: "w",
					Lagging: "l", Fallback: "p"}[s.verdict]
				if !s.settled() {
					letter = strings.ToUpper(letter)
				}
				got.WriteString(letter)
			}
			if got.String() != tt.want {
				t.Errorf("verdicts after %s are %s, want %s", tt.results, got.String(), tt.want)
			}
		})
	}
}

// resultOf returns the result of a check that succeeded or failed.
func resultOf(succeeded bool) Verdict {
	if succeeded {
		return Healthy
	}
	return Unhealthy
}

// TestStreakIsWhatTheLastResultsSay compares a streak with the rule applied to the whole history.
func TestStreakIsWhatTheLastResultsSay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := streak{
			rise:    rapid.IntRange(1, 5).Draw(t, "rise"),
			fall:    rapid.IntRange(1, 5).Draw(t, "fall"),
			verdict: Verdict(rapid.IntRange(0, 2).Draw(t, "initial")),
		}
		want := s.verdict
		var history []bool
		lastAre := func(n int, result bool) bool {
			if len(history) < n {
				return false
			}
			for _, r := range history[len(history)-n:] {
				if r != result {
					return false
				}
			}
			return true
		}
		for _, r := range rapid.SliceOf(rapid.Bool()).Draw(t, "results") {
			history = append(history, r)
			before := want
			if lastAre(s.rise, true) {
				want = Healthy
			} else if lastAre(s.fall, false) {
				want = Unhealthy
			}
			if changed := s.add(resultOf(r)); s.verdict != want || changed != (want != before) {
				t.Fatalf("after %v: %v, changed %v; want %v, %v", history, s.verdict, changed, want, want != before)
			}
			if settled := want != Unknown && r == (want == Healthy); s.settled() != settled {
				t.Fatalf("after %v: %v and settled %v, want %v", history, s.verdict, s.settled(), settled)
			}
		}
	})
}

func TestStreakForgets(t *testing.T) {
	s := streak{rise: 2, fall: 2, verdict: Healthy}
	s.add(Healthy)
	s.forget()
	if s.add(Healthy); s.verdict != Unknown {
		t.Error("a success from before forget counts after it")
	}
	if s.add(Healthy); s.verdict != Healthy {
		t.Error("two successes after forget do not make healthy")
	}
}
