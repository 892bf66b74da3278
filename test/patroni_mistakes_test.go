package test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestPatroniMistakes starts with a pool that follows a cluster in etcd, and then makes mistakes in the configuration
// and in etcd. Each gets an error in the log that says what to do, and clients are served as before.
func TestPatroniMistakes(t *testing.T) {
	t.Parallel()
	server := harness.StartPostgres(t)
	etcd := harness.StartEtcd(t, "--unsafe-no-fsync")
	member := func(url string) string {
		return fmt.Sprintf(`{"conn_url":%q,"state":"running","role":"master","timeline":1}`, url)
	}
	good := "postgres://" + server.Address() + "/postgres"
	etcd.Do(t, "put", "/service/main/members/pg1", member(good))
	etcd.Do(t, "put", "/service/main/leader", "pg1")
	secure, guarded := startSecureEtcd(t), harness.StartEtcd(t, "--unsafe-no-fsync")
	guarded.Do(t, "user", "add", "root:secret")
	guarded.Do(t, "user", "grant-role", "root", "root")
	guarded.Do(t, "auth", "enable")

	address, password := harness.FreeAddress(t), filepath.Join(t.TempDir(), "password")
	check(t, os.WriteFile(password, []byte("wrong\n"), 0o600))
	config := func(lines ...string) string {
		if len(lines) == 0 {
			lines = []string{fmt.Sprintf("endpoints = [%q]", etcd.Endpoint), `scope = "main"`}
		}
		return world{
			Listen: address, Pool: []string{`hold = { timeout = "45s" }`}, Listener: []string{`profile = "postgres"`},
			Health:   []string{`type = "postgres"`, `user = "limeload"`, `role = "primary"`, `interval = "200ms"`},
			Discover: append([]string{`type = "patroni"`}, lines...),
		}.config(t)
	}
	started := time.Now()
	b := harness.StartBalancer(t, config())
	b.WaitVerdict(t, "pg1", "healthy", started)
	works := func(t *testing.T) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), "postgres://"+server.User+"@"+address+"/postgres?sslmode=disable")
		check(t, err)
		check(t, conn.Close(context.Background()))
	}
	works(t)
	failed := func(t *testing.T, since time.Time, words ...string) {
		t.Helper()
		line := b.WaitLine(t, strings.Join(words, " "), func(l harness.Line) bool {
			if l.Seen.Before(since) || l.Level != "warn" && l.Level != "error" {
				return false
			}
			for _, w := range words {
				if !strings.Contains(l.Err, w) {
					return false
				}
			}
			return true
		})
		t.Log(line.Err)
	}
	for _, tc := range []struct {
		name  string
		lines []string
		words []string
	}{
		{"scope", []string{fmt.Sprintf("endpoints = [%q]", etcd.Endpoint), `scope = "mian"`},
			[]string{"no such cluster", "/service/mian/", "main"}},
		{"https for http",
			[]string{fmt.Sprintf("endpoints = [%q]", strings.Replace(etcd.Endpoint, "http:", "https:", 1)), `scope = "main"`},
			[]string{"does not speak TLS", "http://"}},
		{"http for https",
			[]string{fmt.Sprintf("endpoints = [%q]", strings.Replace(secure.Endpoint, "https:", "http:", 1)), `scope = "main"`},
			[]string{"it speaks TLS", "https://"}},
		{"authority", []string{fmt.Sprintf("endpoints = [%q]", secure.Endpoint), `scope = "main"`},
			[]string{"set ca to"}},
		{"no login", []string{fmt.Sprintf("endpoints = [%q]", guarded.Endpoint), `scope = "main"`},
			[]string{"the login is refused", "set user and password_file"}},
		{"password", []string{fmt.Sprintf("endpoints = [%q]", guarded.Endpoint), `scope = "main"`, `user = "root"`,
			fmt.Sprintf("password_file = %q", password)}, []string{"the login is refused", `"root"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now := time.Now()
			b.Configure(t, config(tc.lines...))
			b.Ask(t, "POST", "/v1/reload", nil, nil)
			failed(t, now, tc.words...)
			works(t)
		})
	}
	b.Configure(t, config())
	b.Ask(t, "POST", "/v1/reload", nil, nil)
	for name, value := range map[string]string{
		"conn_url": member("postgres://nobody.invalid:99999/postgres"), "value": "nonsense", "address": member(good),
	} {
		t.Run("member with a broken "+name, func(t *testing.T) {
			now := time.Now()
			etcd.Do(t, "put", "/service/main/members/pg9", value)
			failed(t, now, "pg9")
			works(t)
			etcd.Do(t, "del", "/service/main/members/pg9")
		})
	}
	t.Run("etcd is gone", func(t *testing.T) {
		now := time.Now()
		etcd.Kill(t)
		failed(t, now, "no answer", "connection refused")
		works(t)
	})
}

// startSecureEtcd starts an etcd whose certificate is signed by nobody that anyone knows.
func startSecureEtcd(t *testing.T) *harness.Etcd {
	t.Helper()
	c := makeCertificate(t, time.Now().Add(time.Hour), "127.0.0.1")
	secret, err := x509.MarshalPKCS8PrivateKey(c.pair.PrivateKey)
	check(t, err)
	key := filepath.Join(t.TempDir(), "key.pem")
	check(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	return harness.StartEtcdTLS(t, harness.EtcdTLS{Cert: c.file, Key: key, CA: c.file})
}
