package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"

	"github.com/limeload/limeload-l4/healthcheck"
)

// AMQP checks that a broker begins a connection of AMQP 0-9-1 (RabbitMQ): it answers the protocol header with
// Connection.Start. It is a plain value; its zero value checks the target's own port without TLS.
type AMQP struct {
	Port uint16      // instead of the target's; 0 = the target's
	TLS  *tls.Config // nil = plain
}

// Check begins a connection with t. Its errors wrap their cause; if the cause is on this machine, they wrap
// ErrInconclusive as well.
func (c AMQP) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	return exchange(ctx, t, c.Port, c.TLS, talkAMQP)
}

func talkAMQP(conn io.ReadWriter) (healthcheck.Result, error) {
	_, _ = io.WriteString(conn, "AMQP\x00\x00\x09\x01")
	start, err := readBytes(conn, 7) // a frame's type, channel and length
	switch {
	case bytes.HasPrefix(start, []byte("AMQP")): // the header of a version that the broker speaks
		rest, _ := readBytes(conn, 1)
		return healthcheck.Result{}, unhealthyf("speaks another version of amqp: %s", quoted(append(start, rest...)))
	case len(start) > 0 && start[0] != 1, len(start) > 2 && (start[1] != 0 || start[2] != 0):
		return healthcheck.Result{}, unhealthyf("not an amqp broker: answer begins with %s", quoted(start))
	case err != nil:
		return healthcheck.Result{}, err
	}
	nonsense := unhealthyf("not an amqp broker: nonsense in connection.start")
	n := binary.BigEndian.Uint32(start[3:])
	if n < 4 || n > maxExchangeBytes {
		return healthcheck.Result{}, nonsense
	}
	frame, err := readBytes(conn, int(n)+1)
	if err != nil {
		return healthcheck.Result{}, err
	}
	const connectionStart, frameEnd = 10<<16 | 10, 0xce // class and method
	if binary.BigEndian.Uint32(frame) != connectionStart || frame[n] != frameEnd {
		return healthcheck.Result{}, nonsense
	}
	return healthcheck.Result{Detail: "amqp 0-9-1"}, nil
}
