package probe

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"io"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// The login is written by hand. go-sql-driver/mysql (v1.10.1) would end the balancer if a server sent a public key that
// is not RSA (an unchecked type assertion, in a goroutine of ours). It allocates the length that a packet announces, up
// to 16 MiB, before the bytes arrive. And it leaves a login half done if the certificate is wrong, see decline.

// The capabilities that a server announces and the check uses (MySQL's manual, "Capabilities Flags").
const (
	mysqlLongPassword = 1 << 0
	mysqlWithDatabase = 1 << 3
	mysqlProtocol41   = 1 << 9
	mysqlTLS          = 1 << 11
	mysqlTransactions = 1 << 13
	mysqlSecure       = 1 << 15 // a challenge of 20 bytes
	mysqlPluginAuth   = 1 << 19
)

// The authentications that the check knows.
const (
	mysqlNative    = "mysql_native_password"
	mysqlCaching   = "caching_sha2_password"
	mysqlClearText = "mysql_clear_password"
)

// A mysqlGreeting is what the server says first.
type mysqlGreeting struct {
	version      string
	capabilities uint32
	challenge    []byte
	plugin       string // the authentication that it begins with
}

// greet reads the greeting. It reads no byte behind it: what a third party sends there must reach the TLS handshake,
// which refuses it.
func (s *mysqlSession) greet() (mysqlGreeting, error) {
	var start [5]byte
	n, err := io.ReadFull(s.r, start[:])
	if n == 0 {
		return mysqlGreeting{}, err
	}
	header := [4]byte(start[:4])
	length := mysqlLength(header)
	if n == 5 && (start[4] != 10 && start[4] != mysqlERR || length == 0 || length > longestMySQLPacket) {
		return mysqlGreeting{}, unhealthyf("not a mysql server: answer begins with %s", quoted(start[:]))
	}
	if err != nil {
		return mysqlGreeting{}, err
	}
	b, err := s.body(header, start[4:5:5])
	if err != nil {
		return mysqlGreeting{}, err
	}
	return parseMySQLGreeting(b)
}

// parseMySQLGreeting parses a packet HandshakeV10.
func parseMySQLGreeting(b []byte) (g mysqlGreeting, err error) {
	f := mysqlFields{b: b[1:]}
	g.version = f.line()
	f.take(4) // the number of the connection
	g.challenge = append(g.challenge, f.take(8)...)
	f.take(1)
	low := binary.LittleEndian.Uint16(f.take(2))
	f.take(3) // character set, status
	g.capabilities = uint32(low) | uint32(binary.LittleEndian.Uint16(f.take(2)))<<16
	f.take(11) // the length of the challenge, and nothing
	g.challenge = append(g.challenge, f.take(12)...)
	if f.bad || g.capabilities&mysqlProtocol41 == 0 || g.capabilities&mysqlSecure == 0 {
		return mysqlGreeting{}, unhealthyf("not a mysql server: nonsense in the greeting")
	}
	g.plugin = mysqlNative
	if g.capabilities&mysqlPluginAuth != 0 {
		f.line() // the NUL behind the challenge
		g.plugin = f.line()
	}
	return g, nil
}

// A mysqlLogin is a login under way.
type mysqlLogin struct {
	*mysqlSession
	check     MySQL
	greeting  mysqlGreeting
	challenge []byte
	private   bool // nobody can listen: TLS, or a Unix socket
}

// login logs in, and returns a session that is ready for a query.
func (c MySQL) login(ctx context.Context, k *checkConn, t healthcheck.Target) (*mysqlSession, string, error) {
	budget := &budgetReader{r: k, left: mostMySQLBytes}
	s := &mysqlSession{r: budget, w: k, password: c.Password}
	g, err := s.greet()
	if err != nil {
		return nil, "", err
	}
	l := mysqlLogin{mysqlSession: s, check: c, greeting: g, challenge: g.challenge, private: t.Path != ""}
	if c.TLS != nil {
		if err := l.secure(ctx, k, t); err != nil {
			return nil, "", err
		}
	}
	s.r = bufio.NewReader(budget)
	answer, known := l.answer(g.plugin)
	plugin := g.plugin
	if !known { // the account may have another one, which the server then asks for
		plugin = mysqlNative
		answer, _ = l.answer(plugin)
	}
	_ = s.write(l.response(c.User, c.Database, answer, plugin)) // if it fails, the read fails as well
	if err := l.finish(ctx, k, plugin); err != nil {
		return nil, "", err
	}
	return s, g.version, nil
}

// secure asks for TLS, does the handshake and verifies the certificate.
func (l *mysqlLogin) secure(ctx context.Context, k *checkConn, t healthcheck.Target) error {
	if l.greeting.capabilities&mysqlTLS == 0 {
		l.decline(ctx, k, l.response("", "", nil, l.greeting.plugin))
		return unhealthyf("the server does not speak tls")
	}
	request := l.response("", "", nil, "")[:32] // the response up to the user's name
	binary.LittleEndian.PutUint32(request, binary.LittleEndian.Uint32(request)|mysqlTLS)
	_ = l.write(request)
	// The certificate is judged after the handshake, so that the login can end in order, see decline.
	lax := l.check.TLS.Clone()
	lax.InsecureSkipVerify = true
	if err := k.secure(ctx, lax, addressName(t)); err != nil {
		return err
	}
	l.greeting.capabilities |= mysqlTLS
	l.private = true
	if l.check.TLS.InsecureSkipVerify {
		return nil
	}
	name := l.check.TLS.ServerName
	if name == "" {
		name = addressName(t)
	}
	state := k.Conn.(*tls.Conn).ConnectionState()
	if err := verifyCertificate(state, l.check.TLS.RootCAs, name, time.Now()); err != nil {
		l.decline(ctx, k, l.response("", "", nil, l.greeting.plugin))
		return err
	}
	return nil
}

// decline ends a login that cannot go on: it sends a packet without the password, and answers with nothing until the
// server refuses. A connection that just ended there would count as an interrupted one. After max_connect_errors of
// them (100 by default) the server refuses all connections from this host, and with them the sessions of all clients.
func (l *mysqlLogin) decline(ctx context.Context, k *checkConn, packet []byte) {
	k.release()
	if k.raw.SetDeadline(k.closeBy(ctx)) != nil {
		return
	}
	for range 3 { // the server may ask for another authentication, and then for the password itself
		if l.write(packet) != nil {
			return
		}
		if b, err := l.read(); err != nil || b[0] == mysqlOK {
			return
		}
		packet = []byte{0}
	}
}

// response returns the packet HandshakeResponse41.
func (l *mysqlLogin) response(user, database string, answer []byte, plugin string) []byte {
	wants := uint32(mysqlLongPassword | mysqlProtocol41 | mysqlTransactions | mysqlSecure | mysqlPluginAuth)
	if l.private && l.check.TLS != nil {
		wants |= mysqlTLS
	}
	if database != "" {
		wants |= mysqlWithDatabase
	}
	const utf8mb4 = 45                                                    // the collation utf8mb4_general_ci
	b := binary.LittleEndian.AppendUint32(nil, wants&l.greeting.offers()) // what the server does not know it cannot skip
	b = binary.LittleEndian.AppendUint32(b, longestMySQLPacket)
	b = append(b, utf8mb4)
	b = append(b, make([]byte, 23)...)
	b = append(append(b, user...), 0)
	b = append(append(b, byte(len(answer))), answer...)
	if database != "" {
		b = append(append(b, database...), 0)
	}
	if l.greeting.capabilities&mysqlPluginAuth != 0 {
		b = append(append(b, plugin...), 0)
	}
	return b
}

// offers returns the capabilities that the check may use. A MariaDB server leaves out the first one, by which it
// announces extensions of its own.
func (g mysqlGreeting) offers() uint32 { return g.capabilities | mysqlLongPassword | mysqlWithDatabase }

// answer returns what a plugin sends first, and whether it is known here. A text without a password has none.
func (l *mysqlLogin) answer(plugin string) (answer []byte, known bool) {
	password := l.check.Password
	switch plugin {
	case mysqlNative:
		return mysqlNativeAnswer(password, l.challenge), true
	case mysqlCaching:
		return mysqlCachingAnswer(password, l.challenge), true
	case mysqlClearText:
		if l.private && len(password) < 250 { // the length has one byte
			return append([]byte(password), 0), true
		}
	}
	return nil, false
}

// mysqlNativeAnswer returns SHA1(password) XOR SHA1(challenge, SHA1(SHA1(password))).
func mysqlNativeAnswer(password string, challenge []byte) []byte {
	if password == "" {
		return nil
	}
	once := sha1.Sum([]byte(password))
	twice := sha1.Sum(once[:])
	mask := sha1.Sum(append(append([]byte(nil), challenge...), twice[:]...))
	subtle.XORBytes(once[:], once[:], mask[:])
	return once[:]
}

// mysqlCachingAnswer returns SHA256(password) XOR SHA256(SHA256(SHA256(password)), challenge).
func mysqlCachingAnswer(password string, challenge []byte) []byte {
	if password == "" {
		return nil
	}
	once := sha256.Sum256([]byte(password))
	twice := sha256.Sum256(once[:])
	mask := sha256.Sum256(append(twice[:], challenge...))
	subtle.XORBytes(once[:], once[:], mask[:])
	return once[:]
}

// finish goes on until the server says that the login is complete.
func (l *mysqlLogin) finish(ctx context.Context, k *checkConn, plugin string) error {
	unexpected := unhealthyf("not a mysql server: unexpected packet at login")
	switched, full := false, false
	for {
		b, err := l.read()
		if err != nil {
			return err
		}
		switch {
		case b[0] == mysqlOK:
			return nil
		case b[0] == mysqlEOF && !switched:
			switched = true
			f := mysqlFields{b: b[1:]}
			plugin = f.line()
			if challenge := f.b; len(challenge) >= 20 {
				l.challenge = challenge[:20:20]
			}
			answer, known := l.answer(plugin)
			if !known {
				l.decline(ctx, k, []byte{0})
				if plugin == mysqlClearText {
					return refusedf("the server wants the password in clear text, which needs tls")
				}
				return refusedf("the server wants an authentication not known here")
			}
			// An empty packet stands for no password, and native and caching take it as that.
			if err := l.write(answer); err != nil {
				return err
			}
		case b[0] == mysqlMoreData && plugin == mysqlCaching && len(b) == 2 && b[1] == 3: // the server knows the password
		case b[0] == mysqlMoreData && plugin == mysqlCaching && len(b) == 2 && b[1] == 4 && !full:
			full = true
			if err := l.sendPassword(); err != nil {
				return err
			}
		default:
			return unexpected
		}
	}
}

// sendPassword sends the password itself, which caching_sha2_password asks for if the server has not seen it since its
// start. If somebody can listen, it is encrypted with a key that the server sends.
func (l *mysqlLogin) sendPassword() error {
	password := append([]byte(l.check.Password), 0)
	if l.private {
		return l.write(password)
	}
	const requestKey = 2
	if err := l.write([]byte{requestKey}); err != nil {
		return err
	}
	b, err := l.read()
	if err != nil {
		return err
	}
	encrypted, err := mysqlEncrypted(password, l.challenge, b)
	if err != nil {
		return unhealthyf("not a mysql server: nonsense in the public key").because(err)
	}
	return l.write(encrypted)
}

// mysqlEncrypted returns the password encrypted with the key in a packet of the server.
func mysqlEncrypted(password, challenge, packet []byte) ([]byte, error) {
	block, _ := pem.Decode(packet[1:])
	if packet[0] != mysqlMoreData || block == nil {
		return nil, io.ErrUnexpectedEOF
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	const mostBits = 8192 // more would cost much CPU time; MySQL's own keys have 2,048
	key, ok := parsed.(*rsa.PublicKey)
	if !ok || key.N.BitLen() > mostBits {
		return nil, rsa.ErrVerification
	}
	plain := make([]byte, len(password))
	for i := range plain {
		plain[i] = password[i] ^ challenge[i%len(challenge)]
	}
	return rsa.EncryptOAEP(sha1.New(), rand.Reader, key, plain, nil)
}
