package probe

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"

	"github.com/limeload/limeload-l4/healthcheck"
)

// MQTT checks that a broker takes a connection of a client (MQTT 3.1.1). It is a plain value; its zero value checks the
// target's own port without a user. Each check has a client identifier of its own, "limeload" and 12 hexadecimal
// digits, so that checks do not end each other's connections, and leaves no session behind.
type MQTT struct {
	Port     uint16 // instead of the target's; 0 = the target's
	User     string // "" = none
	Password string // only with a User

	TLS *tls.Config // nil = plain
}

// Check connects to t and disconnects. Its errors wrap their cause; if the cause is on this machine, they wrap
// ErrInconclusive as well.
func (c MQTT) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	return exchange(ctx, t, c.Port, c.TLS, c.talk)
}

func (c MQTT) talk(conn io.ReadWriter) (healthcheck.Result, error) {
	_, _ = conn.Write(c.connect()) // if it fails, the read fails as well, unless there is an answer to read
	answer, err := readBytes(conn, 4)
	switch {
	case len(answer) > 0 && answer[0] != 0x20, len(answer) > 1 && answer[1] != 2: // CONNACK has two bytes
		return healthcheck.Result{}, unhealthyf("not an mqtt broker: answer begins with %s", quoted(answer))
	case err != nil:
		return healthcheck.Result{}, err
	}
	switch code := answer[3]; code {
	case 0:
	case 3:
		return healthcheck.Result{}, unhealthyf("the broker is unavailable")
	case 4, 5: // bad user name or password; not authorized
		return healthcheck.Result{}, refusedf("authentication refused")
	default:
		return healthcheck.Result{}, unhealthyf("refused the connection with code %d", code)
	}
	_, _ = conn.Write([]byte{0xe0, 0}) // DISCONNECT; without it the broker would publish a will, and log a lost client
	return healthcheck.Result{Detail: "connection accepted"}, nil
}

// connect returns the packet CONNECT (MQTT 3.1.1, 3.1).
func (c MQTT) connect() []byte {
	text := func(b []byte, s string) []byte {
		return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	var random [6]byte
	_, _ = rand.Read(random[:]) // never fails
	const (
		cleanSession = 1 << 1
		hasPassword  = 1 << 6
		hasUser      = 1 << 7
		keepalive    = 60 // seconds; a check is shorter
	)
	flags := byte(cleanSession)
	if c.User != "" {
		flags |= hasUser
		if c.Password != "" {
			flags |= hasPassword
		}
	}
	body := append(text(nil, "MQTT"), 4, flags, 0, keepalive)
	body = text(body, "limeload"+hex.EncodeToString(random[:]))
	if flags&hasUser != 0 {
		body = text(body, c.User)
	}
	if flags&hasPassword != 0 {
		body = text(body, c.Password)
	}
	packet := []byte{0x10}
	n := len(body)
	for ; n > 127; n >>= 7 {
		packet = append(packet, byte(n)|0x80)
	}
	return append(append(packet, byte(n)), body...)
}
