package discovery

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// wantClusterError fails unless Find fails with this kind and text, twice.
func wantClusterError(t testing.TB, p Source, kind error, want string) {
	t.Helper()
	for range 2 {
		found, err := p.Find(t.Context())
		if !errors.Is(err, kind) || err.Error() != want || found.Backends != nil {
			t.Errorf("error %q and backends %v\nwant  %q, a kind of %q", err, found.Backends, want, kind)
			return
		}
	}
}

func TestPatroniUnknownScope(t *testing.T) {
	t.Parallel()
	s := startPatroniStore(t)
	s.Do(t, "put", "/service/other/leader", "x")
	s.Do(t, "put", "/service/other/members/x", "{}")
	s.Do(t, "put", "/service/loose", "x")
	ask := "ask etcd at " + s.Endpoint + ": no such cluster: there is no key below "
	at := func(namespace, scope string) *Patroni {
		return NewPatroni(PatroniOptions{Endpoints: []string{s.Endpoint}, Scope: scope, Namespace: namespace})
	}
	wantClusterError(t, at("/service/", "mian"), ErrNoScope,
		ask+`/service/mian/; the scopes there are "main", "other"`)
	wantClusterError(t, at("db", "main"), ErrNoScope, ask+"/db/main/, and none below /db: the namespace may be another "+
		"one, and Patroni must use etcd3, not etcd, in its configuration")
	for _, name := range strings.Fields("a b c d e f g h i j") {
		s.Do(t, "put", "/service/"+name+"/leader", "x")
	}
	wantClusterError(t, at("service", "mian"), ErrNoScope,
		ask+`/service/mian/; the scopes there are "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", ...`)

	s.Do(t, "del", "--prefix", patroniPrefix+"members/")
	wantClusterError(t, s.source(), ErrNoMembers, "ask etcd at "+s.Endpoint+
		": no usable member: no key below /service/main/members/: does Patroni run on the members?")
}

func TestPatroniTLS(t *testing.T) {
	t.Parallel()
	own, foreign := newAuthority(t, "own"), newAuthority(t, "foreign")
	cert, key, pair := own.sign(t, time.Now().Add(time.Hour))
	_, _, other := foreign.sign(t, time.Now().Add(time.Hour))
	secure := patroniStore{harness.StartEtcdTLS(t, harness.EtcdTLS{Cert: cert, Key: key, CA: own.file})}
	secure.fill(t)
	strict := patroniStore{harness.StartEtcdTLS(t,
		harness.EtcdTLS{Cert: cert, Key: key, CA: own.file, ClientCA: own.file})}
	strict.fill(t)
	plain := startPatroniStore(t)

	source := func(endpoint string, c *tls.Config) *Patroni {
		return NewPatroni(PatroniOptions{Endpoints: []string{endpoint}, Scope: "main", Namespace: "/service/", TLS: c})
	}
	const roles = "n1 5431 primary, n2 5432 replica, n3 5433 replica"
	wantRoles(t, source(secure.Endpoint, &tls.Config{RootCAs: own.pool}), roles)
	wantRoles(t, source(secure.Endpoint, &tls.Config{InsecureSkipVerify: true}), roles)
	wantRoles(t, source(strict.Endpoint,
		&tls.Config{RootCAs: own.pool, Certificates: []tls.Certificate{pair}}), roles)

	as := func(scheme, endpoint string) string {
		_, rest, _ := strings.Cut(endpoint, "://")
		return scheme + "://" + rest
	}
	for _, tt := range []struct {
		endpoint string
		tls      *tls.Config
		want     string
	}{
		{as("http", secure.Endpoint), nil, `it speaks TLS: needs an endpoint that begins with "https://"`},
		{as("http", strict.Endpoint), nil, `it speaks TLS: needs an endpoint that begins with "https://"`},
		{as("https", plain.Endpoint), &tls.Config{RootCAs: own.pool},
			`it does not speak TLS: needs an endpoint that begins with "http://"`},
		{secure.Endpoint, &tls.Config{RootCAs: foreign.pool},
			`its certificate is signed by "own": set ca to a file with the certificate of that authority`},
		{secure.Endpoint, nil,
			`its certificate is signed by "own": set ca to a file with the certificate of that authority`},
		{secure.Endpoint, &tls.Config{RootCAs: own.pool, ServerName: "etcd.internal"},
			`its certificate is not for "etcd.internal": set server_name to a name that the certificate has`},
		{strict.Endpoint, &tls.Config{RootCAs: own.pool},
			`it refuses a client without a certificate: set cert and key to one that it trusts`},
		{strict.Endpoint, &tls.Config{RootCAs: own.pool, Certificates: []tls.Certificate{other}},
			`it refuses our certificate: set cert and key to one that it trusts`},
	} {
		wantClusterError(t, source(tt.endpoint, tt.tls), ErrTLS,
			"ask etcd at "+tt.endpoint+": no TLS connection: "+tt.want)
	}
}

func TestPatroniLogin(t *testing.T) {
	t.Parallel()
	s := startPatroniStore(t)
	for _, command := range []string{
		"user add root:secret", "user grant-role root root", "role add reader",
		"role grant-permission reader read --prefix=true /service/main/", "user add reader:other",
		"user grant-role reader reader", "user add nobody:third", "auth enable",
	} {
		s.Do(t, strings.Fields(command)...)
	}
	login := func(scope, user, password string) *Patroni {
		return NewPatroni(PatroniOptions{Endpoints: []string{s.Endpoint}, Scope: scope, Namespace: "/service/",
			User: user, Password: password})
	}
	ask := "ask etcd at " + s.Endpoint + ": the login is refused: "
	const roles = "n1 5431 primary, n2 5432 replica, n3 5433 replica"
	wantRoles(t, login("main", "root", "secret"), roles)
	wantRoles(t, login("main", "reader", "other"), roles)
	wantClusterError(t, login("main", "", ""), ErrLogin, ask+"etcd needs a login: set user and password_file")
	wantClusterError(t, login("main", "reader", "wrong"), ErrLogin,
		ask+`etcd does not know the user "reader" with this password: see user and password_file`)
	wantClusterError(t, login("main", "nobody", "third"), ErrLogin,
		ask+`the user "nobody" may not read the keys: `+
			"`etcdctl role grant-permission ROLE read --prefix=true /service/main/` for one of its roles allows it")

	w := watchPatroni(t, login("main", "reader", "other"))
	w.want(t, roles)
	s.Do(t, "--user", "root:secret", "put", patroniPrefix+"leader", "n2")
	w.want(t, "n2 5432 primary")
}

// TestPatroniNobody: members of etcd that are not there, that say nothing, and that are no etcd.
func TestPatroniNobody(t *testing.T) {
	t.Parallel()
	s := startPatroniStore(t)
	dead := "http://" + harness.FreeAddress(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer silent.Close()
	mute := "http://" + silent.Addr().String()
	p := NewPatroni(PatroniOptions{Endpoints: []string{dead, mute, "http://no.such.name.invalid:1"}, Scope: "main",
		Namespace: "/service/"})
	wantClusterError(t, p, ErrNoAnswer, "ask etcd at "+dead+": no answer: connection refused; ask etcd at "+mute+
		`: no answer: timed out; ask etcd at http://no.such.name.invalid:1: no answer: its host "no.such.name.invalid": `+
		"no such host")
	wantRoles(t, s.source(dead), "n1 5431 primary, n2 5432 replica, n3 5433 replica")
	good := NewPatroni(PatroniOptions{Endpoints: []string{dead, mute, s.Endpoint}, Scope: "main", Namespace: "service"})
	wantRoles(t, good, "n1 5431 primary, n2 5432 replica, n3 5433 replica")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.source().Find(ctx); err == nil {
		t.Error("a Find that is cancelled succeeds")
	}
}

func TestPatroniNoMajority(t *testing.T) {
	t.Parallel()
	cluster := harness.StartEtcdCluster(t, 3)
	s := patroniStore{cluster[0]}
	s.fill(t)
	p := NewPatroni(PatroniOptions{Endpoints: []string{cluster[0].Endpoint, cluster[1].Endpoint, cluster[2].Endpoint},
		Scope: "main", Namespace: "/service/"})
	w := watchPatroni(t, p)
	w.want(t, "n1 5431 primary")
	cluster[0].Kill(t) // the connected one: the others go on
	harness.Eventually(t, "etcd has another leader", func() error {
		return cluster[1].Try(t, "put", patroniPrefix+"leader", "n2")
	})
	w.want(t, "n2 5432 primary")
	cluster[1].Kill(t)
	w.want(t, "no majority: etcd has no leader: too many of its members are down, or cut off from this one")
	cluster[1].Restart(t)
	w.want(t, "n2 5432 primary")
}
