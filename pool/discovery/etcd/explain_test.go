package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/limeload/limeload-l4/test/harness"
)

// wantMistake fails unless a read of the keys below /x/ fails with this kind and these words.
func wantMistake(t testing.TB, l Login, endpoint string, needs Needs, kind Kind, words string) {
	t.Helper()
	s, err := l.Open(t.Context(), endpoint)
	if err == nil {
		defer s.Close()
		_, _, err = s.Read(needs.Prefix, 10)
		if err == nil && needs.Write {
			ctx, cancel := s.Request()
			defer cancel()
			_, err = s.Client().Put(ctx, needs.Prefix+"a", "1")
		}
	}
	if err == nil {
		t.Errorf("%s: no error, want %s", endpoint, words)
		return
	}
	m := l.Explain(t.Context(), endpoint, needs, err)
	want := "ask etcd at " + endpoint + ": " + string(kind) + ": " + words
	if !errors.Is(m, kind) || m.Error() != want || !errors.Is(m, err) {
		t.Errorf("%v\nis %q, a %q\nwant %q", err, m, m.Kind, want)
	}
	if again := l.Explain(t.Context(), endpoint, needs, fmt.Errorf("again: %w", m)); again != m {
		t.Errorf("explained twice: %v", again)
	}
}

func TestExplainLogin(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	server.Do(t, "put", "/x/a", "1")
	for _, command := range []string{
		"user add root:secret", "user grant-role root root", "role add reader",
		"role grant-permission reader read --prefix=true /x/", "user add reader:other",
		"user grant-role reader reader", "user add nobody:third", "auth enable",
	} {
		server.Do(t, strings.Fields(command)...)
	}
	needs, writes := Needs{Prefix: "/x/"}, Needs{Prefix: "/x/", Write: true}
	wantMistake(t, Login{}, server.Endpoint, needs, LoginRefused, "etcd needs a login: set user and password_file")
	wantMistake(t, Login{User: "reader", Password: "x"}, server.Endpoint, needs, LoginRefused,
		`etcd does not know the user "reader" with this password: see user and password_file`)
	wantMistake(t, Login{User: "nobody", Password: "third"}, server.Endpoint, needs, LoginRefused,
		`the user "nobody" may not read the keys: `+
			"`etcdctl role grant-permission ROLE read --prefix=true /x/` for one of its roles allows it")
	wantMistake(t, Login{User: "reader", Password: "other"}, server.Endpoint, writes, LoginRefused,
		`the user "reader" may not read and write the keys: `+
			"`etcdctl role grant-permission ROLE readwrite --prefix=true /x/` for one of its roles allows it")
	s := open(t, Login{User: "reader", Password: "other"}, server.Endpoint)
	if keys, _, err := s.Read("/x/", 1); err != nil || len(keys) != 1 {
		t.Errorf("%d keys, error %v", len(keys), err)
	}
}

// TestExplainEndpoint: what an endpoint may be that does not answer as etcd.
func TestExplainEndpoint(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	needs := Needs{Prefix: "/x/"}
	dead := "http://" + harness.FreeAddress(t)
	wantMistake(t, Login{}, dead, needs, NoAnswer, "connection refused")
	wantMistake(t, Login{}, strings.Replace(dead, "http:", "https:", 1), needs, NoAnswer, "connection refused")
	wantMistake(t, Login{}, "http://no.such.name.invalid:1", needs, NoAnswer,
		`its host "no.such.name.invalid": no such host`)
	wantMistake(t, Login{}, strings.Replace(server.Endpoint, "http:", "https:", 1), needs, NoTLS,
		`it does not speak TLS: needs an endpoint that begins with "http://"`)
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	wantMistake(t, Login{}, other.URL, needs, NotEtcd, "it does not speak the v3 API of etcd")
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	wantMistake(t, Login{}, strings.Replace(secure.URL, "https:", "http:", 1), needs, NoTLS,
		`it speaks TLS: needs an endpoint that begins with "https://"`)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer silent.Close()
	wantMistake(t, Login{}, "http://"+silent.Addr().String(), needs, NoAnswer, "timed out")
}

// TestExplainMajority: a member of three answers, and the other two are gone.
func TestExplainMajority(t *testing.T) {
	t.Parallel()
	cluster := harness.StartEtcdCluster(t, 3)
	s := open(t, Login{}, cluster[0].Endpoint)
	_, _, err := s.Read("/x/", 1)
	must(t, err)
	cluster[1].Kill(t)
	cluster[2].Kill(t)
	const want = "no majority: etcd has no leader: too many of its members are down, or cut off from this one"
	harness.Eventually(t, "the member has noticed", func() error {
		_, _, err := s.Read("/x/", 1)
		if err == nil {
			return errors.New("it answers")
		}
		m := Login{}.Explain(t.Context(), cluster[0].Endpoint, Needs{}, err)
		if m.Error() != "ask etcd at "+cluster[0].Endpoint+": "+want {
			return m
		}
		return nil
	})
}

// TestExplainFull: etcd takes no write because it is full, or because the write is too large.
func TestExplainFull(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t, "--quota-backend-bytes", "1", "--unsafe-no-fsync")
	wantMistake(t, Login{}, server.Endpoint, Needs{Prefix: "/x/", Write: true}, NoSpace,
		"etcd is full and takes no writes: compact and defragment it, and then `etcdctl alarm disarm`")
	small := harness.StartEtcd(t, "--max-request-bytes", "100")
	s := open(t, Login{}, small.Endpoint)
	ctx, cancel := s.Request()
	defer cancel()
	_, err := s.Client().Put(ctx, "/x/a", strings.Repeat("x", 1000))
	m := Login{}.Explain(t.Context(), small.Endpoint, Needs{Write: true}, err)
	if m.Kind != TooMuchData || m.Detail != "etcd refuses a request that is too large: see its --max-request-bytes" {
		t.Errorf("a write that is too large: %v", m)
	}
}

// TestExplainRest has errors that no test causes.
func TestExplainRest(t *testing.T) {
	t.Parallel()
	const endpoint = "http://127.0.0.1:1"
	for _, tt := range []struct {
		err    error
		kind   Kind
		detail string
	}{
		{context.Canceled, NoAnswer, "ended"},
		{context.DeadlineExceeded, NoAnswer, "timed out"},
		{ErrLost, NoAnswer, "it closes the connection"},
		{ErrBehind, BadAnswer, "the watch does not deliver the changes"},
		{fmt.Errorf("%w: more than 5", ErrTooMany), TooMuchData,
			`the keys below "/x/": there are too many keys: more than 5`},
		{status.Error(codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 8)"), TooMuchData,
			`an answer about the keys below "/x/" has more than 8 MiB`},
		{status.Error(codes.Unimplemented, "unknown service etcdserverpb.KV"), NotEtcd, noEtcd},
		{status.Error(codes.PermissionDenied, "\x1b[2Jno\n"+strings.Repeat("x", 1000)), BadAnswer,
			`"\x1b[2Jno\n` + strings.Repeat("x", 73) + `"...`},
	} {
		m := Login{}.Explain(t.Context(), endpoint, Needs{Prefix: "/x/"}, tt.err)
		if m.Kind != tt.kind || m.Detail != tt.detail {
			t.Errorf("%v is %q: %q, want %q: %q", tt.err, m.Kind, m.Detail, tt.kind, tt.detail)
		}
	}
}
