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

// maxExpectBytes is how much of an answer one expect looks at: far more than a banner or a status line has.
const maxExpectBytes = 64 << 10

// ErrEmptyScript is wrapped by the error for a script without steps, which would be healthy whatever the target does.
var ErrEmptyScript = errors.New("probe: the script has no steps")

// Script checks that a target answers as written down: it sends, expects, sends again. NewScript validates the steps.
// It is a plain value, of use with at least one step.
//
// An expect matches anywhere in what was received since the match of the one before; what follows its match is left to the
// next one. What it waits for may never come: that ends with the check's timeout, the end of the connection, or 64 KiB.
type Script struct {
	Port  uint16      // instead of the target's; 0 = the target's
	TLS   *tls.Config // nil = plain; without a ServerName the certificate has to be for the target's address
	Steps []Step      // read-only from here on
}

// A Step of a script sends something or expects something. Its constructors validate; its zero value is no step.
type Step struct {
	Send   []byte   // sent as it is; never shown, since it may be a password
	Expect *Pattern // instead of Send
}

// A Pattern is what a step expects. It is immutable, and of use only when made by ExpectText, ExpectHex or ExpectRegexp.
type Pattern struct {
	// exactly one is set
	text   []byte
	regexp *regexp.Regexp

	shown string // for messages
}

// NewScript returns a script of the given steps on the target's own port, in plain.
func NewScript(steps ...Step) (Script, error) {
	s := Script{Steps: steps}
	if err := s.validate(); err != nil {
		return Script{}, err
	}
	return s, nil
}

// validate says which step is none.
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

// SendText is a step that sends text as it is; a line end is part of it.
func SendText(text string) (Step, error) {
	if text == "" {
		return Step{}, errors.New("nothing to send")
	}
	return Step{Send: []byte(text)}, nil
}

// SendHex is a step that sends bytes written in hex, with white space between them or without.
func SendHex(digits string) (Step, error) {
	b, err := parseHex(digits)
	if err != nil {
		return Step{}, err
	}
	return Step{Send: b}, nil
}

// ExpectText is a step that expects text.
func ExpectText(text string) (Step, error) {
	if text == "" {
		return Step{}, errors.New("nothing to expect")
	}
	b := []byte(text)
	return Step{Expect: &Pattern{text: b, shown: quoted(b)}}, nil
}

// ExpectHex is a step that expects bytes written in hex, with white space between them or without.
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

// ExpectRegexp is a step that expects a match of an expression in the syntax of the package regexp.
//
// It is tried whenever more was received: ^ is where the match before ended, $ is where the answer ends so far, and x+
// may match before the last x arrived. So an expression should end with what ends the answer, such as \r\n.
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

// Check plays the script with t. Its errors wrap their cause, and ErrInconclusive when that is ours.
func (c Script) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	if err := c.validate(); err != nil {
		return healthcheck.Result{}, cannotCheckf("%v", err).because(err)
	}
	k, err := openTalk(ctx, t, c.Port, c.TLS, addressName(t))
	if err != nil {
		return healthcheck.Result{}, err
	}
	defer k.part(ctx)
	var received []byte // and not matched yet
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

func (k *talk) send(ctx context.Context, b []byte) error {
	if _, err := k.Write(b); err != nil {
		return k.failure(ctx, err, "the end of sending")
	}
	return nil
}

// expect reads until p matches in received and what follows it. It returns what follows the match.
func (k *talk) expect(ctx context.Context, p *Pattern, received []byte) (rest []byte, err error) {
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

// coalesce waits before the next read when much was received already: an expression is matched with everything again,
// and a target that sends 64 KiB byte by byte would have this cost minutes of a core. 64 KiB take some 2 ms to match
// (BenchmarkScriptExpect/regexp), and after them it waits 16 ms.
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

// match returns where the first match in b ends, or -1. There is none that ends in the first tried bytes.
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
