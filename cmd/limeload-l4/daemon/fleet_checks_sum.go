package daemon

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/limeload/limeload-l4/conf"
)

// sharing says how the nodes of a fleet share the check of a pool. The zero value is that they do not.
type sharing struct {
	sum      string // nodes share verdicts if their sums are the same
	question string // pools with the same one get the same judges, so that their checks stay one; see healthcheck.Shared
	// The backends are judged together, since one node has to see all members of a cluster. primary: only one of them
	// may be healthy.
	together, primary bool
}

// shareable returns how the check of a pool can be shared. An exec check cannot, since its program may look at the
// host that it runs on.
func shareable(p *conf.Pool, proxy int) sharing {
	h := p.Health
	var asked, judged []conf.Check
	for _, c := range append([]conf.Check{h.Check}, h.Checks...) {
		if c.Type == "exec" {
			return sharing{}
		}
		// Files are of the host. Their contents may be secret, and a sum could be guessed.
		c.CA, c.Cert, c.Key, c.PasswordFile = "", "", "", ""
		judged = append(judged, c)
		asked = append(asked, withoutWishes(c))
	}
	question := sumOf(h.Type, asked, proxy)
	return sharing{
		sum:      sumOf(question, judged, h.Interval, h.FastInterval, h.Timeout, h.StaleAfter, h.Rise, h.Fall),
		question: question, together: h.WantedRole() != "any", primary: h.WantsPrimary(),
	}
}

// sumOf returns a short sum of values: a seat has one for each pool.
func sumOf(values ...any) string {
	text, err := json.Marshal(values)
	if err != nil {
		panic("a check's configuration is no JSON: " + err.Error())
	}
	return fmt.Sprintf("%.8x", sha256.Sum256(text))
}
