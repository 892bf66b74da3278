package probe

import (
	"bufio"
	"context"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/limeload/limeload-l4/healthcheck"
)

// The limits of what a PostgreSQL server may send. The longest message to a check is an error of a few hundred bytes.
// During login, libpq also refuses lengths above 30,000.
const (
	mostPostgresBytes   = 256 << 10
	longestPostgresBody = 30_000
)

// mechanismSCRAM is the SASL name of the mechanism of scramClient (RFC 7677, 3).
const mechanismSCRAM = "SCRAM-SHA-256"

// A postgresSession is one login and the query after it. Postgres.login makes it. Its errors are checkErrors, or those
// of the connection.
//
// The login is written by hand, on top of pgproto3. pgx's pgconn is not used for two reasons: it only accepts a
// configuration made by ParseConfig, which cannot be made to ignore PGSERVICE in the environment (v5.12.0); and after a
// failed read it opens a second connection, in a goroutine that a check cannot wait for.
type postgresSession struct {
	r        *bufio.Reader
	f        *pgproto3.Frontend
	password string // removed from the server's messages
}

// secure asks the server for TLS and does the handshake.
func (c Postgres) secure(ctx context.Context, k *checkConn, t healthcheck.Target) error {
	request, err := (&pgproto3.SSLRequest{}).Encode(nil)
	if err != nil {
		return err
	}
	_, _ = k.Write(request) // if it fails, the read fails as well, unless there is an answer to read
	// Read exactly one byte: bytes that a third party sent after it must reach the TLS handshake, which refuses them
	// (CVE-2021-23222).
	var answer [1]byte
	if _, err := io.ReadFull(k, answer[:]); err != nil {
		return k.unanswered(ctx, err)
	}
	switch answer[0] {
	case 'S':
		return k.secure(ctx, c.TLS, addressName(t))
	case 'N':
		return unhealthyf("the server does not speak tls")
	case 'E': // its text is not read, since it comes without TLS and may be from anybody
		return unhealthyf("the server answered the request for tls with an error")
	}
	return unhealthyf("not a postgresql server")
}

// login logs in, and returns when the server is ready for a query.
func (c Postgres) login(conn io.ReadWriter) (*postgresSession, error) {
	r := bufio.NewReader(&budgetReader{r: conn, left: mostPostgresBytes})
	s := &postgresSession{r: r, f: pgproto3.NewFrontend(r, conn), password: c.Password}
	s.f.SetMaxBodyLen(longestPostgresBody)
	parameters := map[string]string{"user": c.User, "application_name": "limeload-l4 check"}
	if c.Database != "" {
		parameters["database"] = c.Database
	}
	s.f.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: parameters})
	_ = s.f.Flush() // if it fails, the read fails as well, unless there is an answer to read
	if err := s.greeted(); err != nil {
		return nil, err
	}
	for {
		message, err := s.receive()
		if err != nil {
			return nil, err
		}
		switch m := message.(type) {
		case *pgproto3.AuthenticationOk, *pgproto3.BackendKeyData, *pgproto3.NegotiateProtocolVersion:
		case *pgproto3.ReadyForQuery:
			return s, nil
		default:
			if err := c.authenticate(s, m); err != nil {
				return nil, err
			}
		}
	}
}

// authenticate answers a message by which the server asks for the password.
func (c Postgres) authenticate(s *postgresSession, message pgproto3.BackendMessage) error {
	switch message.(type) {
	case *pgproto3.AuthenticationCleartextPassword, *pgproto3.AuthenticationMD5Password, *pgproto3.AuthenticationSASL:
		if c.Password == "" {
			return refusedf("the server wants a password")
		}
	}
	switch m := message.(type) {
	case *pgproto3.AuthenticationCleartextPassword:
		return s.send(&pgproto3.PasswordMessage{Password: c.Password})
	case *pgproto3.AuthenticationMD5Password:
		digest := md5Hex(md5Hex(c.Password+c.User) + string(m.Salt[:]))
		return s.send(&pgproto3.PasswordMessage{Password: "md5" + digest})
	case *pgproto3.AuthenticationSASL:
		if !slices.Contains(m.AuthMechanisms, mechanismSCRAM) {
			return refusedf("the server wants an authentication not known here")
		}
		return c.scram(s)
	case *pgproto3.AuthenticationGSS:
		return refusedf("the server wants an authentication not known here")
	}
	return unhealthyf("not a postgresql server: unexpected message at login")
}

// scram logs in by SCRAM-SHA-256.
func (c Postgres) scram(s *postgresSession) error {
	client := newSCRAMClient(c.Password)
	if err := s.send(&pgproto3.SASLInitialResponse{AuthMechanism: mechanismSCRAM, Data: client.first()}); err != nil {
		return err
	}
	message, err := s.receive()
	if err != nil {
		return err
	}
	first, ok := message.(*pgproto3.AuthenticationSASLContinue)
	if !ok {
		return unhealthyf("not a postgresql server: unexpected message at login")
	}
	answer, err := client.final(string(first.Data))
	if err != nil {
		return err
	}
	if err := s.send(&pgproto3.SASLResponse{Data: answer}); err != nil {
		return err
	}
	if message, err = s.receive(); err != nil {
		return err
	}
	final, ok := message.(*pgproto3.AuthenticationSASLFinal)
	if !ok {
		return unhealthyf("not a postgresql server: unexpected message at login")
	}
	return client.verify(string(final.Data))
}

// greeted checks the start of the first answer, as libpq does: is it from PostgreSQL at all?
func (s *postgresSession) greeted() error {
	start, err := s.r.Peek(5)
	if err != nil && len(start) == 0 {
		return err
	}
	known := start[0] == 'R' || start[0] == 'E' || start[0] == 'N' || start[0] == 'v'
	if known && (err != nil || binary.BigEndian.Uint32(start[1:]) <= longestPostgresBody) {
		return err
	}
	arrived, _ := s.r.Peek(s.r.Buffered()) // never fails for what is buffered
	if start[0] == 'E' {                   // protocol 2: the server speaks it if it cannot start a process for us
		return unhealthyf("refused: %s", escaped(string(firstLine(arrived[1:]))))
	}
	return unhealthyf("not a postgresql server: answered %s", quoted(firstLine(arrived)))
}

// send sends one message at once.
func (s *postgresSession) send(message pgproto3.FrontendMessage) error {
	s.f.Send(message)
	return s.f.Flush()
}

// receive returns the next message, valid until the next call. It skips notices and parameters. If the server sends an
// error, it returns that as a checkError.
func (s *postgresSession) receive() (pgproto3.BackendMessage, error) {
	for {
		message, err := s.f.Receive()
		if err != nil {
			return nil, postgresReadError(err)
		}
		switch m := message.(type) {
		case *pgproto3.ErrorResponse:
			if s.password != "" {
				m.Message = strings.ReplaceAll(m.Message, s.password, "***")
			}
			return nil, postgresError(m)
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus, *pgproto3.NotificationResponse:
		default:
			return message, nil
		}
	}
}

// postgresReadError returns an error of the connection as it is. Other errors mean that the server sent something that
// PostgreSQL would not send; it puts them into words.
func postgresReadError(err error) error {
	var said *checkError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &said):
		return said
	case errors.As(err, &timeout), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	return unhealthyf("not a postgresql server: %s", escaped(err.Error())).because(err)
}

// A postgresServerError is the SQLSTATE of an error that the server sent (PostgreSQL's manual, appendix A).
type postgresServerError struct{ code string }

// Error returns the code.
func (e postgresServerError) Error() string { return "sqlstate " + e.code }

// postgresError puts an error of the server into words. They include the server's message, which may be in the server's
// language, because one code may have several meanings, such as starting up and shutting down.
func postgresError(m *pgproto3.ErrorResponse) error {
	message := escaped(m.Message)
	said := unhealthyf("answered with an error: %s", message)
	switch m.Code {
	case "57P03": // cannot_connect_now
		said = unhealthyf("not accepting connections: %s", message)
	case "57P01", "57P02": // admin_shutdown, crash_shutdown
		said = unhealthyf("shutting down: %s", message)
	case "53300": // too_many_connections
		said = unhealthyf("too many connections: %s", message)
	case "28P01": // invalid_password; the message adds nothing but the user's name
		said = refusedf("authentication refused")
	case "28000": // invalid_authorization_specification: no entry in pg_hba.conf, no such role
		said = refusedf("not allowed to log in: %s", message)
	case "3D000": // invalid_catalog_name
		said = refusedf("no such database: %s", message)
	case "42501": // insufficient_privilege: no CONNECT on the database, or no EXECUTE on a function
		said = refusedf("not permitted: %s", message)
	case "57014": // query_canceled, by statement_timeout
		said = unhealthyf("query cancelled: %s", message)
	}
	return said.because(postgresServerError{m.Code})
}

func md5Hex(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}
