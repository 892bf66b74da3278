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

// ServeHTTP answers one request that has passed the guards.
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
	if h.route.changes { // before the answer, so that whoever has the answer finds the line
		logChange(s.log, a, made, time.Since(began))
	}
	s.send(w, made)
}

// ask checks the query and calls the route's answer.
func (h *handler) ask(a *asked) (any, error) {
	query, err := parameters(a.Request, h.route.query)
	if err != nil {
		return nil, err
	}
	a.query = query
	return h.route.answer(h.server, a)
}

// A reply is a complete answer.
type reply struct {
	status   int
	media    string // "" for no body
	location string // of a new backend; "" for none
	body     []byte
	err      error // the error in the body
}

// logChange logs who wanted to change what, and the result.
func logChange(log zerolog.Logger, a *asked, made reply, took time.Duration) {
	line := log.Info().Str("client", a.RemoteAddr).Str("request", a.Method+" "+clip(a.URL.RequestURI()))
	if body, err := json.Marshal(a.body); a.body != nil && err == nil {
		// A string, since log stores want one type for each name. Clipped, since a name may have a mebibyte.
		line.Str("body", clip(string(body)))
	}
	line.Int("status", made.status).Float64("duration", took.Seconds())
	if made.err != nil {
		line.Str("err", clip(made.err.Error()))
	}
	line.Str("event", "admin_request").Msg("admin request")
}

// encode makes the reply for a route's answer or error.
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
	e.SetEscapeHTML(false) // the answer is not HTML, and the header nosniff says so
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
	_, _ = w.Write(r.body) // a client that has left needs no error
}

// extend sets a new deadline for the client to read the answer. Making it may have taken longer than the deadline that
// began with the request.
func (s *Server) extend(w http.ResponseWriter, d time.Duration) {
	// A connection of net/http supports this. If it is closed already, the write reports it.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d))
}

// filled returns v with empty lists and maps for nil ones, since an answer has [] and {}, and never null. It does not
// change v, which may share lists with the daemon.
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

// isFlat reports whether a type has nothing to fill.
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
