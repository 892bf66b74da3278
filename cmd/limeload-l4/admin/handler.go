package admin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/rs/zerolog"
)

// A handler answers the requests of one route.
type handler struct {
	server *Server
	route  route
}

// ServeHTTP answers one request that may be made.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.server
	if h.route.raw != nil {
		if _, err := parameters(r, h.route.query); err != nil {
			s.refuse(w, err)
			return
		}
		h.route.raw(s, w, r)
		return
	}
	began := time.Now()
	a := &asked{Request: r, w: w}
	made := encode(h.ask(a))
	if h.route.changes { // before the answer: who has it finds the line
		logChange(s.log, a, made, time.Since(began))
	}
	s.send(w, made)
}

// ask checks the query and has the route answer.
func (h *handler) ask(a *asked) (any, error) {
	query, err := parameters(a.Request, h.route.query)
	if err != nil {
		return nil, err
	}
	a.query = query
	return h.route.answer(h.server, a)
}

// A reply is a whole answer.
type reply struct {
	status   int
	media    string // "" is no body
	location string // of what was made; "" if nothing was
	body     []byte
	err      error // that it tells of
}

// logChange writes who wanted to change what, and what came of it.
func logChange(log zerolog.Logger, a *asked, made reply, took time.Duration) {
	line := log.Info().Str("client", a.RemoteAddr).Str("request", a.Method+" "+clip(a.URL.RequestURI()))
	if body, err := json.Marshal(a.body); a.body != nil && err == nil {
		line.Str("body", clip(string(body))) // a text, as who stores logs wants one type for one name, and a name may be a mebibyte
	}
	line.Int("status", made.status).Float64("duration", took.Seconds())
	if made.err != nil {
		line.Str("err", clip(made.err.Error()))
	}
	line.Msg("admin request")
}

// encode makes the reply that a route's answer or error comes to.
func encode(answer any, err error) reply {
	if err != nil {
		return problemReply(err)
	}
	if answer == nil {
		return reply{status: http.StatusNoContent}
	}
	made := reply{status: http.StatusOK, media: mediaJSON}
	if c, is := answer.(created); is {
		made.status, made.location = http.StatusCreated, c.location
	}
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false) // the answer is no HTML, and nosniff says so
	if err := e.Encode(filled(reflect.ValueOf(answer)).Interface()); err != nil {
		return problemReply(err)
	}
	made.body = body.Bytes()
	return made
}

func problemReply(err error) reply {
	p := problemOf(err)
	body, failed := json.Marshal(p)
	if failed != nil {
		panic("admin: a problem is texts and numbers: " + failed.Error())
	}
	return reply{status: p.Status, media: mediaProblem, body: append(body, '\n'), err: err}
}

// refuse answers with an error.
func (s *Server) refuse(w http.ResponseWriter, err error) { s.send(w, problemReply(err)) }

// send writes a reply.
func (s *Server) send(w http.ResponseWriter, r reply) {
	s.extend(w, s.limits.write)
	if r.location != "" {
		w.Header().Set("Location", r.location)
	}
	if r.media != "" {
		w.Header().Set("Content-Type", r.media)
		w.Header().Set("Content-Length", strconv.Itoa(len(r.body)))
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body) // a client that is gone has no use for an error
}

// extend gives a client so much time from now on to take what is written: what made the answer may have taken longer
// than the time from the request on.
func (s *Server) extend(w http.ResponseWriter, d time.Duration) {
	// the connection is one of net/http, which can do this; if it is closed already, the write says so
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d))
}

// filled is v with an empty list or map where there is none: an answer has [] and {}, never null. v itself is left as it is, for
// it may share lists with the daemon.
func filled(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.Slice:
		list := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		if isFlat(v.Type().Elem()) {
			reflect.Copy(list, v)
			return list
		}
		for i := range v.Len() {
			list.Index(i).Set(filled(v.Index(i)))
		}
		return list
	case reflect.Map:
		if v.IsNil() {
			return reflect.MakeMap(v.Type())
		}
	case reflect.Struct:
		if isFlat(v.Type()) {
			return v
		}
		whole := reflect.New(v.Type()).Elem()
		whole.Set(v)
		for i := range v.NumField() {
			if f := whole.Field(i); f.CanSet() {
				f.Set(filled(f))
			}
		}
		return whole
	}
	return v
}

// isFlat tells whether there is nothing to fill in a type.
func isFlat(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Slice, reflect.Map:
		return false
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() && !isFlat(f.Type) {
				return false
			}
		}
	}
	return true
}
