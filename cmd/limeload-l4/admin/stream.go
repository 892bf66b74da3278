package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// A stream writes events to one client. Only its request's goroutine uses it.
type stream struct {
	w      http.ResponseWriter
	server *Server
	filter EventFilter
	sent   uint64 // the number of the last event sent
	lost   uint64 // events that were lost and not yet reported to the client
}

// streamEvents sends events as server-sent events, until the client leaves, does not read for limits.write, or the
// daemon ends.
func (s *Server) streamEvents(w http.ResponseWriter, r *http.Request) {
	filter, err := eventFilter(r.URL.Query())
	if err != nil {
		s.refuse(w, err)
		return
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		s.refuse(w,
			newProblem(problemTooManyStreams, "there are "+strconv.Itoa(cap(s.streams))+" streams of events already"))
		return
	}
	w.Header().Set("Content-Type", mediaEvents)
	if r.Method == http.MethodHead {
		return
	}
	events, stop := s.balancer.Events()
	defer stop()
	st := &stream{w: w, server: s, filter: filter}
	if st.comment("events") != nil { // sends the header, after which the client misses no event
		return
	}
	st.follow(r, events)
}

// follow sends events until the stream ends.
func (st *stream) follow(r *http.Request, events <-chan Event) {
	heartbeat := time.NewTicker(st.server.limits.heartbeat)
	defer heartbeat.Stop()
	for {
		var err error
		select {
		case <-st.server.ending:
			return
		case <-r.Context().Done():
			return
		case <-heartbeat.C:
			err = st.comment("alive")
		case e, isOpen := <-events:
			if !isOpen {
				return
			}
			err = st.send(e)
		}
		if err != nil {
			return
		}
	}
}

// send writes an event, if it passes the filter.
func (st *stream) send(e Event) error {
	st.lost += e.Lost
	if !st.filter.applies(e) {
		return nil
	}
	e.Lost, st.lost = st.lost, 0
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	st.sent++
	return st.write(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", st.sent, e.Kind, data))
}

// comment writes a line that clients ignore.
func (st *stream) comment(text string) error { return st.write(": " + text + "\n\n") }

func (st *stream) write(text string) error {
	st.server.extend(st.w, st.server.limits.write)
	if _, err := st.w.Write([]byte(text)); err != nil {
		return err
	}
	return http.NewResponseController(st.w).Flush()
}
