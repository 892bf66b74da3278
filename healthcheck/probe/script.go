package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// maxExpectBytes is how many bytes one expect searches: far more than a banner or a status line has.
const maxExpectBytes = 64 << 10

// ErrEmptyScript is wrapped by the error for a script without steps. Its targets would be healthy whatever they do.
var ErrEmptyScript = errors.New("probe: the script has no steps")

// Script checks that a dialogue with a target goes as written: its steps send bytes and expect bytes. NewScript
// validates the steps. It is a plain value, and needs at least one step.
//
// An expect searches all bytes received since the match of the previous expect; bytes after its match are left for the
// next one. If there is no match, it fails at the check's timeout, at the end of the connection, or after 64 KiB.
type Script struct {
	Port  uint16      // instead of the target's; 0 = the target's
	TLS   *tls.Config // nil = plain; without a ServerName the certificate must be for the target's address
	Steps []Step      // must not be changed while the script is in use
}

// A Step of a script sends bytes or expects bytes. SendText, SendHex, ExpectText, ExpectHex and ExpectRegexp make one.
// The zero value is not valid.
type Step struct {
	Send   []byte   // sent as it is; no message shows it, since it may be a password
	Expect *Pattern // instead of Send
}

// A Pattern is what a step expects. It is immutable. ExpectText, ExpectHex and ExpectRegexp make it.
type Pattern struct {
	// exactly one is set
	text   []byte
	regexp *regexp.Regexp

	shown string // for messages
}

// NewScript returns a script of the given steps on the target's own port, without TLS. The error names the first
// invalid step.
func NewScript(steps ...Step) (Script, error) {
	s := Script{Steps: steps}
	if err := s.validate(); err != nil {
		return Script{}, err
	}
	return s, nil
}

// validate returns an error that names the first invalid step.
func (c Script) validate() error {
	if len(c.Steps) == 0 {
		return ErrEmptyScript
	}
	for i, step := range c.Steps {
		if (len(step.Send) > 0) == (step.Expect != nil) {
			return fmt.Errorf("step %d: want something to send or something to expect, and not both", i+1)
		}
		if step.Expect != nil && len(step.Expect.text) == 0 && step.Expect.regexp == nil {
			return fmt.Errorf("step %d: want something to expect", i+1)
		}
	}
	return nil
}

// SendText returns a step that sends text as it is; a line end has to be part of it.
func SendText(text string) (Step, error) {
	if text == "" {
		return Step{}, errors.New("nothing to send")
	}
	return Step{Send: []byte(text)}, nil
}

// SendHex returns a step that sends bytes written in hex. White space between the digits is ignored.
func SendHex(digits string) (Step, error) {
	b, err := parseHex(digits)
	if err != nil {
		return Step{}, err
	}
	return Step{Send: b}, nil
}

// ExpectText returns a step that expects text.
func ExpectText(text string) (Step, error) {
	if text == "" {
		return Step{}, errors.New("nothing to expect")
	}
	b := []byte(text)
	return Step{Expect: &Pattern{text: b, shown: quoted(b)}}, nil
}

// ExpectHex returns a step that expects bytes written in hex. White space between the digits is ignored.
func ExpectHex(digits string) (Step, error) {
	b, err := parseHex(digits)
	if err != nil {
		return Step{}, err
	}
	shown := "hex " + hex.EncodeToString(b[:min(len(b), longestQuote/2)])
	if len(b) > longestQuote/2 {
		shown += "..."
	}
	return Step{Expect: &Pattern{text: b, shown: shown}}, nil
}

// ExpectRegexp returns a step that expects a match of an expression in the syntax of package regexp.
//
// The expression is tried each time that more bytes arrive: ^ matches where the previous match ended, $ matches after
// the last byte that has arrived, and x+ may match before the last x has arrived. So an expression should end with what
// ends the answer, such as \r\n.
func ExpectRegexp(expression string) (Step, error) {
	re, err := regexp.Compile(expression)
	if err != nil {
		return Step{}, fmt.Errorf("expect: %w", err)
	}
	if re.MatchString("") {
		return Step{}, fmt.Errorf("expect: the expression %s matches nothing at all, too", quoted([]byte(expression)))
	}
	return Step{Expect: &Pattern{regexp: re, shown: "match of " + quoted([]byte(expression))}}, nil
}

func parseHex(digits string) ([]byte, error) {
	b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
	if err != nil {
		return nil, fmt.Errorf("bytes in hex: %w", err)
	}
	if len(b) == 0 {
		return nil, errors.New("bytes in hex: there are none")
	}
	return b, nil
}

// Check runs the script with t. Its errors wrap their cause; if the cause is on this machine, they wrap ErrInconclusive
// as well.
func (c Script) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	if err := c.validate(); err != nil {
		return healthcheck.Result{}, cannotCheckf("%v", err).because(err)
	}
	k, err := openConn(ctx, t, c.Port, c.TLS, addressName(t))
	if err != nil {
		return healthcheck.Result{}, err
	}
	defer k.finish(ctx)
	var received []byte // after the last match
	for i, step := range c.Steps {
		err := error(nil)
		if step.Expect != nil {
			received, err = k.expect(ctx, step.Expect, received)
		} else {
			err = k.send(ctx, step.Send)
		}
		if err != nil {
			return healthcheck.Result{}, unhealthyf("step %d: %v", i+1, err).because(err)
		}
	}
	detail := fmt.Sprintf("all %d steps passed", len(c.Steps))
	if len(c.Steps) == 1 {
		detail = "the step passed"
	}
	return healthcheck.Result{Latency: time.Since(k.start), Detail: detail}, nil
}

// send sends one step.
func (k *checkConn) send(ctx context.Context, b []byte) error {
	if _, err := k.Write(b); err != nil {
		return k.failure(ctx, err, "the end of sending")
	}
	return nil
}

// expect reads until p matches in received, to which it appends what it reads. It returns the bytes after the match.
func (k *checkConn) expect(ctx context.Context, p *Pattern, received []byte) (rest []byte, err error) {
	buf := make([]byte, 4<<10)
	for tried := 0; ; {
		if end := p.match(received, tried); end >= 0 {
			return received[end:], nil
		}
		tried = len(received)
		if tried >= maxExpectBytes {
			return nil, unhealthyf("no %s in %d KiB, received %s", p.shown, maxExpectBytes>>10, quoted(received))
		}
		if p.regexp != nil {
			coalesce(ctx, tried)
		}
		n, err := k.Read(buf[:min(len(buf), maxExpectBytes-tried)])
		received = append(received, buf[:n]...)
		if err != nil && n == 0 {
			err = k.failure(ctx, err, p.shown)
			return nil, unhealthyf("%v, received %s", err, quoted(received)).because(err)
		}
	}
}

// coalesce waits before the next read if much was received already, so that more arrives at once. After each read the
// expression is matched with all bytes again; a target that sends 64 KiB byte by byte would cost minutes of CPU time.
// To match 64 KiB takes about 2 ms (BenchmarkScriptExpect/regexp), and then it waits 16 ms.
func coalesce(ctx context.Context, received int) {
	d := time.Duration(received/(4<<10)) * time.Millisecond
	if d == 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// match returns where the first match in b ends, or -1. The caller knows that no match ends in the first tried bytes.
func (p *Pattern) match(b []byte, tried int) int {
	if p.regexp != nil {
		if at := p.regexp.FindIndex(b); at != nil {
			return at[1]
		}
		return -1
	}
	from := max(0, tried-len(p.text)+1)
	if i := bytes.Index(b[from:], p.text); i >= 0 {
		return from + i + len(p.text)
	}
	return -1
}
