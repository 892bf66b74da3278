package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// maxExchangeBytes is how much a server may send in an exchange. The answers are of a few hundred bytes; a server of
// MongoDB names up to 50 members of its set.
const maxExchangeBytes = 64 << 10

// exchange connects to t, over TLS if config is not nil, and has talk exchange a few messages. talk reads no more than
// maxExchangeBytes. It returns what was found if t is healthy. Its errors are checkErrors, or those of the connection.
func exchange(
	ctx context.Context, t healthcheck.Target, port uint16, config *tls.Config,
	talk func(conn io.ReadWriter) (healthcheck.Result, error),
) (healthcheck.Result, error) {
	k, err := openConn(ctx, t, port, config, addressName(t))
	if err != nil {
		return healthcheck.Result{}, err
	}
	defer k.finish(ctx)
	result, err := talk(struct {
		io.Reader
		io.Writer
	}{&budgetReader{r: k, left: maxExchangeBytes}, k})
	if err != nil {
		return result, k.unanswered(ctx, err)
	}
	result.Latency = time.Since(k.start)
	return result, nil
}

// readBytes reads n bytes. They cost no memory before they arrive.
func readBytes(r io.Reader, n int) ([]byte, error) {
	var b bytes.Buffer
	_, err := io.CopyN(&b, r, int64(n))
	return b.Bytes(), err
}
