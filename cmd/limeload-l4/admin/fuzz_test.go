package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

// FuzzRequest sends a request to a server without a socket. Every answer is complete and of a known kind, and after an
// error nothing has changed.
func FuzzRequest(f *testing.F) {
	for _, r := range refusals() {
		f.Add(r.request.method, r.request.target, r.request.header["Content-Type"],
			[]byte(r.request.body[:min(len(r.request.body), 200)]))
	}
	f.Add("PATCH", path1, mediaJSON, []byte(`{"weight":1,"max_sessions":2,"max_rate":"5/s","mode":"drain"}`))
	f.Add("POST", "/v1/pools/redis/backends", mediaJSON, []byte(`{"address":"[::1]:1","zone":"a"}`))
	f.Add("POST", "/v1/plan?name=x", mediaTOML, []byte("[global]"))
	f.Add("GET", "/v1/events?kind=drained,reloaded&pool=x", "", []byte(nil))
	f.Add("DELETE", "/v1/sessions?client=::/0", "", []byte(nil))
	f.Add("POST", pathPurge, mediaJSON, []byte(`{"name":"a.\\065.","below":true}`))
	f.Add("GET", "/v1/explain?pool=redis&client=[::1]:1", "", []byte(nil))
	f.Fuzz(func(t *testing.T, method, target, media string, body []byte) {
		head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n",
			method, target, media, len(body))
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head + string(body))))
		if err != nil || strings.HasPrefix(r.URL.Path, "/debug/pprof/") { // not our own code, and may take minutes
			return
		}
		left, leave := context.WithCancel(t.Context())
		leave() // so that a stream ends after its beginning
		daemon := newFake()
		w := httptest.NewRecorder()
		NewServer(Options{Balancer: daemon}).ServeHTTP(w, r.WithContext(left))
		checkAnswer(t, r, w, daemon)
	})
}

func checkAnswer(t *testing.T, r *http.Request, w *httptest.ResponseRecorder, daemon *fake) {
	switch media := w.Header().Get("Content-Type"); {
	case w.Code >= 500:
		t.Errorf("status %d: %s", w.Code, w.Body)
	case w.Code >= 400:
		answer{w.Code, w.Header(), w.Body.String()}.problem(t)
		if done := daemon.done(); len(done) > 0 {
			t.Errorf("status %d, and the daemon did %q", w.Code, done)
		}
	case r.Method == http.MethodGet && len(daemon.done()) > 0:
		t.Errorf("the daemon did %q for a GET", daemon.done())
	case media == mediaJSON && !json.Valid(w.Body.Bytes()):
		t.Errorf("the answer is no JSON: %s", w.Body)
	}
}

// FuzzObject decodes a body. Whatever is accepted, encoding/json accepts with the same result.
func FuzzObject(f *testing.F) {
	for _, body := range []string{
		`{}`, `{"name":"a","address":"b","weight":1,"max_sessions":2,"max_rate":"5/s","tier":3,"zone":"c","mode":"d"}`,
		` { "tier" : 1e2 } `,
		`{"weight":-0}`, `{"name":"\ud800"}`, `{"NAME":"a"}`, `{"tier":1,"tier":2}`, `{"weight":null}`, `{"a":1}`,
		`{}{}`, `[`, `{"zone":"\u0000"}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var got, expected NewBackend
		if decodeObject(body, &got) != nil {
			return
		}
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		if err := d.Decode(&expected); err != nil {
			t.Fatalf("%q is taken, and encoding/json says %v", body, err)
		}
		if !reflect.DeepEqual(got, expected) {
			t.Errorf("%q is %+v, expected %+v", body, got, expected)
		}
	})
}
