package test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestPostgresTLSRefusals runs psql with TLS that is refused for each cause, and compares what it prints, behind its
// handshake, with testdata/refusals. The SQLSTATEs are those that pgx sees.
func TestPostgresTLSRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	newAuthority(t, dir, "front").pair(t, frontPair, ecdsaKey(t), "db.example.com")
	x := &postgresTLS{dir: dir, server: &harness.Postgres{User: "somebody", Database: "db"}}
	port := regexp.MustCompile(`port [0-9]+`)
	var got strings.Builder
	for _, r := range refusings() {
		b, host, onPort := r.start(t, "postgres", x.listenerTLS(", required = false"))
		c := x.psql(t, onPort, "sslmode=verify-full sslrootcert="+x.file("front.crt"), "select 1")
		fmt.Fprintf(&got, "# %s\n%s", r.reason, port.ReplaceAllString(r.run(t, b, c), "port PORT"))
		if r.ends {
			continue
		}
		want, full := "57P03", []string{"backends_full", "queue_full", "queue_timeout", "max_sessions",
			"client_sessions", "client_rate", "rate"}
		if slices.Contains(full, r.reason) {
			want = "53300"
		}
		url := fmt.Sprintf("postgres://somebody@%s:%s/db?sslmode=require", host, onPort)
		_, err := pgx.Connect(t.Context(), url)
		if refusal, ok := errors.AsType[*pgconn.PgError](err); !ok || refusal.Code != want {
			t.Errorf("%s: pgx reports %v, want SQLSTATE %s", r.reason, err, want)
		}
	}
	b, host, onPort := refusing{}.start(t, "postgres", x.listenerTLS(""))
	fmt.Fprintf(&got, "# not_tls\n%s", port.ReplaceAllString(refusing{}.run(t, b,
		x.psql(t, onPort, "sslmode=disable", "select 1")), "port PORT"))
	golden(t, filepath.Join("testdata", "refusals", "psql-tls.txt"), got.String())
	_, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://somebody@%s:%s/db?sslmode=disable", host, onPort))
	if refusal, ok := errors.AsType[*pgconn.PgError](err); !ok || refusal.Code != "28000" {
		t.Errorf("without TLS: pgx reports %v, want SQLSTATE 28000", err)
	}
}

// What clients of Postgres begin with.
const (
	sslRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
	gssRequest = "\x00\x00\x00\x08\x04\xd2\x16\x30"
	startup    = "\x00\x00\x00\x29\x00\x03\x00\x00user\x00limeload\x00database\x00postgres\x00\x00"
)

// answered sends bytes and returns what comes back, as many bytes as wanted.
func answered(t testing.TB, c net.Conn, sends string, bytes int) string {
	t.Helper()
	got := make([]byte, bytes)
	_, err := io.WriteString(c, sends)
	if err == nil {
		var n int
		n, err = io.ReadFull(c, got)
		got = got[:n]
	}
	if err != nil {
		t.Fatalf("after %q: %q, %v", sends, got, err)
	}
	return string(got)
}

// TestPostgresTLSBeginnings holds what a client may begin with: GSSAPI, that is declined, and TLS from the first byte,
// as libpq 17 does with sslnegotiation=direct.
func TestPostgresTLSBeginnings(t *testing.T) {
	t.Parallel()
	x := newPostgresTLS(t)
	b, port := x.through(t, nil, nil, x.server)
	config := x.clientConfig(t)
	begun := func(what string, c net.Conn, config *tls.Config) {
		t.Helper()
		encrypted := tls.Client(c, config)
		if got := answered(t, encrypted, startup, 9); got != "R\x00\x00\x00\x08\x00\x00\x00\x00" {
			t.Errorf("%s: %q", what, got)
		}
		if got := encrypted.ConnectionState().NegotiatedProtocol; got != strings.Join(config.NextProtos, "") {
			t.Errorf("%s: protocol %q", what, got)
		}
		check(t, encrypted.Close())
	}
	c := b.Dial(t, "main")
	if got := answered(t, c, gssRequest, 1) + answered(t, c, sslRequest, 1); got != "NS" {
		t.Errorf("GSSAPI and TLS: %q", got)
	}
	begun("GSSAPI and TLS", c, config)
	direct := config.Clone()
	direct.NextProtos = []string{"postgresql"}
	begun("direct", b.Dial(t, "main"), direct)
	begun("direct without ALPN", b.Dial(t, "main"), config)
	wrong := config.Clone()
	wrong.NextProtos = []string{"h2"}
	if err := tls.Client(b.Dial(t, "main"), wrong).Handshake(); err == nil ||
		!strings.Contains(err.Error(), "no application protocol") {
		t.Errorf("direct for another protocol: %v", err)
	}
	for _, mode := range []string{"disable", "prefer"} {
		if got := x.outcome(t, port, "sslmode=require gssencmode="+mode); got != twice {
			t.Errorf("gssencmode=%s: %q", mode, got)
		}
	}
}

// TestPostgresTLSHostileClients holds that nothing that a client, or somebody in between, sends beside its TLS reaches
// a server (CVE-2021-23214).
func TestPostgresTLSHostileClients(t *testing.T) {
	t.Parallel()
	x := newPostgresTLS(t)
	b, _ := x.through(t, nil, nil, x.server)
	config := x.clientConfig(t)
	query := "Q" + string(binary.BigEndian.AppendUint32(nil, 4+9)) + "select 1\x00"
	for what, sends := range map[string]string{
		"a session behind the request": sslRequest + startup, "a query": sslRequest + startup + query,
		"the request twice": sslRequest + sslRequest, "GSSAPI twice": gssRequest + gssRequest,
	} {
		c := b.Dial(t, "main")
		_, err := io.WriteString(c, sends)
		check(t, err)
		if got, _ := io.ReadAll(c); len(got) > 1 && got[1] != 0x15 { // an alert
			t.Errorf("%s: %q", what, got)
		}
		if line := b.WaitSession(t, c.LocalAddr()); line.Backend != "" ||
			line.Reason != "malformed" && line.Reason != "not_tls" {
			t.Errorf("%s: %s", what, line.Text)
		}
	}
	c := b.Dial(t, "main")
	answered(t, c, sslRequest, 1)
	_, err := io.WriteString(c, sslRequest)
	check(t, err)
	if got, _ := io.ReadAll(c); len(got) > 0 && got[0] != 0x15 {
		t.Errorf("the request again, after its answer: %q", got)
	}
	if line := b.WaitSession(t, c.LocalAddr()); line.Reason != "not_tls" || line.Backend != "" {
		t.Errorf("the request again, after its answer: %s", line.Text)
	}
	for _, within := range []string{sslRequest, gssRequest} {
		c := b.Dial(t, "main")
		answered(t, c, sslRequest, 1)
		encrypted := tls.Client(c, config)
		_, err := io.WriteString(encrypted, within)
		check(t, err)
		got, _ := io.ReadAll(encrypted)
		if !strings.Contains(string(got), "C08P01\x00Ma request for encryption within TLS\x00") {
			t.Errorf("within TLS: %q", got)
		}
		if line := b.WaitSession(t, c.LocalAddr()); line.Reason != "malformed" || line.Backend != "" {
			t.Errorf("within TLS: %s", line.Text)
		}
	}
}

// TestPostgresTLSHostileBackends holds that a server that declines TLS, or answers with something else besides, gets
// nothing of a client, and that the client is told (CVE-2021-23222).
func TestPostgresTLSHostileBackends(t *testing.T) {
	t.Parallel()
	x := newPostgresTLS(t)
	login := "R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I"
	for answer, want := range map[string]string{
		"N":                           "does not speak TLS",
		"ESFATAL\x00Mno room\x00\x00": "does not speak TLS",
		"S" + login:                   "first record does not look like a TLS handshake",
		"":                            "has closed the connection when it was asked for TLS",
	} {
		sent := make(chan string, 100)
		backend := harness.Serve(t, func(_ context.Context, c *net.TCPConn) {
			asked := make([]byte, len(sslRequest))
			if _, err := io.ReadFull(c, asked); err != nil {
				return
			}
			_, _ = io.WriteString(c, answer)
			_ = c.CloseWrite()
			more, _ := io.ReadAll(c)
			sent <- string(asked) + string(more)
		})
		b := world{
			Backends: []string{backend.Address()}, Listener: []string{`profile = "postgres"`, x.listenerTLS("")},
			Pool: []string{x.poolTLS("back.crt"), "retries = 0"},
		}.start(t)
		_, port, _ := strings.Cut(b.Address(t, "main"), ":")
		if got := x.outcome(t, port, "sslmode=verify-full"); got !=
			`FATAL:  no TLS handshake with a backend of pool "all" succeeded` {
			t.Errorf("answer %q: %q", answer, got)
		}
		got := harness.Receive(t, "what the server got", sent)
		if rest, ok := strings.CutPrefix(got, sslRequest); !ok || strings.Contains(rest, "limeload") {
			t.Errorf("answer %q: the server got %q", answer, got)
		}
		line := b.WaitLine(t, "the refusal", func(l harness.Line) bool { return l.Reason == "backend_tls" })
		if !strings.Contains(line.Text, want) {
			t.Errorf("answer %q: %s, want %q", answer, line.Text, want)
		}
	}
}

// clientConfig is the settings of a client of the listener, which trusts the authority in front.crt.
func (x *postgresTLS) clientConfig(t testing.TB) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(x.file("front.crt"))
	check(t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no authority")
	}
	return &tls.Config{ServerName: "db.example.com", RootCAs: roots}
}
