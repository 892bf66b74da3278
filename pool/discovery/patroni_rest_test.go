package discovery

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// A fakePatroni answers as Patroni 3.0 does.
type fakePatroni struct {
	mu sync.Mutex
	// mu guards the fields below
	cluster string // the answer to /cluster
	status  int
	asked   []string // paths
	login   string   // of the last request
}

// patroniCluster is the answer of a cluster of three in which the leader is at port 5431.
const patroniCluster = `{"members": [
 {"name": "n1", "role": "leader", "state": "running", "api_url": "http://127.0.0.1:8008/patroni", "host": "127.0.0.1",
  "port": 5431, "timeline": 1},
 {"name": "n2", "role": "sync_standby", "state": "running", "api_url": "http://127.0.0.1:8009/patroni",
  "host": "127.0.0.1", "port": 5432, "timeline": 1, "lag": 100, "tags": {"nosync": true}},
 {"name": "n3", "role": "replica", "state": "streaming", "api_url": "http://127.0.0.1:8010/patroni",
  "host": "127.0.0.1", "port": 5433, "timeline": 1, "lag": "unknown"}]}`

func (f *fakePatroni) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.URL.Path)
	user, password, _ := r.BasicAuth()
	f.login = user + ":" + password
	switch {
	case r.URL.Path == "/patroni":
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"state": "running", "role": "replica", "patroni": {"version": "3.0.2", "scope": "main"}}`)
	default:
		w.WriteHeader(f.status)
		fmt.Fprint(w, f.cluster)
	}
}

func startPatroni(t testing.TB) (*fakePatroni, string) {
	f := &fakePatroni{cluster: patroniCluster, status: http.StatusOK}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return f, s.URL
}

func restSource(o PatroniOptions, endpoints ...string) *PatroniREST {
	o.Endpoints, o.Scope = endpoints, "main"
	return NewPatroniREST(o)
}

func TestPatroniREST(t *testing.T) {
	t.Parallel()
	f, at := startPatroni(t)
	dead := "http://" + harness.FreeAddress(t)
	p := restSource(PatroniOptions{User: "u", Password: "p"}, dead, at)
	wantRoles(t, p, "n1 5431 primary, n2 5432 replica, n3 5433 replica")
	wantRoles(t, p, "n1 5431 primary, n2 5432 replica, n3 5433 replica")
	if got := strings.Join(f.asked, " "); got != "/cluster /patroni /cluster" || f.login != "u:p" {
		t.Errorf("asked %s with the login %s", got, f.login)
	}
	wantRoles(t, restSource(PatroniOptions{MaxLag: 100}, at), "n1 5431 primary, n2 5432 replica, n3 5433 replica idle")
	wantRoles(t, restSource(PatroniOptions{MaxLag: 99}, at), "n1 5431 primary, n2 5432 replica idle, n3 5433 replica idle")
	f.cluster = strings.Replace(patroniCluster, `"leader"`, `"standby_leader"`, 1)
	wantRoles(t, p, "n1 5431 replica, n2 5432 replica, n3 5433 replica")

	f.cluster = `{"scope": "main", "members": [{"name": "a", "role": "leader", "state": "running"},
		{"name": "b", "role": "replica", "state": "running", "host": "10.0.0.2", "port": 70000},
		{"name": "c", "role": "replica", "state": "running", "host": "0.0.0.0", "port": 5432},
		{"name": "d", "role": "replica", "state": "starting", "host": "10.0.0.4", "port": 5432}]}`
	found, err := p.Find(t.Context())
	if got := inRoles(found.Backends); err != nil || got != "d 5432 replica idle" || found.Unusable == nil ||
		found.Unusable.Error() != "a: it has no host: its conn_url is missing or broken, b: its port is 70000: needs 1 "+
			"to 65535, c: its address is 0.0.0.0: needs one that can be connected to" {
		t.Errorf("found %q, error %v, unusable\n%v", got, err, found.Unusable)
	}
}

func TestPatroniRESTErrors(t *testing.T) {
	t.Parallel()
	f, at := startPatroni(t)
	own := newAuthority(t, "own")
	_, _, pair := own.sign(t, time.Now().Add(time.Hour))
	_, _, old := own.sign(t, time.Now().Add(-time.Minute))
	secure := func(pair tls.Certificate, c *tls.Config) string {
		s := httptest.NewUnstartedServer(f)
		s.TLS, s.Config.ErrorLog = c, log.New(io.Discard, "", 0)
		s.TLS.Certificates = []tls.Certificate{pair}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	https := secure(pair, &tls.Config{})
	expired := secure(old, &tls.Config{})
	strict := secure(pair, &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: own.pool})
	trusts := PatroniOptions{TLS: &tls.Config{RootCAs: own.pool}}
	wantRoles(t, restSource(trusts, https), "n1 5431 primary, n2 5432 replica, n3 5433 replica")
	wantRoles(t, restSource(PatroniOptions{TLS: &tls.Config{RootCAs: own.pool, Certificates: []tls.Certificate{pair}}},
		strict), "n1 5431 primary, n2 5432 replica, n3 5433 replica")

	for _, tt := range []struct {
		cluster string
		status  int
		o       PatroniOptions
		at      string
		kind    error
		want    string
	}{
		{"", 503, PatroniOptions{}, at, ErrBadAnswer,
			"no usable answer: HTTP status 503: this member does not reach its store (etcd) either"},
		{"", 404, PatroniOptions{}, at, ErrBadAnswer,
			"no usable answer: HTTP status 404: needs the address of Patroni's REST API"},
		{"", 301, PatroniOptions{}, at, ErrBadAnswer,
			"no usable answer: HTTP status 301: needs the address of Patroni's REST API"},
		{"", 401, PatroniOptions{}, at, ErrLogin,
			"the login is refused: HTTP status 401: it needs a login: set user and password_file"},
		{"", 401, PatroniOptions{User: "u"}, at, ErrLogin, "the login is refused: HTTP status 401: it refuses the user " +
			`"u" with this password: see user and password_file`},
		{"<html>", 200, PatroniOptions{}, at, ErrBadAnswer, "no usable answer: the answer is not Patroni's JSON: invalid " +
			"character '<' looking for beginning of value"},
		{`{"members": 5}`, 200, PatroniOptions{}, at, ErrBadAnswer,
			`no usable answer: the answer is not Patroni's JSON: the field "members" has a number`},
		{`{"members": []}`, 200, PatroniOptions{}, at, ErrNoMembers, "no usable member: the answer names none"},
		{`{"members": [` + strings.Repeat("{},", maxClusterMembers) + `{}]}`, 200, PatroniOptions{}, at, ErrTooMuchData,
			"too much data: more than 1000 members"},
		{strings.Repeat(" ", maxRESTBytes+1), 200, PatroniOptions{}, at, ErrTooMuchData,
			"too much data: the answer has more than 1 MiB"},
		{`{"scope": "other", "members": [{}]}`, 200, PatroniOptions{}, at, ErrNoScope,
			`no such cluster: this member's scope is "other", and not "main"`},
		{patroniCluster, 200, PatroniOptions{}, "http" + strings.TrimPrefix(https, "https"), ErrTLS,
			`no TLS connection: it speaks TLS: needs an endpoint that begins with "https://"`},
		{patroniCluster, 200, trusts, "https" + strings.TrimPrefix(at, "http"), ErrTLS,
			`no TLS connection: it does not speak TLS: needs an endpoint that begins with "http://"`},
		{patroniCluster, 200, PatroniOptions{}, https, ErrTLS, `no TLS connection: its certificate is signed by "own": ` +
			"set ca to a file with the certificate of that authority"},
		{patroniCluster, 200, trusts, expired, ErrTLS,
			"no TLS connection: its certificate has expired or is not valid yet"},
		{patroniCluster, 200, trusts, strict, ErrTLS, "no TLS connection: it refuses our certificate (tls: certificate " +
			"required): set cert and key to a certificate that it trusts"},
	} {
		f.mu.Lock()
		f.cluster, f.status = tt.cluster, tt.status
		f.mu.Unlock()
		wantClusterError(t, restSource(tt.o, tt.at), tt.kind, "ask Patroni at "+tt.at+": "+tt.want)
	}
}
