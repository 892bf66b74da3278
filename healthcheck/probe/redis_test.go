package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
	"github.com/redis/go-redis/v9"
)

// A realRedis is a server with a client that has all rights.
type realRedis struct {
	*harness.Process
	to     healthcheck.Target
	client *redis.Client
}

// startRealRedis starts a server with more options than harness.StartRedis has.
func startRealRedis(t *testing.T, options ...string) *realRedis {
	t.Helper()
	port := harness.FreePort(t)
	p := harness.Start(t, harness.Command{Path: harness.Tool(t, "redis-server"), Args: append([]string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", t.TempDir(), "--save", "", "--appendonly", "no",
		"--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0",
	}, options...)})
	p.WaitStdout(t, "Ready to accept connections")
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))
	r := &realRedis{Process: p, to: healthcheck.Target{ID: "redis", Addr: addr}}
	r.client = redis.NewClient(&redis.Options{
		Addr: addr.String(), MaxRetries: -1, DisableIdentity: true, Protocol: 2, ReadTimeout: harness.Patience,
	})
	t.Cleanup(func() { r.client.Close() })
	return r
}

func (r *realRedis) do(t *testing.T, args ...any) {
	t.Helper()
	must(t, r.client.Do(t.Context(), args...).Err())
}

// follow makes r a replica of primary, and waits until both say that the link is up.
func (r *realRedis) follow(t *testing.T, primary *realRedis) {
	t.Helper()
	r.do(t, "REPLICAOF", "127.0.0.1", primary.to.Addr.Port())
	harness.Eventually(t, "a replica follows", func() error {
		_, err := Redis{Role: healthcheck.RoleReplica}.Check(deadlineIn(t, patience), r.to)
		if result, _ := (Redis{}).Check(deadlineIn(t, patience), primary.to); err == nil && result.Replicas == 0 {
			return errors.New("the primary has no replica")
		}
		return err
	})
}

// wantWords checks the text of an error, and that wraps is the only sentinel that it wraps. A final "..." in words
// matches any text.
func wantWords(t *testing.T, err error, words string, wraps error) {
	t.Helper()
	documented(t, err)
	got := fmt.Sprint(err)
	same := got == words
	if start, open := strings.CutSuffix(words, "..."); open {
		same = strings.HasPrefix(got, start)
	}
	if !same {
		t.Errorf("error is %q, want %q", got, words)
	}
	for _, e := range []error{healthcheck.ErrWrongRole, healthcheck.ErrLagging, healthcheck.ErrInconclusive} {
		if errors.Is(err, e) != (e == wraps) {
			t.Errorf("error %q wraps %q: %v, want %v", got, e, errors.Is(err, e), e == wraps)
		}
	}
}

// within returns a context for a check that must time out.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// wantTimeout checks the text of an error, which ends with a time. It is d, or less if a busy machine begins the check
// late.
func wantTimeout(t *testing.T, err error, words string, d time.Duration) {
	t.Helper()
	wantWords(t, err, words+"...", nil)
	after, parseErr := time.ParseDuration(strings.TrimPrefix(fmt.Sprint(err), words))
	if parseErr != nil || after > d || after <= 0 {
		t.Errorf("error is %q, want a time up to %v", err, d)
	}
}

func TestRedisRoles(t *testing.T) {
	t.Parallel()
	primary, replica := startRealRedis(t), startRealRedis(t)
	replica.follow(t, primary)
	got, err := Redis{Role: healthcheck.RolePrimary}.Check(deadlineIn(t, patience), primary.to)
	if err != nil || got.Role != healthcheck.RolePrimary || got.Replicas != 1 || got.Latency <= 0 ||
		got.Detail != "primary with 1 replica" {
		t.Errorf("check of the primary is %+v, %v", got, err)
	}
	before := got.Offset
	primary.do(t, "SET", "a", strings.Repeat("x", 1000))
	if got, _ = (Redis{}).Check(deadlineIn(t, patience), primary.to); got.Offset < before+1000 {
		t.Errorf("offset is %d, want at least %d", got.Offset, before+1000)
	}
	got, err = Redis{Role: healthcheck.RoleReplica, MaxLag: time.Minute}.Check(deadlineIn(t, patience), replica.to)
	if err != nil || got.Role != healthcheck.RoleReplica ||
		!strings.HasPrefix(got.Detail, "replica, heard from its primary ") {
		t.Errorf("check of the replica is %+v, %v", got, err)
	}
	if got, err = (Redis{}).Check(deadlineIn(t, patience), replica.to); err != nil || got.Detail != "replica" {
		t.Errorf("check for any role is %+v, %v", got, err)
	}

	got, err = Redis{Role: healthcheck.RolePrimary}.Check(deadlineIn(t, patience), replica.to)
	wantWords(t, err, "is a replica, wanted a primary", healthcheck.ErrWrongRole)
	if got.Role != healthcheck.RoleReplica {
		t.Errorf("role is %v, want replica", got.Role)
	}
	got, err = Redis{Role: healthcheck.RoleReplica}.Check(deadlineIn(t, patience), primary.to)
	wantWords(t, err, "is a primary, wanted a replica", healthcheck.ErrWrongRole)
	if got.Role != healthcheck.RolePrimary || got.Replicas != 1 {
		t.Errorf("result is %+v, want that of a primary with a replica", got)
	}

	replica.do(t, "REPLICAOF", "NO", "ONE")
	if got, err = (Redis{Role: healthcheck.RolePrimary}).Check(deadlineIn(t, patience), replica.to); err != nil ||
		got.Role != healthcheck.RolePrimary || got.Replicas != 0 {
		t.Errorf("check after REPLICAOF NO ONE is %+v, %v", got, err)
	}
}

// TestRedisLinkDown checks a replica that loses its primary, and one that then refuses PING.
func TestRedisLinkDown(t *testing.T) {
	t.Parallel()
	primary, replica := startRealRedis(t), startRealRedis(t)
	replica.follow(t, primary)
	primary.Kill(t)
	harness.Eventually(t, "the link is down", func() error {
		if _, err := (Redis{}).Check(deadlineIn(t, patience), replica.to); err == nil {
			return errors.New("healthy")
		}
		return nil
	})
	for _, stale := range []string{"yes", "no"} { // with "no", PING answers MASTERDOWN
		replica.do(t, "CONFIG", "SET", "replica-serve-stale-data", stale)
		_, err := Redis{}.Check(deadlineIn(t, patience), replica.to)
		wantWords(t, err, "replica: link to its primary is down (connect...", nil)
		_, err = Redis{MaxLag: time.Minute}.Check(deadlineIn(t, patience), replica.to)
		wantWords(t, err, "replica: link to its primary is down (connect...", nil)
		if !strings.HasSuffix(err.Error(), "s)") {
			t.Errorf("error %q lacks for how long", err)
		}
		_, err = Redis{Role: healthcheck.RolePrimary}.Check(deadlineIn(t, patience), replica.to)
		wantWords(t, err, "is a replica, wanted a primary", healthcheck.ErrWrongRole)
	}
}

// TestRedisLag stops the primary. The link stays up, and nothing comes over it.
func TestRedisLag(t *testing.T) {
	t.Parallel()
	primary, replica := startRealRedis(t), startRealRedis(t)
	replica.follow(t, primary)
	primary.Signal(t, syscall.SIGSTOP)
	var err error
	harness.Eventually(t, "the replica lags", func() error {
		if _, err = (Redis{MaxLag: time.Second}).Check(deadlineIn(t, patience), replica.to); err == nil {
			return errors.New("healthy")
		}
		return nil
	})
	wantWords(t, err, "replica: heard nothing from its primary for ...", healthcheck.ErrLagging)
	if !strings.HasSuffix(err.Error(), "s, at most 1s allowed") {
		t.Errorf("error %q lacks the limit", err)
	}
	if _, err := (Redis{MaxLag: time.Hour}).Check(deadlineIn(t, patience), replica.to); err != nil {
		t.Errorf("check with a long lag allowed: %v", err)
	}
}

func TestRedisHung(t *testing.T) {
	t.Parallel()
	server := startRealRedis(t)
	server.Signal(t, syscall.SIGSTOP)
	_, err := Redis{}.Check(within(t, 200*time.Millisecond), server.to)
	wantTimeout(t, err, "timed out waiting for the answer after ", 200*time.Millisecond)

	ctx, cancel := context.WithCancel(t.Context())
	timer := time.AfterFunc(50*time.Millisecond, cancel) // while it waits for an answer
	defer timer.Stop()
	_, err = Redis{}.Check(ctx, server.to)
	wantWords(t, err, "cancelled", healthcheck.ErrInconclusive)
}

func TestRedisLoading(t *testing.T) {
	t.Parallel()
	server := startRealRedis(t, "--loading-process-events-interval-bytes", "1024")
	server.do(t, "DEBUG", "POPULATE", 20000)
	server.do(t, "CONFIG", "SET", "key-load-delay", 5000) // µs per key: it would take 100 s
	reload := server.client.Conn()                        // its answer comes when the server is killed
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = reload.Do(context.Background(), "DEBUG", "RELOAD").Err()
	}()
	var err error
	harness.Eventually(t, "loading", func() error {
		if _, err = (Redis{}).Check(deadlineIn(t, patience), server.to); err == nil {
			return errors.New("healthy")
		}
		return nil
	})
	wantWords(t, err, "loading its data", nil)
	_, err = Redis{Role: healthcheck.RoleReplica}.Check(deadlineIn(t, patience), server.to)
	wantWords(t, err, "is a primary, wanted a replica", healthcheck.ErrWrongRole)
	server.Kill(t)
	<-ended
	reload.Close()
}

func TestRedisBusy(t *testing.T) {
	t.Parallel()
	server := startRealRedis(t, "--busy-reply-threshold", "10")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.client.Eval(context.Background(), "while true do end", nil).Err() // killed below
	}()
	var err error
	harness.Eventually(t, "busy", func() error {
		if _, err = (Redis{}).Check(deadlineIn(t, patience), server.to); err == nil {
			return errors.New("healthy")
		}
		return nil
	})
	wantWords(t, err, "busy running a script", nil)
	server.do(t, "SCRIPT", "KILL")
	<-ended
}

func TestRedisPasswords(t *testing.T) {
	t.Parallel()
	open := startRealRedis(t)
	server := startRealRedis(t)
	for _, user := range [][]any{
		{"full", "on", ">pw f", "+ping", "+role", "+info"},
		{"norole", "on", ">pw", "+ping", "+info"},
		{"noinfo", "on", ">pw", "+ping", "+role"},
		{"ping", "on", ">pw", "+ping"},
		{"nothing", "on", ">pw"},
	} {
		server.do(t, append([]any{"ACL", "SETUSER"}, user...)...)
	}
	server.do(t, "CONFIG", "SET", "requirepass", "tr0ub4dor&3")
	for name, tt := range map[string]struct {
		c    Redis
		to   *realRedis
		want string // "" if healthy
		role healthcheck.Role
	}{
		"right": {Redis{Password: "tr0ub4dor&3", Role: healthcheck.RolePrimary}, server, "",
			healthcheck.RolePrimary},
		"wrong": {Redis{Password: "tr0ub4dor&4"}, server, "authentication refused", 0},
		"none":  {Redis{}, server, "the server wants a password", 0},
		"needless": {Redis{Password: "needless"}, open,
			"authentication refused: wrong password, or the server has none", 0},
		"user":         {Redis{User: "full", Password: "pw f", MaxLag: 1}, server, "", healthcheck.RolePrimary},
		"user, wrong":  {Redis{User: "full", Password: "pw"}, server, "authentication refused", 0},
		"user, none":   {Redis{User: "full"}, server, "authentication refused", 0},
		"no such user": {Redis{User: "nobody", Password: "pw"}, server, "authentication refused", 0},
		"no role": {Redis{User: "norole", Password: "pw", Role: healthcheck.RolePrimary}, server, "",
			healthcheck.RolePrimary},
		"no role, replica": {Redis{User: "norole", Password: "pw", Role: healthcheck.RoleReplica}, server,
			"is a primary, wanted a replica", healthcheck.RolePrimary},
		"no role, with lag": {Redis{User: "norole", Password: "pw", MaxLag: 1}, server, "", healthcheck.RolePrimary},
		"no info":           {Redis{User: "noinfo", Password: "pw", MaxLag: 1}, server, "", healthcheck.RolePrimary},
		"ping only":         {Redis{User: "ping", Password: "pw"}, server, "", healthcheck.RoleUnknown},
		"ping only, primary": {Redis{User: "ping", Password: "pw", Role: healthcheck.RolePrimary}, server,
			"the user may run neither role nor info", 0},
		"ping only, lag": {Redis{User: "ping", Password: "pw", MaxLag: 1}, server,
			"the user may run neither role nor info", 0},
		"not even ping": {Redis{User: "nothing", Password: "pw"}, server, "the user may not run ping", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tt.c.Check(deadlineIn(t, patience), tt.to.to)
			if got.Role != tt.role {
				t.Errorf("role is %v, want %v", got.Role, tt.role)
			}
			if tt.want == "" {
				must(t, err)
				return
			}
			var wraps error
			if strings.HasPrefix(tt.want, "is a ") {
				wraps = healthcheck.ErrWrongRole
			}
			wantWords(t, err, tt.want, wraps)
		})
	}
}

// TestRedisNoInfoOfAReplica checks a replica whose lag the user may not see.
func TestRedisNoInfoOfAReplica(t *testing.T) {
	t.Parallel()
	primary, replica := startRealRedis(t), startRealRedis(t)
	replica.do(t, "ACL", "SETUSER", "noinfo", "on", ">pw", "+ping", "+role")
	replica.do(t, "ACL", "SETUSER", "norole", "on", ">pw", "+ping", "+info")
	replica.follow(t, primary)
	_, err := Redis{User: "noinfo", Password: "pw", MaxLag: time.Minute}.Check(deadlineIn(t, patience), replica.to)
	wantWords(t, err, "the user may not run info, lag unknown", nil)
	_, err = Redis{User: "norole", Password: "pw", MaxLag: time.Minute}.Check(deadlineIn(t, patience), replica.to)
	must(t, err)
	primary.Kill(t)
	harness.Eventually(t, "the link is down", func() error {
		if _, err = (Redis{User: "norole", Password: "pw"}).Check(deadlineIn(t, patience), replica.to); err == nil {
			return errors.New("healthy")
		}
		return nil
	})
	wantWords(t, err, "replica: link to its primary is down (down for ...", nil)
}

func TestRedisFull(t *testing.T) {
	t.Parallel()
	server := startRealRedis(t)
	server.do(t, "CONFIG", "SET", "maxclients", 1) // the client of the test is the one
	for _, c := range []Redis{{}, {Password: "pw"}} {
		_, err := c.Check(deadlineIn(t, patience), server.to)
		wantWords(t, err, "its maximum of clients is reached", nil)
	}
}

func TestRedisSentinel(t *testing.T) {
	t.Parallel()
	port := harness.FreePort(t)
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	must(t, os.WriteFile(file, fmt.Appendf(nil, "bind 127.0.0.1\nport %d\n", port), 0o600))
	p := harness.Start(t, harness.Command{Path: harness.Tool(t, "redis-server"), Args: []string{file, "--sentinel"}})
	p.WaitStdout(t, "Sentinel ID is")
	to := healthcheck.Target{Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))}
	_, err := Redis{}.Check(deadlineIn(t, patience), to)
	wantWords(t, err, "is a sentinel, not a data server", nil)
}

func TestRedisTLS(t *testing.T) {
	t.Parallel()
	now := time.Now()
	good := newCertificate(t, now.Add(-time.Hour), now.Add(time.Hour))
	future := newCertificate(t, now.Add(time.Hour), now.Add(2*time.Hour))
	certFile, keyFile := good.write(t, t.TempDir(), func(string) {})
	port := harness.FreePort(t)
	server := startRealRedis(t, "--tls-port", strconv.Itoa(port), "--tls-cert-file", certFile, "--tls-key-file",
		keyFile, "--tls-auth-clients", "no")
	to := healthcheck.Target{Addr: netip.AddrPortFrom(server.to.Addr.Addr(), uint16(port))}
	for name, tt := range tlsCases(good, future) {
		if _, err := (Redis{TLS: tt.config}).Check(deadlineIn(t, patience), to); tt.want != "" {
			wantWords(t, err, tt.want, nil)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := Redis{}.Check(deadlineIn(t, patience), to)
	wantWords(t, err, "...", nil) // closed or reset: what was sent may not have been read

	// With TLS 1.3, a server asks for a missing certificate by an alert after the handshake.
	server.do(t, "CONFIG", "SET", "tls-ca-cert-file", certFile, "tls-auth-clients", "yes")
	_, err = Redis{TLS: &tls.Config{RootCAs: good.pool}}.Check(deadlineIn(t, patience), to)
	wantWords(t, err, "tls alert: certificate required, it asked for a client certificate", nil)

	certFile, keyFile = future.write(t, t.TempDir(), func(string) {})
	server.do(t, "CONFIG", "SET", "tls-cert-file", certFile, "tls-key-file", keyFile)
	_, err = Redis{TLS: &tls.Config{RootCAs: future.pool}}.Check(deadlineIn(t, patience), to)
	wantWords(t, err, "certificate not valid before "+now.Add(time.Hour).UTC().Format(time.DateOnly), nil)
}

// serveDialogue returns a target that calls serve for each connection, and closes it afterwards.
func serveDialogue(t *testing.T, serve func(conn *net.TCPConn)) healthcheck.Target {
	t.Helper()
	l, to := listen(t, "127.0.0.1:0")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed below
			}
			_ = conn.SetDeadline(time.Now().Add(harness.Patience))
			serve(conn.(*net.TCPConn))
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	return to
}
