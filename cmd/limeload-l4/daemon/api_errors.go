package daemon

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool"
)

// A backendError replaces the text of a sentinel of package pool by one that names the pool and the backend.
type backendError struct {
	text     string
	sentinel error
}

func (e *backendError) Error() string { return e.text }
func (e *backendError) Unwrap() error { return e.sentinel }

// namedBackends is how many backends an error lists.
const namedBackends = 5

// explained returns err with a text that names the pool and the backend, if it is a sentinel of package pool.
func (s *served) explained(id string, err error) error {
	name := s.pool.Name()
	switch {
	case errors.Is(err, pool.ErrUnknownBackend):
		text := fmt.Sprintf("pool %s has no backend %q", name, id)
		var ids []string
		for _, b := range s.pool.Backends() {
			ids = append(ids, b.ID)
		}
		switch n := len(ids); {
		case n == 0:
			text += ": it has none"
		case n > namedBackends:
			text += fmt.Sprintf("; it has %s and %d more", strings.Join(ids[:namedBackends], ", "), n-namedBackends)
		default:
			text += "; it has " + strings.Join(ids, ", ")
		}
		return &backendError{text, pool.ErrUnknownBackend}
	case errors.Is(err, pool.ErrDuplicateBackend):
		return &backendError{fmt.Sprintf("pool %s has a backend %q already", name, id), pool.ErrDuplicateBackend}
	}
	return err
}

// requestError converts a mistake in a backend of a request, which was parsed like a file.
func requestError(mistake *conf.Error) *admin.RequestError {
	const nobody = "backends[0]"
	e := &admin.RequestError{
		Field: strings.TrimPrefix(strings.TrimPrefix(mistake.Path, nobody), "."),
		Value: mistake.Found, Wrong: mistake.Message,
		Want: strings.TrimPrefix(strings.TrimPrefix(mistake.Allowed, "needs "), "allowed is "),
	}
	found, cut := strings.CutSuffix(mistake.Found, "...")
	if value, err := strconv.Unquote(found); err == nil { // the text is quoted again later
		e.Value = value
		if cut {
			e.Value += "..."
		}
	}
	if mistake.Nearest != "" {
		e.Want = fmt.Sprintf("%s, did you mean %q?", e.Want, mistake.Nearest)
	}
	return e
}
