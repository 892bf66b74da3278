package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// silenceLimit is how long a stream may be silent: three heartbeats. A machine that lost its power sends nothing, not
// even a FIN.
const silenceLimit = 3 * heartbeatInterval

// maxEventBytes bounds a line of the stream.
const maxEventBytes = 1 << 20

// errSilent is the cause when a stream's context ends because of silence.
var errSilent = errors.New("nothing was heard any more")

// Events calls f for each event from now on, one after the other. It returns the error of f, or that of ctx when it
// ends, or an error that wraps ErrEnding when the daemon shuts down and ErrUnreachable when it is gone. While f runs,
// nothing is read: events that the daemon cannot send are lost, and Event.Lost counts them.
func (c *Client) Events(ctx context.Context, filter EventFilter, f func(Event) error) error {
	query := url.Values{}
	set(query, "pool", filter.Pool)
	for _, kind := range filter.Kinds {
		query.Add("kind", kind)
	}
	k := call{method: http.MethodGet, path: "/v1/events", query: query}

	stream, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(c.silence, func() { cancel(errSilent) })
	defer watch.Stop()

	response, err := c.send(stream, k)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(response.Body, maxEventBytes))
		if err != nil {
			return c.unreachable(stream, k, err)
		}
		return c.refusal(k, response, body)
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxEventBytes)
	data := "" // of the current event
	for lines.Scan() {
		watch.Reset(c.silence)
		text, isData := strings.CutPrefix(lines.Text(), "data:")
		switch {
		case isData: // it repeats the kind, and the number is of no use without a way to resume
			data = text
			continue
		case lines.Text() != "" || data == "":
			continue
		}
		// an empty line: the event is complete
		var e Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("events of %s: %w", c.address, err)
		}
		data = ""
		watch.Stop() // f may take longer than the limit
		if err := f(e); err != nil {
			return err
		}
		watch.Reset(c.silence)
	}
	if err := lines.Err(); err != nil {
		return c.unreachable(stream, k, err)
	}
	return fmt.Errorf("events of %s: %w", c.address, ErrEnding)
}
