package daemon

import (
	"time"

	"github.com/limeload/limeload-l4/pool"
)

// A hearing is all that decides about a duty at this node: whether the node checks the backends itself, and whose
// findings are the verdicts here. It is a plain value.
type hearing struct {
	judge bool // the node checks for the others, too
	need  int  // how many other nodes have to say something; for one that is no judge
	// what other nodes say about the same backends by the same check
	heard []findings
	// what the node itself has found since it looks; nil if it does not know about all of the backends yet
	own     findings
	present findings // the verdicts in force here

	looks       bool          // the node checks the backends now
	suspected   bool          // sessions hint at trouble, and the node has not checked since
	unconfirmed bool          // the node has believed others about trouble, and has not checked since
	short       time.Duration // for so long have too few others said anything
	patience    time.Duration // how long that may be so
	held        bool          // the node doubts itself: it seems to be cut off
	alone       bool          // it is cut off
}

// A foundBy says whose findings are the verdicts.
type foundBy int

const (
	bySame   foundBy = iota // the verdicts stay
	byOwn                   // this node's own
	byOthers                // what all others agree on
)

// A ruling is the decision about a hearing.
type ruling struct {
	looks bool
	by    foundBy
}

// rule decides.
//
// A judge believes itself. Another node believes the judges if there are enough of them and they agree. If they do not
// agree, or are too few for a while, or if there is trouble, it checks the backends itself; then it believes itself, and
// goes on until the judges agree with each other and with it.
//
// A node that doubts itself believes others only, and goes on with the checks that it has, to notice that it is not cut
// off any more. As long as it only doubts, it does not believe others either that a backend fails: they may be cut off
// together with it.
func (h hearing) rule() ruling {
	agreed := h.agreed()
	switch {
	case h.held && agreed != nil && (h.alone || !agreed.have(pool.Unhealthy)):
		return ruling{h.looks || h.suspected, byOthers}
	case h.held:
		return ruling{h.looks || h.suspected, bySame}
	case h.judge && h.own != nil:
		return ruling{true, byOwn}
	case h.judge && agreed != nil && len(h.heard) >= h.need:
		return ruling{true, byOthers}
	case h.judge:
		return ruling{true, bySame}
	case agreed != nil && len(h.heard) >= h.need:
		return h.ruleAgreed(agreed)
	}
	r := ruling{looks: true}
	if h.own != nil {
		r.by = byOwn
		return r
	}
	if len(h.heard) < h.need { // or else they do not agree
		r.looks = h.looks || h.suspected || h.unconfirmed || h.short >= h.patience || h.present.have(pool.Unknown) ||
			agreed != nil && !agreed.agree(h.present)
	}
	return r
}

// ruleAgreed decides for a node that is no judge, when enough judges agree.
func (h hearing) ruleAgreed(agreed findings) ruling {
	switch {
	case h.own == nil:
		// Two who agree are believed at once. If they have found trouble, the node looks whether it finds the same.
		return ruling{h.suspected || h.unconfirmed || h.worsens(agreed), byOthers}
	case h.own.agree(agreed):
		return ruling{h.suspected, byOthers}
	}
	return ruling{true, byOwn}
}

// agreed returns what all others say; nil if they do not agree, or say nothing.
func (h hearing) agreed() findings {
	for _, f := range h.heard {
		if !f.agree(h.heard[0]) {
			return nil
		}
	}
	if len(h.heard) == 0 {
		return nil
	}
	return h.heard[0]
}

// worsens reports whether findings take a backend out of use that is healthy here.
func (h hearing) worsens(f findings) bool {
	healthy := pool.Healthy.String()
	for id, now := range h.present {
		if now.Verdict == healthy && f[id].Verdict != healthy {
			return true
		}
	}
	return false
}
