package daemon

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
)

// A question is what makes two checks ask alike. It has everything of a check's configuration but the wishes: which
// role and lag the pool wants, whether the primary is in reserve, and whether a donor will do.
type question struct {
	Type    string // of the whole check
	Parts   []conf.Check
	Sources []netip.Addr
	Proxy   int               // version of the header that connections begin with
	Files   map[string]string // the sums of the files that the check names, by their keys: passwords, certificates
}

// shared returns a checker whose checks are made once for all pools that ask the same question. An exec check is not
// shared, because its program is told which pool and backend it is for.
func (b *builtCheck) shared(c healthcheck.Checker, p *conf.Pool, path string, from *files) healthcheck.Checker {
	h := p.Health
	q := question{Type: h.Type, Sources: p.SourceAddrs, Proxy: b.proxy, Files: make(map[string]string)}
	for _, part := range append([]conf.Check{h.Check}, h.Checks...) {
		if part.Type == "exec" {
			return c
		}
		q.Parts = append(q.Parts, withoutWishes(part))
	}
	for key, content := range from.seen {
		if below, is := strings.CutPrefix(key, path+"."); is {
			q.Files[below] = fmt.Sprintf("%x", content.sum)
		}
	}
	if len(from.unread) > 0 && slices.ContainsFunc(from.unread, func(k string) bool {
		return strings.HasPrefix(k, path+".")
	}) {
		return c // it was built without its files, and so for a look only
	}
	text, err := json.Marshal(q)
	if err != nil {
		return c // nothing depends on it
	}
	sum := sha256.Sum256(text)
	return healthcheck.Shared{Checker: c, Question: string(sum[:])}
}

// withoutWishes returns a check without what decides only how its answer is judged.
func withoutWishes(c conf.Check) conf.Check {
	c.Role, c.Fallback, c.MaxLag, c.AllowDonor = "", "", 0, false
	return c
}
