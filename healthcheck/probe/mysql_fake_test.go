package probe

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	driver "github.com/go-sql-driver/mysql"

	"github.com/limeload/limeload-l4/healthcheck"
)

// A fakeMySQL is a server as MySQL 8 and 9 are, which Debian does not have. TestMySQLFakeIsFaithful shows it to another
// client.
type fakeMySQL struct {
	version  string
	plugin   string // of the greeting
	account  string // the plugin of the account; "" = that of the greeting
	password string
	cached   bool             // the server has seen the password since its start
	key      crypto.PublicKey // sent instead of its own
	tls      *tls.Config
	answers  map[string]string // to queries that contain the key; "" = the packet OK

	mu          sync.Mutex
	interrupted int // logins that the client did not complete; mu guards it
}

var fakeChallenge = []byte("abcdefghijklmnopqrst")

var fakeKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// mysqlPacket returns a packet with its header.
func mysqlPacket(sequence int, body string) string {
	return string([]byte{byte(len(body)), byte(len(body) >> 8), byte(len(body) >> 16), byte(sequence)}) + body
}

// mysqlERRPacket returns a packet with an error. A server sends the SQLSTATE after the greeting only.
func mysqlERRPacket(sequence, code int, message string) string {
	return mysqlPacket(sequence, string(binary.LittleEndian.AppendUint16([]byte{0xff}, uint16(code)))+message)
}

// mysqlAnswer returns the packets that answer a query. Values are separated by "|", and NULL is a value.
func mysqlAnswer(columns string, rows ...string) string {
	text := func(s string) string { return string(byte(len(s))) + s }
	const eof = "\xfe\x00\x00\x02\x00"
	names := strings.Split(columns, "|")
	b, n := mysqlPacket(1, string(byte(len(names)))), 2
	add := func(body string) { b += mysqlPacket(n, body); n++ }
	for _, name := range names {
		add(text("def") + text("") + text("") + text("") + text(name) + text(name) +
			"\x0c\x2d\x00\x00\x01\x00\x00\xfd\x00\x00\x00\x00\x00")
	}
	add(eof)
	for _, row := range rows {
		body := ""
		for value := range strings.SplitSeq(row, "|") {
			if value == "NULL" {
				body += "\xfb"
			} else {
				body += text(value)
			}
		}
		add(body)
	}
	add(eof)
	return b
}

// mysqlGreetingBody returns a HandshakeV10.
func mysqlGreetingBody(version, plugin string, secure bool) string {
	capabilities := uint32(mysqlLongPassword | mysqlWithDatabase | mysqlProtocol41 | mysqlTransactions | mysqlSecure |
		mysqlPluginAuth | 1<<21)
	if secure {
		capabilities |= mysqlTLS
	}
	b := append([]byte{10}, version+"\x00\x01\x02\x03\x04"...)
	b = append(append(b, fakeChallenge[:8]...), 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(capabilities))
	b = append(b, 45, 2, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(capabilities>>16))
	b = append(append(b, 21), make([]byte, 10)...)
	b = append(append(b, fakeChallenge[8:]...), 0)
	return string(b) + plugin + "\x00"
}

// start serves clients until the test ends.
func (f *fakeMySQL) start(t *testing.T) healthcheck.Target {
	t.Helper()
	return serveDialogue(t, func(conn *net.TCPConn) {
		if !f.login(&fakeMySQLConn{Conn: conn, raw: conn}) {
			f.mu.Lock()
			f.interrupted++
			f.mu.Unlock()
		}
	})
}

// wantComplete fails the test if a login was interrupted: each raises the count of max_connect_errors.
func (f *fakeMySQL) wantComplete(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.interrupted > 0 {
		t.Errorf("%d logins were interrupted", f.interrupted)
	}
}

type fakeMySQLConn struct {
	net.Conn
	raw      net.Conn
	sequence int
}

func (c *fakeMySQLConn) say(body string) { _, _ = io.WriteString(c, mysqlPacket(c.sequence, body)) }

// hear returns the next packet, and notes the sequence of the answer.
func (c *fakeMySQLConn) hear() ([]byte, error) {
	var header [4]byte
	if _, err := io.ReadFull(c, header[:]); err != nil {
		return nil, err
	}
	c.sequence = int(header[3]) + 1
	body := make([]byte, mysqlLength(header))
	_, err := io.ReadFull(c, body)
	return body, err
}

// login serves one client, and returns whether it went on until the server had decided.
func (f *fakeMySQL) login(c *fakeMySQLConn) bool {
	c.say(mysqlGreetingBody(f.version, f.plugin, f.tls != nil))
	b, err := c.hear()
	if err != nil {
		return false
	}
	private := len(b) == 32
	if private {
		c.Conn = tls.Server(c.raw, f.tls)
		if b, err = c.hear(); err != nil {
			return false
		}
	}
	fields := mysqlFields{b: b[32:]}
	fields.line()
	answer := fields.text()
	plugin, account := f.plugin, f.account
	if !strings.HasSuffix(string(b), plugin+"\x00") {
		plugin = ""
	}
	if account == "" {
		account = f.plugin
	}
	if plugin != account {
		c.say("\xfe" + account + "\x00" + string(fakeChallenge) + "\x00")
		if answer, err = c.hear(); err != nil {
			return false
		}
	}
	taken, err := f.takes(c, account, answer, private)
	if err != nil {
		return false
	}
	if !taken {
		const message = "#28000Access denied for user 'u'@'h' (using password: YES)"
		_, _ = io.WriteString(c, mysqlERRPacket(c.sequence, 1045, message))
		return true
	}
	c.say("\x00\x00\x00\x02\x00\x00\x00")
	f.converse(c)
	return true
}

// takes reports whether an account takes an answer.
func (f *fakeMySQL) takes(c *fakeMySQLConn, account string, answer []byte, private bool) (bool, error) {
	switch account {
	case mysqlNative:
		return bytes.Equal(answer, mysqlNativeAnswer(f.password, fakeChallenge)), nil
	case mysqlClearText:
		return string(answer) == f.password+"\x00", nil
	case mysqlCaching:
	default:
		return false, nil
	}
	if f.password == "" || len(answer) == 0 {
		return len(answer) == 0 && f.password == "", nil
	}
	if f.cached {
		if !bytes.Equal(answer, mysqlCachingAnswer(f.password, fakeChallenge)) {
			return false, nil
		}
		c.say("\x01\x03")
		c.sequence++
		return true, nil
	}
	c.say("\x01\x04")
	b, err := c.hear()
	if err != nil || private {
		return string(b) == f.password+"\x00", err
	}
	key := crypto.PublicKey(&fakeKey().PublicKey)
	if f.key != nil {
		key = f.key
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return false, err
	}
	c.say("\x01" + string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	if b, err = c.hear(); err != nil {
		return false, err
	}
	plain, err := rsa.DecryptOAEP(sha1.New(), nil, fakeKey(), b, nil)
	for i := range plain {
		plain[i] ^= fakeChallenge[i%len(fakeChallenge)]
	}
	return err == nil && string(plain) == f.password+"\x00", nil
}

// converse answers queries.
func (f *fakeMySQL) converse(c *fakeMySQLConn) {
	for {
		b, err := c.hear()
		if err != nil || len(b) == 0 || b[0] == 1 {
			return
		}
		answer := mysqlAnswer("Variable_name|Value")
		if b[0] != 3 { // COM_PING
			answer = mysqlPacket(1, "\x00\x00\x00\x02\x00\x00\x00")
		}
		for part, text := range f.answers {
			if strings.Contains(string(b), part) {
				answer = text
			}
		}
		_, _ = io.WriteString(c, answer)
	}
}

// mysqlLogins are servers with several authentications, and the accounts on them.
func mysqlLogins(secure *tls.Config) map[string]*fakeMySQL {
	fakes := make(map[string]*fakeMySQL)
	for _, plugin := range []string{mysqlNative, mysqlCaching, "sha256_password"} {
		for _, account := range []string{mysqlNative, mysqlCaching} {
			for _, cached := range []bool{true, false} {
				for _, config := range []*tls.Config{nil, secure} {
					fakes[fmt.Sprintf("%s for %s, cached %v, TLS %v", account, plugin, cached, config != nil)] = &fakeMySQL{
						version: "8.4.3", plugin: plugin, account: account, password: "hunter2", cached: cached, tls: config}
				}
			}
		}
	}
	return fakes
}

// TestMySQLFakeIsFaithful: the driver that most Go programs use can log in to the fake servers.
func TestMySQLFakeIsFaithful(t *testing.T) {
	t.Parallel()
	authority := newTLSAuthority(t, "authority")
	secure := &tls.Config{Certificates: []tls.Certificate{authority.server(t)}}
	for name, fake := range mysqlLogins(secure) {
		for _, password := range []string{"hunter2", "wrong"} {
			config := driver.NewConfig()
			config.User, config.Passwd, config.Net = "u", password, "tcp"
			config.Addr, config.Logger = fake.start(t).Addr.String(), new(driver.NopLogger)
			if fake.tls != nil {
				config.TLS = &tls.Config{RootCAs: authority.roots()}
			}
			connector, err := driver.NewConnector(config)
			must(t, err)
			db := sql.OpenDB(connector)
			if err := db.PingContext(deadlineIn(t, patience)); (err == nil) != (password == "hunter2") {
				t.Errorf("%s: the driver logs in with %s: %v", name, password, err)
			}
			must(t, db.Close())
		}
	}
}

func TestMySQLLogins(t *testing.T) {
	t.Parallel()
	authority := newTLSAuthority(t, "authority")
	secure := &tls.Config{Certificates: []tls.Certificate{authority.server(t)}}
	fakes := mysqlLogins(secure)
	fakes["clear text"] = &fakeMySQL{plugin: mysqlCaching, account: mysqlClearText, password: "hunter2", tls: secure}
	fakes["no password"] = &fakeMySQL{plugin: mysqlCaching}
	fakes["no password, by a switch"] = &fakeMySQL{plugin: mysqlNative, account: mysqlCaching}
	for name, fake := range fakes {
		to := fake.start(t)
		for password, want := range map[string]string{fake.password: "", "wrong": "authentication refused"} {
			c := MySQL{User: "u", Password: password, Database: "d"}
			if fake.tls != nil {
				c.TLS = &tls.Config{RootCAs: authority.roots()}
			}
			if _, err := c.Check(deadlineIn(t, patience), to); want != "" {
				wantRefusal(t, err, want)
			} else if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		fake.wantComplete(t)
	}
}

// wantRefusal checks the text of an error, and that it is about credentials.
func wantRefusal(t *testing.T, err error, words string) {
	t.Helper()
	failsWith(t, err, words, healthcheck.ErrCredentials)
}

// TestMySQLCompletesLogins: also a login that the check gives up ends with the server's refusal.
func TestMySQLCompletesLogins(t *testing.T) {
	t.Parallel()
	authority, other := newTLSAuthority(t, "authority"), newTLSAuthority(t, "other")
	secure := &tls.Config{Certificates: []tls.Certificate{authority.server(t)}}
	good := &tls.Config{RootCAs: authority.roots()}
	for _, tt := range []struct {
		fake *fakeMySQL
		tls  *tls.Config
		want string
	}{
		{&fakeMySQL{plugin: mysqlCaching, tls: secure}, &tls.Config{RootCAs: other.roots()},
			"certificate is by an unknown authority"},
		{&fakeMySQL{plugin: mysqlCaching, tls: secure}, &tls.Config{RootCAs: authority.roots(), ServerName: "db.example"},
			"certificate is for another name: .*"},
		{&fakeMySQL{plugin: mysqlCaching}, good, "the server does not speak tls"},
		{&fakeMySQL{plugin: mysqlCaching, account: "authentication_fido", tls: secure}, good,
			"the server wants an authentication not known here"},
		{&fakeMySQL{plugin: mysqlCaching, account: mysqlClearText}, nil,
			"the server wants the password in clear text, which needs tls"},
	} {
		c := MySQL{User: "u", Password: "hunter2", TLS: tt.tls}
		_, err := c.Check(deadlineIn(t, patience), tt.fake.start(t))
		failsWith(t, err, tt.want)
		tt.fake.wantComplete(t)
	}
}

// TestMySQLBadKeys checks servers that send a key that is none.
func TestMySQLBadKeys(t *testing.T) {
	t.Parallel()
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	must(t, err)
	for name, tt := range map[string]struct {
		key      crypto.PublicKey
		password string
	}{
		"a curve":   {&curve.PublicKey, "hunter2"},
		"too short": {&short.PublicKey, strings.Repeat("x", 200)},
	} {
		fake := &fakeMySQL{plugin: mysqlCaching, password: tt.password, key: tt.key}
		_, err := MySQL{User: "u", Password: tt.password}.Check(deadlineIn(t, patience), fake.start(t))
		if err == nil {
			t.Errorf("%s: the check succeeded", name)
			continue
		}
		wantWords(t, err, "not a mysql server: nonsense in the public key", nil)
	}
}
