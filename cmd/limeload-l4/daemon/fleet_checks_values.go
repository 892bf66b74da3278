package daemon

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

const (
	// maxReason bounds a reason from another node, which ends up in logs and tables.
	maxReason = 200
	// maxNodeName is the longest name that the configuration allows for a node.
	maxNodeName = 64
)

// A seat is what a node says to take part in the checks: the pools whose backends it checks, each with the sum of its
// check. The key is below fleet.Checks and has one part, the node.
type seat struct {
	Pools map[string]string `json:"pools"`
}

// A report is what a node's checks have found about the backends of one duty. Its key has the parts pool, backend and
// node or, if the duty is for the whole pool, pool and node.
type report struct {
	Sum      string   `json:"sum"` // of the check
	Backends findings `json:"backends"`
}

// A finding is what a node's checks have found about one backend.
type finding struct {
	Address string `json:"address"` // that was checked, see place.text
	Verdict string `json:"verdict"`
	Reason  string `json:"reason,omitempty"`
	Role    string `json:"role,omitempty"` // primary or replica; "" if there are none, or others
}

// findings are by the id of the backend. They are not changed after they were made.
type findings map[string]finding

// agree reports whether two nodes have found the same about the same backends.
func (f findings) agree(g findings) bool {
	if len(f) != len(g) {
		return false
	}
	for id, a := range f {
		if b, has := g[id]; !has || a.Verdict != b.Verdict {
			return false
		}
	}
	return true
}

// count returns how many backends have a verdict.
func (f findings) count(v pool.Verdict) (n int) {
	for _, one := range f {
		if one.Verdict == v.String() {
			n++
		}
	}
	return n
}

// have reports whether a backend has one of the verdicts.
func (f findings) have(verdicts ...pool.Verdict) bool {
	for _, one := range f {
		for _, v := range verdicts {
			if one.Verdict == v.String() {
				return true
			}
		}
	}
	return false
}

// reached reports whether a verdict shows that the backend answers.
func reached(verdict string) bool {
	return verdict != pool.Unhealthy.String() && verdict != pool.Unknown.String()
}

// verdictOfWord returns the verdict that a word stands for; false for none.
func verdictOfWord(word string) (pool.Verdict, bool) {
	for v := pool.Unknown; v <= pool.Fallback; v++ {
		if v.String() == word {
			return v, true
		}
	}
	return pool.Unknown, false
}

// A dutyKey names a duty: a backend of a pool, or all backends of a pool if backend is "".
type dutyKey struct{ pool, backend string }

// key returns the key of what a node says about a duty.
func (d dutyKey) key(node string) string {
	if d.backend == "" {
		return fleet.Checks + fleet.Key(d.pool, node)
	}
	return fleet.Checks + fleet.Key(d.pool, d.backend, node)
}

// parseCheckKey parses a key below fleet.Checks. The pool is "" if it is the key of a seat.
func parseCheckKey(key string) (d dutyKey, node string, is bool) {
	parts, is := fleet.Parts(strings.TrimPrefix(key, fleet.Checks))
	if !is || len(parts) > 3 {
		return d, "", false
	}
	node = parts[len(parts)-1]
	if node == "" || len(node) > maxNodeName || printable(node, maxNodeName) != node {
		return d, "", false
	}
	if len(parts) > 1 {
		if d.pool = parts[0]; d.pool == "" {
			return d, "", false
		}
	}
	if len(parts) > 2 {
		if d.backend = parts[1]; d.backend == "" {
			return d, "", false
		}
	}
	return d, node, true
}

// parseSeat parses what a node says of itself; nil if it is none.
func parseSeat(value []byte) *seat {
	var s seat
	if len(value) > fleet.MaxValueBytes || json.Unmarshal(value, &s) != nil || s.Pools == nil {
		return nil
	}
	return &s
}

// parseReport parses what a node says about a duty; nil if it is of no use, or of another version.
func parseReport(d dutyKey, value []byte) *report {
	var r report
	if len(value) > fleet.MaxValueBytes || json.Unmarshal(value, &r) != nil || len(r.Backends) == 0 {
		return nil
	}
	for id, f := range r.Backends {
		v, is := verdictOfWord(f.Verdict)
		if !is || d.backend != "" && (id != d.backend || v == pool.Unknown) { // a judge that knows nothing says nothing
			return nil
		}
		if f.Reason = printable(f.Reason, maxReason); checkRole(f.Role) == healthcheck.RoleUnknown {
			f.Role = ""
		}
		r.Backends[id] = f
	}
	return &r
}

// printable returns the printable part of a text from etcd, at most so many bytes of it.
func printable(text string, most int) string {
	if len(text) > most {
		for text = text[:most]; len(text) > 0; text = text[:len(text)-1] {
			if r, _ := utf8.DecodeLastRuneInString(text); r != utf8.RuneError {
				break
			}
		}
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
}
