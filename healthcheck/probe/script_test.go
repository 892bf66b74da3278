package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// newScript returns a script. It fails the test if the steps are not valid.
func newScript(t *testing.T, steps ...Step) Script {
	t.Helper()
	s, err := NewScript(steps...)
	must(t, err)
	return s
}

// step returns s, and panics if err is not nil.
func step(s Step, err error) Step {
	if err != nil {
		panic(err) // a test's mistake
	}
	return s
}

func TestScriptOfNonsense(t *testing.T) {
	for _, steps := range [][]Step{nil, {}} {
		if _, err := NewScript(steps...); !errors.Is(err, ErrEmptyScript) {
			t.Errorf("script without steps: error %v, want ErrEmptyScript", err)
		}
	}
	text, send := step(ExpectText("x")), step(SendText("x"))
	for name, bad := range map[string]Step{
		"neither": {}, "both": {Send: send.Send, Expect: text.Expect}, "no pattern": {Expect: &Pattern{}},
	} {
		if _, err := NewScript(text, bad); err == nil || !strings.HasPrefix(err.Error(), "step 2: ") {
			t.Errorf("%s: error %v, want one of step 2", name, err)
		}
	}
	_, err := Script{}.Check(deadlineIn(t, patience), target("a"))
	failsWith(t, err, "cannot check: probe: the script has no steps", ErrEmptyScript, healthcheck.ErrInconclusive)

	for name, make := range map[string]func() (Step, error){
		"empty send":           func() (Step, error) { return SendText("") },
		"empty hex":            func() (Step, error) { return SendHex(" ") },
		"half a byte":          func() (Step, error) { return SendHex("0a 0") },
		"no hex":               func() (Step, error) { return ExpectHex("xy") },
		"empty expect":         func() (Step, error) { return ExpectText("") },
		"bad expression":       func() (Step, error) { return ExpectRegexp("(") },
		"empty expression":     func() (Step, error) { return ExpectRegexp("") },
		"expression for empty": func() (Step, error) { return ExpectRegexp("a*") },
	} {
		if s, err := make(); err == nil || s.Send != nil || s.Expect != nil {
			t.Errorf("%s: step %+v, error %v, want none and one", name, s, err)
		}
	}
}

func TestScriptOfRedis(t *testing.T) {
	to := targetAt(harness.StartRedis(t).Address)
	for name, steps := range map[string][]Step{
		"ping":   {step(SendText("PING\r\n")), step(ExpectText("+PONG\r\n"))},
		"hex":    {step(SendHex("50494e47 0d0a")), step(ExpectHex("2b 50 4f 4e 47"))},
		"role":   {step(SendText("INFO replication\r\n")), step(ExpectRegexp(`role:(master|primary)\r\n`))},
		"twice":  {step(SendText("PING a\r\nPING b\r\n")), step(ExpectText("a\r\n")), step(ExpectText("b\r\n"))},
		"parted": {step(SendText("PI")), step(SendText("NG\r\n")), step(ExpectRegexp(`^\+PONG\r\n$`))},
	} {
		got, err := newScript(t, steps...).Check(deadlineIn(t, patience), to)
		if want := fmt.Sprintf("all %d steps passed", len(steps)); err != nil || got.Detail != want ||
			got.Latency <= 0 {
			t.Errorf("%s: %+v, %v, want %q", name, got, err, want)
		}
	}
	script := newScript(t, step(SendText("AUTH secret\r\n")), step(ExpectText("+OK")))
	want := `step 2: timed out waiting for "\+OK" after .*, received "-ERR AUTH <password> called .*"\.\.\.`
	failsAtLast(t, want, func(ctx context.Context) error {
		_, err := script.Check(ctx, to)
		if strings.Contains(fmt.Sprint(err), "secret") {
			t.Errorf("error %q shows what was sent", err)
		}
		return err
	})
}

// smtp is a handler that is a mail server to a check. It sends its greeting in pieces.
func smtp(_ context.Context, c net.Conn) {
	for _, piece := range []string{"2", "20 mail.example ESMTP", "\r", "\n"} {
		_, _ = io.WriteString(c, piece)
		time.Sleep(time.Millisecond) // so that they are read one by one; the check must not depend on it
	}
	for lines := bufio.NewScanner(c); lines.Scan(); {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "EHLO "):
			_, _ = io.WriteString(c, "250-mail.example\r\n250-SIZE 1000\r\n250 STARTTLS\r\n")
		case line == "QUIT":
			_, _ = io.WriteString(c, "221 bye\r\n")
			return
		default:
			_, _ = io.WriteString(c, "500 what?\r\n")
		}
	}
}

func TestScriptOfSMTP(t *testing.T) {
	ca := newTLSAuthority(t, "ca")
	config := &tls.Config{Certificates: []tls.Certificate{ca.server(t)}}
	plain := harness.Serve(t, func(ctx context.Context, c *net.TCPConn) { smtp(ctx, c) })
	secured := harness.Serve(t, overTLS(config, smtp))
	script := newScript(t,
		step(ExpectRegexp(`^220 [^\r\n]*\r\n`)),
		step(SendText("EHLO check.example\r\n")), step(ExpectRegexp(`(?m)^250 [^\r\n]*\r\n`)),
		step(SendText("QUIT\r\n")), step(ExpectText("221 ")),
	)
	if _, err := script.Check(deadlineIn(t, patience), targetAt(plain.Address())); err != nil {
		t.Errorf("plain: %v", err)
	}
	script.Port = targetAt(plain.Address()).Addr.Port()
	if _, err := script.Check(deadlineIn(t, patience), refusing(t)); err != nil {
		t.Errorf("on another port: %v", err)
	}
	script.Port, script.TLS = 0, &tls.Config{RootCAs: ca.roots()}
	if _, err := script.Check(deadlineIn(t, patience), targetAt(secured.Address())); err != nil {
		t.Errorf("with TLS: %v", err)
	}
	script.TLS.ServerName = "b.example"
	_, err := script.Check(deadlineIn(t, patience), targetAt(secured.Address()))
	failsWith(t, err, `certificate is for another name: "lime.example, 127.0.0.1", wanted "b.example"`)
}

// TestScriptFailures checks answers that the second step does not expect.
func TestScriptFailures(t *testing.T) {
	for name, tt := range map[string]struct {
		handle harness.Handler
		want   string
	}{
		"never": {harness.Silent, `timed out waiting for "ok" after .*ms, received nothing`},
		"other": {harness.SpeakFirst("hi"), `timed out waiting for "ok" after .*ms, received "hiping"`},
		"ends": {func(_ context.Context, c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 4))
			_, _ = io.WriteString(c, "500 \xff\r\n")
		}, `closed before "ok", received "500 \\xff\\r\\n"`},
		"resets": {func(_ context.Context, c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 4))
			harness.Reset(c)
		}, `reset before "ok", received nothing`},
		"endless": {func(_ context.Context, c *net.TCPConn) {
			for err := error(nil); err == nil; {
				_, err = c.Write(bytes.Repeat([]byte("o"), 4000))
			}
		}, `no "ok" in 64 KiB, received "o{100}"\.\.\.`},
	} {
		t.Run(name, func(t *testing.T) {
			script := newScript(t, step(SendText("ping")), step(ExpectText("ok")))
			to := targetAt(harness.Serve(t, tt.handle).Address())
			failsAtLast(t, "step 2: "+tt.want, func(ctx context.Context) error {
				_, err := script.Check(ctx, to)
				return err
			})
		})
	}
	_, err := newScript(t, step(ExpectText("x"))).Check(deadlineIn(t, patience), refusing(t))
	failsWith(t, err, "connect refused")
}

func TestScriptOfHostileServers(t *testing.T) {
	for _, expect := range []Step{
		step(ExpectText("220 ok")), step(ExpectHex("323230206f6b" + strings.Repeat("00", 100))),
		step(ExpectRegexp(`(a|b|o)+220 ok\r\n`)),
	} {
		script := newScript(t, step(SendText("ping\r\n")), expect)
		survives(t, "220 mail", func(ctx context.Context, to healthcheck.Target) error {
			_, err := script.Check(ctx, to)
			return err
		})
	}
}

// TestScriptSendsToNobody sends more than fits into the buffers of a target that does not read.
func TestScriptSendsToNobody(t *testing.T) {
	ca := newTLSAuthority(t, "ca")
	config := &tls.Config{Certificates: []tls.Certificate{ca.server(t)}}
	unread := func(ctx context.Context, _ net.Conn) { <-ctx.Done() }
	script := newScript(t, step(SendText(strings.Repeat("x", 16<<20))), step(ExpectText("x")))
	for _, handle := range []harness.Handler{harness.Unread, overTLS(config, unread)} {
		to := targetAt(harness.Serve(t, handle).Address())
		failsAtLast(t, "step 1: timed out waiting for the end of sending after .*", func(ctx context.Context) error {
			_, err := script.Check(ctx, to)
			deadline, _ := ctx.Deadline()
			if late := time.Since(deadline); late > 4*time.Second { // crypto/tls would take 5
				t.Errorf("the check ended %v after its deadline, want it to part within %v", late, finishTime)
			}
			return err
		})
		script.TLS = &tls.Config{RootCAs: ca.roots()}
	}
}

func TestScriptCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	to := targetAt(harness.Serve(t, func(ctx context.Context, c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 4))
		cancel()
		harness.Silent(ctx, c)
	}).Address())
	_, err := newScript(t, step(SendText("ping")), step(ExpectText("pong"))).Check(ctx, to)
	failsWith(t, err, "step 2: cancelled, received nothing", context.Canceled, healthcheck.ErrInconclusive)
}

// chunks is a connection that delivers b in pieces of the given sizes, which repeat.
type chunks struct {
	net.Conn
	b     []byte
	sizes []byte
	n     int
}

// Read implements net.Conn.
func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	size := 1
	if len(c.sizes) > 0 {
		size += int(c.sizes[c.n%len(c.sizes)])
		c.n++
	}
	n := copy(p, c.b[:min(size, len(c.b))])
	c.b = c.b[n:]
	return n, nil
}

// FuzzScriptExpect checks that two expects find their texts, in whatever pieces the bytes come.
func FuzzScriptExpect(f *testing.F) {
	f.Add([]byte("220 hi\r\n250 ok\r\n"), []byte("20 "), []byte("\r\n"), []byte{0, 2})
	f.Add([]byte("aabaabaaab"), []byte("aaab"), []byte("a"), []byte{})
	f.Add(bytes.Repeat([]byte("a"), 70<<10), []byte("b"), []byte("a"), []byte{255})
	f.Fuzz(func(t *testing.T, answer, first, second, sizes []byte) {
		if len(first) == 0 || len(second) == 0 || len(answer) > maxExpectBytes {
			t.Skip()
		}
		k := &checkConn{Conn: &chunks{b: answer, sizes: sizes}}
		ctx := context.Background()
		_, after, found := bytes.Cut(answer, first)
		rest, err := k.expect(ctx, step(ExpectText(string(first))).Expect, nil)
		if found != (err == nil) {
			t.Fatalf("%q in %q: %v", first, answer, err)
		}
		if !found {
			return
		}
		if !bytes.HasPrefix(after, rest) { // the remainder was not read yet
			t.Fatalf("%q is left of %q", rest, answer)
		}
		_, err = k.expect(ctx, step(ExpectText(string(second))).Expect, rest)
		if found := bytes.Contains(after, second); found != (err == nil) {
			t.Fatalf("%q in %q: %v", second, after, err)
		}
	})
}

func BenchmarkScriptExpect(b *testing.B) {
	answer := bytes.Repeat([]byte("x"), maxExpectBytes)
	for name, p := range map[string]Step{"text": step(ExpectText("xy")), "regexp": step(ExpectRegexp(`x[yz]\r\n`))} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				p.Expect.match(answer, 0)
			}
		})
	}
}
