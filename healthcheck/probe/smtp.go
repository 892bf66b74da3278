package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"strings"

	"github.com/limeload/limeload-l4/healthcheck"
)

// SMTP checks that a mail server greets, answers EHLO and so takes mail (RFC 5321). It is a plain value; its zero value
// checks the target's own port without TLS. It ends the session by QUIT, so that the server logs no lost connection.
type SMTP struct {
	Port uint16      // instead of the target's; 0 = the target's
	TLS  *tls.Config // TLS from the first byte on (RFC 8314), and not by STARTTLS; nil = plain
}

// Check talks to t. Its errors wrap their cause; if the cause is on this machine, they wrap ErrInconclusive as well.
func (c SMTP) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	return exchange(ctx, t, c.Port, c.TLS, talkSMTP)
}

func talkSMTP(conn io.ReadWriter) (healthcheck.Result, error) {
	r := bufio.NewReader(conn)
	greeting, err := readSMTP(r, "220")
	if err == nil {
		// The name is one that nobody has (RFC 6761, 6.4): the check sends no mail.
		_, _ = io.WriteString(conn, "EHLO check.invalid\r\n") // if it fails, the read fails as well
		_, err = readSMTP(r, "250")
	}
	if err != nil {
		return healthcheck.Result{}, err
	}
	_, _ = io.WriteString(conn, "QUIT\r\n")
	_, _ = readSMTP(r, "221") // the server is healthy whatever it says
	return healthcheck.Result{Detail: "greeted by " + quoted([]byte(greeting))}, nil
}

// readSMTP reads an answer, which may have several lines, and returns the text of its first line. Another code than the
// wanted one is an error.
func readSMTP(r *bufio.Reader, want string) (text string, err error) {
	for first := true; ; first = false {
		line, err := r.ReadString('\n') // the exchange bounds it
		if err != nil {
			return "", err
		}
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 3 || strings.Trim(line[:3], "0123456789") != "" || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
			return "", unhealthyf("not an smtp server: answered %s", quoted([]byte(line)))
		}
		if line[:3] != want {
			return "", unhealthyf("takes no mail: %s", escaped(line))
		}
		if first && len(line) > 4 {
			text = line[4:]
		}
		if len(line) == 3 || line[3] == ' ' {
			return text, nil
		}
	}
}
