package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"strings"

	"github.com/limeload/limeload-l4/healthcheck"
)

// LDAP checks that a directory server takes a bind (RFC 4511, version 3). It is a plain value; its zero value binds
// anonymously, on the target's own port without TLS.
type LDAP struct {
	Port     uint16 // instead of the target's; 0 = the target's
	User     string // the distinguished name of a simple bind; "" = anonymous
	Password string // of the User

	TLS *tls.Config // TLS from the first byte on, and not by StartTLS; nil = plain
}

// Check binds to t and unbinds. Its errors wrap their cause; if the cause is on this machine, they wrap ErrInconclusive
// as well.
func (c LDAP) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	return exchange(ctx, t, c.Port, c.TLS, c.talk)
}

// The tags of BER that a bind needs (RFC 4511, appendix B).
const (
	berInteger      = 0x02
	berText         = 0x04
	berEnumerated   = 0x0a
	berSequence     = 0x30
	ldapBindRequest = 0x60
	ldapBindAnswer  = 0x61
	ldapUnbind      = 0x42
	ldapPassword    = 0x80
)

func (c LDAP) talk(conn io.ReadWriter) (healthcheck.Result, error) {
	bind := appendBER(nil, berInteger, []byte{3})
	bind = appendBER(bind, berText, []byte(c.User))
	bind = appendBER(bind, ldapPassword, []byte(c.Password))
	request := appendBER(appendBER(nil, berInteger, []byte{1}), ldapBindRequest, bind)
	_, _ = conn.Write(appendBER(nil, berSequence, request)) // if it fails, the read fails as well
	message, err := readLDAP(conn)
	if err != nil {
		return healthcheck.Result{}, err
	}
	if err := judgeBind(message); err != nil {
		return healthcheck.Result{}, err
	}
	unbind := appendBER(appendBER(nil, berInteger, []byte{2}), ldapUnbind, nil)
	_, _ = conn.Write(appendBER(nil, berSequence, unbind))
	return healthcheck.Result{Detail: "bind accepted"}, nil
}

// readLDAP reads one message, without its tag and length.
func readLDAP(r io.Reader) ([]byte, error) {
	start, err := readBytes(r, 2)
	if len(start) > 0 && start[0] != berSequence {
		return nil, unhealthyf("not an ldap server: answer begins with %s", quoted(start))
	}
	if err != nil {
		return nil, err
	}
	n := int(start[1])
	if n > 127 { // the long form: so many bytes of length follow
		if n &= 127; n == 0 || n > 4 {
			return nil, unhealthyf("not an ldap server: nonsense in the answer")
		}
		length, err := readBytes(r, n)
		if err != nil {
			return nil, err
		}
		n = 0
		for _, b := range length {
			n = n<<8 | int(b)
		}
	}
	if n > maxExchangeBytes {
		return nil, unhealthyf("not an ldap server: nonsense in the answer")
	}
	return readBytes(r, n)
}

// judgeBind returns what is wrong with the answer to a bind.
func judgeBind(message []byte) error {
	nonsense := unhealthyf("not an ldap server: nonsense in the answer")
	tag, _, rest := cutBER(message)
	answer, result, _ := cutBER(rest)
	if tag != berInteger || answer != ldapBindAnswer && answer != 0x78 { // a notice that the server disconnects has 0x78
		return nonsense
	}
	tag, code, result := cutBER(result)
	_, _, result = cutBER(result) // the name
	_, diagnostic, _ := cutBER(result)
	if tag != berEnumerated || len(code) != 1 {
		return nonsense
	}
	text := strings.TrimSpace(fmt.Sprintf("result %d %s", code[0], escaped(string(diagnostic))))
	switch code[0] {
	case 0:
		if answer == ldapBindAnswer {
			return nil
		}
		return nonsense
	case 49: // invalidCredentials
		return refusedf("authentication refused")
	case 7, 8, 13, 48, 53: // method unknown, stronger or confidential wanted, inappropriate, unwilling (anonymous)
		return refusedf("not allowed to log in: %s", text)
	}
	return unhealthyf("answered with an error: %s", text)
}

// appendBER appends one element.
func appendBER(b []byte, tag byte, content []byte) []byte {
	n := len(content)
	switch b = append(b, tag); {
	case n < 128:
		b = append(b, byte(n))
	default:
		b = append(b, 0x83, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, content...)
}

// cutBER returns the first element of b and what follows it. A broken one has the tag 0, and nothing follows.
func cutBER(b []byte) (tag byte, content, rest []byte) {
	if len(b) < 2 {
		return 0, nil, nil
	}
	tag, n, b := b[0], int(b[1]), b[2:]
	if n > 127 {
		size := n & 127
		if size == 0 || size > 4 || size > len(b) {
			return 0, nil, nil
		}
		n = 0
		for _, one := range b[:size] {
			n = n<<8 | int(one)
		}
		b = b[size:]
	}
	if n < 0 || n > len(b) { // below 0 where int has 32 bits
		return 0, nil, nil
	}
	return tag, b[:n], b[n:]
}
