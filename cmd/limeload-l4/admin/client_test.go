package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/pool"
)

// TestClient calls every method of a client, over both kinds of sockets.
func TestClient(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"unix", "tcp"} {
		w := start(t, "secret")
		address := "unix:" + w.socket
		if network == "tcp" {
			address = w.tcp
		}
		c, ctx := newClient(t, address, "secret"), t.Context()

		status, err := c.Status(ctx)
		check(t, err)
		listeners, err := c.Listeners(ctx)
		check(t, err)
		pools, err := c.Pools(ctx)
		check(t, err)
		redis, err := c.Pool(ctx, "redis")
		check(t, err)
		all, err := c.Backends(ctx, "")
		check(t, err)
		none, err := c.Backends(ctx, "empty")
		check(t, err)
		one, err := c.Backend(ctx, "redis", awkward)
		check(t, err)
		if status.PID != 42 || len(listeners) != 2 || *listeners[1].DNS.Cache != (DNSCache{Hit: 90, Entries: 5}) ||
			len(pools) != 2 || redis.Name != "redis" || len(all) != 2 || len(none) != 0 || one.Name != awkward {
			t.Errorf("%+v %+v %+v %+v %+v %+v %+v", status, listeners, pools, redis, all, none, one)
		}

		weight, mode := 0, "maintenance"
		added, err := c.AddBackend(ctx, "redis", NewBackend{Name: "a/b c", Address: "192.0.2.7:1", Weight: &weight})
		check(t, err)
		changed, err := c.ChangeBackend(ctx, "redis", "a/b c", BackendChange{Mode: &mode})
		check(t, err)
		drained, err := c.DrainBackend(ctx, "redis", "a/b c", Drain{Deadline: 2.5, Remove: true})
		check(t, err)
		check(t, errorOf(c.RemoveBackend(ctx, "redis", "a/b c", false)))
		if added.Weight != 0 || changed.Mode != mode || drained.Drain == nil || !drained.Drain.Remove {
			t.Errorf("%+v %+v %+v", added, changed, drained)
		}

		filter := SessionFilter{
			ID: "x", Listener: "l", Pool: "p", Backend: awkward, Client: "192.0.2.0/24", MinAge: 90 * time.Minute,
			MinIdle: time.Millisecond, Limit: 7,
		}
		_, err = c.Sessions(ctx, filter)
		check(t, err)
		_, err = c.EndSessions(ctx, filter)
		check(t, err)
		withoutLimit := filter
		withoutLimit.Limit = 0
		if got := w.fake.filters; !slices.Equal(got, []SessionFilter{filter, withoutLimit}) {
			t.Errorf("the filters are %+v", got)
		}
		list, err := c.Sessions(ctx, SessionFilter{})
		check(t, err)
		ended, err := c.EndSessions(ctx, SessionFilter{ID: "01"})
		check(t, err)
		if list.Total != 2 || len(list.Sessions) != 2 || ended != 1 {
			t.Errorf("%+v, %d ended", list, ended)
		}

		purged, err := c.PurgeDNS(ctx, "names", DNSPurge{Name: "a.example", Below: true})
		check(t, err)
		if purged != 3 {
			t.Errorf("%d answers purged", purged)
		}
		seconds := 1.5
		rule, err := c.AddAccessRule(ctx,
			NewAccessRule{Prefix: "2001:db8::/32", Action: "deny", Listener: "redis", For: &seconds, Comment: "ü"})
		check(t, err)
		rules, err := c.AccessRules(ctx)
		check(t, err)
		if len(rules) != 3 || rules[2].Until == nil || !rules[2].Until.Equal(fakeTime().Add(3*time.Second/2)) ||
			rules[2].Comment != "ü" || rule.Prefix != rules[2].Prefix {
			t.Errorf("%+v, the rules are %+v", rule, rules)
		}
		check(t, errorOf(c.RemoveAccessRule(ctx, "2001:db8::/32", "redis", false)))
		check(t, errorOf(c.RemoveAccessRule(ctx, "198.51.100.0/24", "", false)))
		access, err := c.CheckAccess(ctx, AccessQuery{Address: "192.0.2.7", Listener: "redis"})
		check(t, err)
		heavy, err := c.Clients(ctx, ClientQuery{Listener: "redis", Sort: "sessions", Limit: 7})
		check(t, err)
		_, err = c.Clients(ctx, ClientQuery{})
		check(t, err)
		if got := w.fake.queries; !slices.Equal(got, []ClientQuery{{"redis", "sessions", 7}, {"", "", DefaultClients}}) {
			t.Errorf("the queries for clients are %+v", got)
		}
		if len(access.Listeners) != 1 || !access.Listeners[0].Allowed || len(heavy.Clients) != 1 ||
			heavy.Clients[0].Rate != 3.5 || len(heavy.Tables) != 1 || heavy.Tables[0].Max != 1000 {
			t.Errorf("%+v %+v", access, heavy)
		}
		why, err := c.Explain(ctx, ExplainQuery{Listener: "redis", Client: "192.0.2.1"})
		check(t, err)
		reloaded, err := c.Reload(ctx)
		check(t, err)
		_, err = c.Plan(ctx, nil)
		check(t, err)
		_, err = c.Plan(ctx, &Configuration{Name: "ü & x.toml", Text: []byte("a\n")})
		check(t, err)
		_, err = c.Plan(ctx, &Configuration{})
		check(t, err)
		if plans := w.fake.plans; plans[0] != nil || plans[1].Name != "ü & x.toml" || string(plans[1].Text) != "a\n" ||
			plans[2] == nil {
			t.Errorf("the plans are %+v", plans)
		}
		upgraded, err := c.Upgrade(ctx, Upgrade{Deadline: 5})
		check(t, err)
		if upgraded.NewPID != 200 || upgraded.Flows != 200 || upgraded.Left == nil {
			t.Errorf("the upgrade is %+v", upgraded)
		}
		_, err = c.SetLogLevel(ctx, "warn", time.Minute)
		check(t, err)
		level, err := c.LogLevel(ctx)
		check(t, err)
		if why.Text == "" || reloaded.Took != 0.25 || level.Level != "warn" {
			t.Errorf("%+v %+v %+v", why, reloaded, level)
		}
		check(t, c.Ready(ctx))
		check(t, c.Live(ctx))
		w.fake.notReady = errors.New("it drains")
		if err := c.Ready(ctx); err == nil || err.Error() != "not ready: it drains" {
			t.Errorf("Ready: %v", err)
		}
		expected := []string{
			"add redis/a/b c", "change redis/a/b c", "drain redis/a/b c in 2.5s", "remove redis/a/b c", "end 1",
			"purge {Name:a.example Below:true All:false}", `deny 2001:db8::/32 at "redis"`,
			`remove rule 2001:db8::/32 at "redis"`, `remove rule 198.51.100.0/24 at ""`, "reload",
			"upgrade {Deadline:5}", "level warn",
		}
		if done := w.fake.done(); !slices.Equal(done, expected) {
			t.Errorf("the daemon did %q, expected %q", done, expected)
		}
	}
}

// TestClientMirrorsBalancer: a Client has each of a Balancer's methods.
func TestClientMirrorsBalancer(t *testing.T) {
	t.Parallel()
	client := reflect.TypeFor[*Client]()
	for m := range reflect.TypeFor[Balancer]().Methods() {
		if _, has := client.MethodByName(m.Name); !has {
			t.Errorf("a Client has no %s", m.Name)
		}
	}
}

// TestClientProblems: the client returns the same errors as the daemon.
func TestClientProblems(t *testing.T) {
	t.Parallel()
	w := start(t, "")
	c, ctx := w.client(t, ""), t.Context()
	_, unknownPool := c.Backends(ctx, "none")
	_, unknownListener := c.Explain(ctx, ExplainQuery{Listener: "none", Client: "192.0.2.1"})
	_, unknownBackend := c.RemoveBackend(ctx, "redis", "none", false)
	_, noCache := c.PurgeDNS(ctx, "redis", DNSPurge{All: true})
	_, unknownRule := c.RemoveAccessRule(ctx, "192.0.2.0/24", "", false)
	_, tooMany := c.AddAccessRule(ctx, NewAccessRule{Prefix: "192.0.2.0/24", Action: "deny", Comment: "full"})
	_, duplicate := c.AddBackend(ctx, "redis", NewBackend{Name: "b1", Address: "192.0.2.3:1"})
	for target, err := range map[error]error{
		ErrUnknownPool: unknownPool, ErrUnknownListener: unknownListener,
		ErrUnknownAccessRule: unknownRule, ErrTooManyAccessRules: tooMany,
		ErrNoDNSCache: noCache, pool.ErrUnknownBackend: unknownBackend, pool.ErrDuplicateBackend: duplicate,
	} {
		if !errors.Is(err, target) {
			t.Errorf("%v is not %v", err, target)
		}
		for _, other := range []error{ErrUnknownPool, ErrUnknownListener, ErrNoDNSCache, pool.ErrUnknownBackend,
			pool.ErrDuplicateBackend, ErrEnding, ErrUnreachable} {
			if other != target && errors.Is(err, other) {
				t.Errorf("%v is %v", err, other)
			}
		}
	}
	if unknownPool.Error() != `pool "none": there is no such pool` {
		t.Errorf("the text is %q", unknownPool)
	}
	_, err := c.Plan(ctx, &Configuration{Name: "new.toml", Text: []byte("broken = 1")})
	var p *Problem
	if !errors.As(err, &p) || len(p.Mistakes) != 2 ||
		err.Error() != "new.toml:1: broken: there is no such key\nnew.toml:2: pool.a: needs backends" {
		t.Errorf("a broken configuration: %v, %+v", err, p)
	}
	if n, err := c.EndSessions(ctx, SessionFilter{}); err == nil || n != 0 {
		t.Errorf("all sessions: %d, %v", n, err)
	}
	if n, err := c.EndAllSessions(ctx); err != nil || n != 2 {
		t.Errorf("all sessions, meant: %d, %v", n, err)
	}
	for _, name := range []string{".", "..", "a/../b"} {
		if _, err := c.RemoveBackend(ctx, "redis", name, false); !errors.Is(err, pool.ErrUnknownBackend) {
			t.Errorf("backend %q: %v", name, err)
		}
	}
}

// TestUnreachable tries each way in which nobody answers.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	stale := filepath.Join(folder, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	check(t, err)
	l.SetUnlinkOnClose(false)
	check(t, l.Close())
	closed := listenLoopback(t)
	check(t, closed.Close())

	hangsUp := listenLoopback(t)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := hangsUp.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1000))
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
			c.Close()
		}
	})
	defer serving.Wait()
	defer hangsUp.Close()

	for _, c := range []struct{ address, text string }{
		{"unix:" + filepath.Join(folder, "none"), "there is no socket " + filepath.Join(folder, "none")},
		{"unix:" + stale, "nobody listens at unix:" + stale},
		{closed.Addr().String(), "nobody listens at " + closed.Addr().String()},
		{hangsUp.Addr().String(), "ended without an answer"},
	} {
		_, err := newClient(t, c.address, "").Status(t.Context())
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.address, err)
		}
		if strings.Contains(err.Error(), "localhost") {
			t.Errorf("the text speaks of a host: %v", err)
		}
	}
	_, err = newClient(t, hangsUp.Addr().String(), "").Reload(t.Context())
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "whether it was done is not known") {
		t.Errorf("a reload: %v", err)
	}
	denied := (&Client{address: "unix:/run/x"}).unreachable(t.Context(), call{method: "GET"},
		&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", os.ErrPermission)})
	if !errors.Is(denied, ErrUnreachable) || !strings.Contains(denied.Error(), "member of the socket's group") {
		t.Errorf("no permission: %v", denied)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newClient(t, hangsUp.Addr().String(), "").Status(ctx); !errors.Is(err, context.Canceled) ||
		errors.Is(err, ErrUnreachable) {
		t.Errorf("its context has ended: %v", err)
	}
}

// TestStrangeServers calls servers that are not the daemon.
func TestStrangeServers(t *testing.T) {
	t.Parallel()
	reached := make(chan string, 10)
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/status", func(w http.ResponseWriter, r *http.Request) {
		reached <- r.Header.Get("Authorization")
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/elsewhere", func(_ http.ResponseWriter, r *http.Request) { reached <- r.URL.Path })
	mux.HandleFunc("/v1/pools", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") })
	mux.HandleFunc("/v1/log", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaProblem)
		w.WriteHeader(500)
		fmt.Fprint(w, "{}")
	})
	mux.HandleFunc("/v1/backends",
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	mux.HandleFunc("/v1/events", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "data: nonsense\n\n") })
	l := listenLoopback(t)
	server := &http.Server{Handler: mux}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	defer serving.Wait()
	defer server.Close()

	c := newClient(t, l.Addr().String(), "secret")
	_, redirected := c.Status(t.Context())
	_, html := c.Pools(t.Context())
	_, problem := c.LogLevel(t.Context())
	_, missing := c.Listeners(t.Context())
	_, gateway := c.Backends(t.Context(), "")
	events := c.Events(t.Context(), EventFilter{}, func(Event) error { return nil })
	for _, err := range []error{redirected, html, problem, missing, gateway, events} {
		if err == nil || errors.Is(err, ErrUnreachable) || errors.Is(err, ErrEnding) {
			t.Errorf("the error is %v", err)
		}
	}
	if len(reached) != 1 || <-reached != "Bearer secret" {
		t.Error("the client followed a redirect, or sent no token")
	}
}

// TestClientProxy: no proxy from the environment gets the token. A request would prove nothing, since the library never
// uses a proxy for loopback.
func TestClientProxy(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"unix:/x", "127.0.0.1:1", "192.0.2.1:1"} {
		if newClient(t, address, "secret").http.Transport.(*http.Transport).Proxy != nil {
			t.Errorf("%s is asked through a proxy", address)
		}
	}
}

func TestNewClient(t *testing.T) {
	t.Parallel()
	for address, ok := range map[string]bool{
		"unix:/run/limeload/admin.sock": true, "unix:relative": true, "127.0.0.1:9000": true, "[::1]:9000": true,
		"lb.example:9000": true, ":9000": true,
		"": false, "unix:": false, "127.0.0.1": false, "127.0.0.1:": false, "http://127.0.0.1:9000": false,
		"a/b:1": false, "user@host:1": false,
	} {
		if _, err := NewClient(ClientOptions{Address: address}); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}
