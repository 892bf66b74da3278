package farewell

import "github.com/limeload/limeload-l4/l4/internal/wire"

// A tlsAlert answers a ClientHello with a fatal alert. There is none for servers that cannot serve now; clients of all
// kinds show this one, and try again later.
type tlsAlert struct{}

func (tlsAlert) hear(heard, reply []byte) (n int, answer []byte, v verdict) {
	if !wire.BeginsTLS(heard) {
		return 0, reply, foreign
	}
	return len(heard), wire.AppendAlert(reply, wire.AlertInternalError), said
}
