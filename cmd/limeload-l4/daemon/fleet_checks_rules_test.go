package daemon

import (
	"testing"
	"time"

	"github.com/limeload/limeload-l4/pool"
)

// of returns findings about one backend.
func of(v pool.Verdict) findings { return findings{"b": {Verdict: v.String()}} }

// TestRules: judges' verdicts and the node's own state make the ruling.
func TestRules(t *testing.T) {
	t.Parallel()
	const (
		up, down, unknown, lagging = pool.Healthy, pool.Unhealthy, pool.Unknown, pool.Lagging
		patience                   = 5 * time.Second
	)
	say := func(all ...pool.Verdict) (heard []findings) {
		for _, v := range all {
			heard = append(heard, of(v))
		}
		return heard
	}
	for name, tt := range map[string]struct {
		hearing
		want ruling
	}{
		"a judge believes itself": {
			hearing{judge: true, need: 1, heard: say(down), own: of(up), looks: true},
			ruling{true, byOwn},
		},
		"a new judge believes the others": {hearing{judge: true, need: 1, heard: say(up)}, ruling{true, byOthers}},
		"the first judge knows nothing":   {hearing{judge: true, need: 1}, ruling{true, bySame}},
		"a new judge and others in dispute": {
			hearing{judge: true, need: 1, heard: say(up, down)},
			ruling{true, bySame},
		},

		"two agree on healthy":   {hearing{heard: say(up, up)}, ruling{false, byOthers}},
		"two agree on unhealthy": {hearing{heard: say(down, down)}, ruling{true, byOthers}},
		"and were believed before": {
			hearing{heard: say(down, down), present: of(down)},
			ruling{false, byOthers},
		},
		"and this node has not checked since": {
			hearing{heard: say(down, down), present: of(down), looks: true, unconfirmed: true},
			ruling{true, byOthers},
		},
		"and this node agrees": {
			hearing{heard: say(down, down), present: of(down), own: of(down), looks: true},
			ruling{false, byOthers},
		},
		"and this node does not": {
			hearing{heard: say(down, down), own: of(up), looks: true},
			ruling{true, byOwn},
		},
		"two agree, this node does not reach it": {
			hearing{heard: say(up, up), own: of(down), looks: true},
			ruling{true, byOwn},
		},
		"two agree, this node has agreed": {
			hearing{heard: say(up, up), own: of(up), looks: true},
			ruling{false, byOthers},
		},
		"two agree, a hint at trouble": {
			hearing{heard: say(up, up), suspected: true},
			ruling{true, byOthers},
		},
		"two agree, the hint is not checked yet": {
			hearing{heard: say(up, up), own: of(up), looks: true, suspected: true},
			ruling{true, byOthers},
		},
		"two agree on lag":               {hearing{heard: say(lagging, lagging)}, ruling{true, byOthers}},
		"three agree while a duty moves": {hearing{heard: say(up, up, up)}, ruling{false, byOthers}},
		"two in dispute":                 {hearing{heard: say(up, down)}, ruling{true, bySame}},
		"two in dispute, this node knows": {
			hearing{heard: say(up, down), own: of(up), looks: true},
			ruling{true, byOwn},
		},
		"two in dispute, and a third":  {hearing{heard: say(up, down, up)}, ruling{true, bySame}},
		"one says the same as before":  {hearing{heard: say(up)}, ruling{false, bySame}},
		"for long":                     {hearing{heard: say(up), short: patience}, ruling{true, bySame}},
		"one says something else":      {hearing{heard: say(down)}, ruling{true, bySame}},
		"one, a hint at trouble":       {hearing{heard: say(up), suspected: true}, ruling{true, bySame}},
		"one, this node looks already": {hearing{heard: say(up), looks: true}, ruling{true, bySame}},
		"one, this node knows": {
			hearing{heard: say(up), own: of(down), looks: true},
			ruling{true, byOwn},
		},
		"nobody":                       {hearing{}, ruling{false, bySame}},
		"nobody for long":              {hearing{short: patience}, ruling{true, bySame}},
		"nobody, and nothing is known": {hearing{present: of(unknown)}, ruling{true, bySame}},
		"nobody, this node knows":      {hearing{own: of(down), looks: true}, ruling{true, byOwn}},
		"in doubt, others agree": {
			hearing{judge: true, heard: say(up), own: of(down), looks: true, held: true},
			ruling{true, byOthers},
		},
		"in doubt, others in dispute": {
			hearing{heard: say(up, down), own: of(down), looks: true, held: true},
			ruling{true, bySame},
		},
		"in doubt, nobody": {
			hearing{judge: true, own: of(down), looks: true, held: true},
			ruling{true, bySame},
		},
		"in doubt, another backend": {hearing{heard: say(up, up), held: true}, ruling{false, byOthers}},
		"in doubt, a sample": {
			hearing{heard: say(up, up), held: true, suspected: true},
			ruling{true, byOthers},
		},
		"in doubt, others have found trouble": {
			hearing{heard: say(down, down), held: true},
			ruling{false, bySame},
		},
		"alone, others have found trouble": {
			hearing{heard: say(down, down), held: true, alone: true},
			ruling{false, byOthers},
		},
	} {
		h := tt.hearing
		h.patience = patience
		if h.present == nil {
			h.present = of(up)
		}
		if !h.judge && h.need == 0 {
			h.need = 2
		}
		if got := h.rule(); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

// TestSelfDoubt: a node that reaches none of its hosts is alone after a while, if others reach them.
func TestSelfDoubt(t *testing.T) {
	t.Parallel()
	const after = 5 * time.Second
	type step struct {
		at              time.Duration
		r               reach
		cut             bool // from etcd
		doubts, isAlone bool
	}
	var (
		well    = reach{hosts: 4, reached: 4}
		failing = reach{hosts: 4, judged: 4, elsewhere: 4}
	)
	for name, steps := range map[string][]step{
		"others reach them": {
			{0, well, false, false, false},
			{1, failing, false, true, false},
			{4, failing, false, true, false},
			{6, failing, false, true, true}, {60, failing, false, true, true}, {61, well, false, false, false}},
		"others do not": {
			{0, reach{hosts: 4, judged: 4}, false, true, false},
			{5, reach{hosts: 4, judged: 4}, false, false, false},
			{60, reach{hosts: 4, judged: 4}, false, false, false},
		},
		"nobody says": {
			{0, reach{hosts: 4}, false, true, false},
			{60, reach{hosts: 4}, false, false, false},
		},
		"one host, and nobody says": {{0, reach{hosts: 1}, false, false, false}},
		"one host, others answer": {
			{0, reach{hosts: 1, others: 3}, false, true, false},
			{1, reach{hosts: 3, reached: 2, others: 1}, false, false, false},
		},
		"others are later": {
			{0, failing, false, true, false},
			{2, reach{hosts: 4, judged: 4}, false, true, false},
			{5, reach{hosts: 4, judged: 4}, false, false, false},
		},
		"most others do not": {
			{0, reach{hosts: 4, judged: 4, elsewhere: 1}, false, true, false},
			{19, reach{hosts: 4, judged: 4, elsewhere: 1}, false, true, false}, // those who reach it may be dead
			{20, reach{hosts: 4, judged: 4, elsewhere: 1}, false, true, true},
		},
		"one answers": {{0, reach{hosts: 4, reached: 1, judged: 3, elsewhere: 3}, false, false, false}},
		"the node's own answers": {
			{0, reach{hosts: 10, reached: 1, judged: 9, elsewhere: 9}, false, true, false},
			{5, reach{hosts: 10, reached: 1, judged: 9, elsewhere: 9}, false, true, true},
		},
		"one host": {
			{0, reach{hosts: 1, judged: 1, elsewhere: 1}, false, true, false},
			{5, reach{hosts: 1, judged: 1, elsewhere: 1}, false, true, true},
		},
		"no hosts": {{0, reach{}, false, false, false}},
		"without etcd": {
			{0, reach{hosts: 2}, true, true, false},
			{5, reach{hosts: 2}, true, true, true},
			{9, reach{hosts: 2, reached: 1}, true, false, false},
		},
		"without etcd, one host": {
			{0, reach{hosts: 1}, true, false, false},
			{60, reach{hosts: 1}, true, false, false},
		},
		"etcd goes, too": {
			{0, failing, false, true, false},
			{2, reach{hosts: 4}, true, true, false},
			{5, reach{hosts: 4}, true, true, true},
		},
		"the backends really end": {
			{0, failing, false, true, false},
			{5, failing, false, true, true},
			{6, reach{hosts: 4, judged: 4}, false, true, true},
			{11, reach{hosts: 4, judged: 4}, false, false, false},
		},
		"others are quiet for a moment": {
			{0, failing, false, true, false},
			{5, failing, false, true, true},
			{6, reach{hosts: 4}, false, true, true},
			{7, failing, false, true, true}, {12, reach{hosts: 4}, false, true, true}},
	} {
		var s selfDoubt
		began := time.Now()
		for i, at := range steps {
			now := began.Add(at.at * time.Second)
			for i > 0 && now.Sub(s.viewed) > viewEvery { // it looks all the time
				s.see(s.viewed.Add(viewEvery), s.reach, s.linked, after)
			}
			at.r.peers = true
			s.see(now, at.r, !at.cut, after)
			if s.isDoubting() != at.doubts || s.isAlone() != at.isAlone || s.isAlone() != (s.reason() != "") {
				t.Errorf("%s, step %d: it doubts %t, and is alone %t: %q", name, i, s.isDoubting(), s.isAlone(), s.reason())
			}
		}
	}
}

// TestSelfDoubtStopped: the time in which the process of a node was stopped does not count. What it finds first
// afterwards are checks that were not answered in time.
func TestSelfDoubtStopped(t *testing.T) {
	t.Parallel()
	const after, stopped = 5 * time.Second, 9 * time.Second
	failing := reach{hosts: 4, judged: 4, elsewhere: 4, peers: true}
	var s selfDoubt
	now := time.Now()
	s.see(now, failing, true, after)
	now = now.Add(viewEvery)
	s.see(now, failing, true, after)
	for now = now.Add(stopped); !s.isAlone(); now = now.Add(viewEvery) {
		s.see(now, failing, true, after)
	}
	if ran := now.Sub(s.doubts); ran < after || ran > after+2*viewEvery {
		t.Errorf("the node is alone after %v", ran)
	}
}

// TestSelfDoubtSingle: a fleet of one node has nobody to ask, and believes itself.
func TestSelfDoubtSingle(t *testing.T) {
	t.Parallel()
	var s selfDoubt
	if s.see(time.Now(), reach{hosts: 4}, true, time.Second); s.isDoubting() {
		t.Error("it doubts itself")
	}
}
