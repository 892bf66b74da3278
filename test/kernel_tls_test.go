//go:build vm

package test

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

var suites = []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}

// TestKernelTLSRelay has sessions of each kind of encryption carry small and large answers, and end their halves.
func TestKernelTLSRelay(t *testing.T) {
	const bulk = 4 << 20
	w := startKernelWorld(t)
	line := w.WaitLine(t, "what the kernel can do", func(l harness.Line) bool { return l.Event == "kernel_tls" })
	for _, suite := range suites {
		if !strings.Contains(line.Text, suite) || line.Has("err") {
			t.Errorf("the kernel has no %s: %s", suite, line.Text)
		}
	}
	for _, g := range []leg{termination, reencryption, bothLegs} {
		t.Run(string(g), func(t *testing.T) {
			t.Run("questions and answers", func(t *testing.T) {
				s := w.open(t, g)
				done := make(chan error, 1)
				go func() {
					_, err := io.Copy(s.backend, struct{ io.Reader }{s.backend})
					done <- errors.Join(err, s.backend.CloseWrite())
				}()
				for _, size := range []int{1, 100, 16 << 10, 16<<10 + 1, 300_000} {
					check(t, harness.PingPong(s.client, 3, size))
				}
				check(t, s.client.CloseWrite())
				expectEnd(t, s.client)
				check(t, harness.Receive(t, "the backend's end", done))
				oneOf(t, []harness.Line{w.WaitSession(t, s.client.LocalAddr())}, "client_closed")
			})
			t.Run("both ways at once", func(t *testing.T) { w.tradeBothWays(t, w.open(t, g), bulk) })
			for _, side := range []string{"client", "backend"} {
				t.Run("half-close by the "+side, func(t *testing.T) { halfClose(t, w, g, side) })
			}
		})
	}
	t.Run("splice", func(t *testing.T) { spliced(t, w) })
	t.Run("off", func(t *testing.T) {
		before := w.secured(t, neitherLeg, "user")
		w.tradeBothWays(t, w.open(t, neitherLeg), 1<<20)
		w.awaitSecured(t, neitherLeg, "user", before, 1)
		for i, n := range w.secured(t, neitherLeg, "kernel") {
			if n != 0 {
				t.Errorf("%v sessions of the kernel on the side of the %s", n, neitherLeg.sides()[i])
			}
		}
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		before := w.secured(t, termination, "kernel")
		config := w.trust(t)
		config.MaxVersion = tls.VersionTLS12
		w.begin(t, termination, w.Address(t, string(termination)), config).close()
		w.awaitSecured(t, termination, "user", []float64{0}, 1)
		w.awaitSecured(t, termination, "kernel", before, 0)
	})
}

// halfClose has one side end its half behind a question, and get the answer then.
func halfClose(t *testing.T, w *kernelWorld, g leg, side string) {
	s := w.open(t, g)
	asking, answering := s.ends(side)
	question, answer := strings.Repeat("question", 1000), strings.Repeat("an answer", 100_000)
	check(t, harness.SendAll(asking, question))
	check(t, asking.CloseWrite())
	expectText(t, answering, question)
	expectEnd(t, answering)
	check(t, harness.SendAll(answering, answer))
	check(t, answering.CloseWrite())
	expectText(t, asking, answer)
	expectEnd(t, asking)
	oneOf(t, []harness.Line{w.WaitSession(t, s.client.LocalAddr())}, side+"_closed")
}

// spliced watches the balancer's system calls during a transfer: its bytes go from socket to socket by splice.
func spliced(t *testing.T, w *kernelWorld) {
	log := filepath.Join(t.TempDir(), "calls")
	s := w.open(t, bothLegs)
	strace := harness.Start(t, harness.Command{Path: harness.Tool(t, "strace"), Args: []string{
		"-f", "-qq", "-e", "trace=splice", "-e", "signal=none", "-o", log, "-p", strconv.Itoa(w.PID()),
	}})
	harness.Eventually(t, "the balancer is traced", func() error {
		status := string(readFile(t, fmt.Sprintf("/proc/%d/status", w.PID())))
		if strings.Contains(status, "TracerPid:\t0\n") {
			return errors.New(status)
		}
		return nil
	})
	const size = 4 << 20
	w.tradeBothWays(t, s, size)
	strace.Signal(t, os.Interrupt)
	strace.Wait(t)
	var moved int64
	for line := range strings.Lines(string(readFile(t, log))) {
		_, result, _ := strings.Cut(line, " = ")
		if n, err := strconv.ParseInt(strings.TrimSpace(result), 10, 64); err == nil && n > 0 {
			moved += n
		}
	}
	// Each byte is spliced into a pipe and out of it, 16 MiB if all are. While a sender is slower than the balancer, its
	// bytes are copied, as without TLS, and in an emulated machine that may be most of the time.
	if moved < 1<<20 {
		t.Errorf("%d bytes went by splice, of a transfer of %d each way", moved, size)
	}
	t.Logf("%d bytes went by splice, of a transfer of %d each way", moved, size)
}

// TestKernelTLSRecords has records come in pieces, together, and with the end of the handshake.
func TestKernelTLSRecords(t *testing.T) {
	w := startKernelWorld(t)
	for _, g := range []leg{termination, bothLegs} {
		t.Run("with Finished/"+string(g), func(t *testing.T) {
			before := w.secured(t, g, "kernel")
			c := harness.Dial(t, w.Address(t, string(g)))
			client := tlsEnd{below: &wire{Conn: c}}
			config := w.trust(t)
			config.VerifyConnection = func(tls.ConnectionState) error { // Finished comes next
				client.below.corks = true
				return nil
			}
			client.duplex = tls.Client(client.below, config)
			check(t, harness.SendAll(client, "a question with Finished"))
			client.below.uncork(t)
			s := &kernelSession{client, w.accept(t)}
			expectText(t, s.backend, "a question with Finished")
			check(t, harness.SendAll(s.backend, "an answer"))
			expectText(t, s.client, "an answer")
			w.awaitSecured(t, g, "kernel", before, 1)
			check(t, roundTrip(s.client, s.backend))
			s.close()
		})
	}
	for _, side := range []string{"client", "backend"} {
		t.Run("byte by byte/"+side, func(t *testing.T) {
			s := w.open(t, bothLegs)
			from, to := s.ends(side)
			from.below.crumbles = true
			text := strings.Repeat("crumbs ", 50)
			check(t, harness.SendAll(from, text))
			expectText(t, to, text)
			check(t, roundTrip(s.client, s.backend))
			check(t, from.CloseWrite())
			expectEnd(t, to)
			s.close()
			oneOf(t, []harness.Line{w.WaitSession(t, s.client.LocalAddr())}, side+"_closed")
		})
		t.Run("close_notify behind data without a FIN/"+side, func(t *testing.T) {
			s := w.open(t, bothLegs)
			from, to := s.ends(side)
			from.below.corks = true
			check(t, harness.SendAll(from, "the last words"))
			check(t, from.CloseWrite())
			from.below.uncork(t)
			expectText(t, to, "the last words")
			expectEnd(t, to)
			check(t, harness.SendAll(to, "and an answer"))
			check(t, to.CloseWrite())
			expectText(t, from, "and an answer")
			expectEnd(t, from)
			oneOf(t, []harness.Line{w.WaitSession(t, s.client.LocalAddr())}, side+"_closed")
		})
	}
	t.Run("resumption", func(t *testing.T) {
		config := w.trust(t)
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for i := range 3 {
			s := w.openWith(t, bothLegs, config)
			if resumed := s.client.duplex.(*tls.Conn).ConnectionState().DidResume; resumed != (i > 0) {
				t.Errorf("session %d: resumed %t", i, resumed)
			}
			if i > 0 && !s.backend.duplex.(*tls.Conn).ConnectionState().DidResume {
				t.Errorf("session %d: not resumed with the backend", i)
			}
			check(t, harness.SendAll(s.client, "hello"))
			expectText(t, s.backend, "hello")
			s.close()
		}
	})
	t.Run("many at once", func(t *testing.T) { manySessions(t, w, 50) })
}

// manySessions has so many sessions at once carry messages of their own.
func manySessions(t *testing.T, w *kernelWorld, sessions int) {
	before := w.secured(t, bothLegs, "kernel")
	config := w.trust(t)
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	var all []*kernelSession
	for range sessions {
		all = append(all, w.begin(t, bothLegs, w.Address(t, string(bothLegs)), config))
	}
	w.awaitSecured(t, bothLegs, "kernel", before, float64(sessions))
	for i, s := range all {
		text := fmt.Sprintf("the message of session %d", i)
		check(t, harness.SendAll(s.client, text))
		check(t, harness.SendAll(s.backend, text))
	}
	for i, s := range all {
		text := fmt.Sprintf("the message of session %d", i)
		expectText(t, s.backend, text)
		expectText(t, s.client, text)
		s.close()
	}
}

// record is a record of TLS with this type and length, whose content is nonsense: nothing has sealed it.
func record(kind byte, length int, content int) []byte {
	r := append([]byte{kind, 3, 3, byte(length >> 8), byte(length)}, make([]byte, content)...)
	_, _ = rand.Read(r[5:]) // never fails
	return r
}

// TestKernelTLSEnds ends sessions of the kernel in all ways that are not in order, from each side.
func TestKernelTLSEnds(t *testing.T) {
	w := startKernelWorld(t)
	broken := map[string]string{"client": "broken_tls", "backend": "backend_lost"}
	for _, tc := range []struct {
		name   string
		breaks func(t *testing.T, c *net.TCPConn)
		reason string // of the side; empty: that of TLS which is broken
		err    string
	}{
		{name: "RST", reason: "_reset", err: "connection reset by peer", breaks: func(_ *testing.T, c *net.TCPConn) {
			harness.Reset(c)
		}},
		{name: "FIN without close_notify", reason: "_closed",
			breaks: func(t *testing.T, c *net.TCPConn) { check(t, c.CloseWrite()) }},
		{name: "FIN within a record", reason: "_closed",
			breaks: func(t *testing.T, c *net.TCPConn) {
				check(t, harness.SendAll(c, string(record(23, 100, 50))))
				check(t, c.CloseWrite())
			}},
		{name: "no TLS", err: "local error: tls:", breaks: func(t *testing.T, c *net.TCPConn) {
			check(t, harness.SendAll(c, "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n"))
		}},
		{name: "wrong tag", err: "bad record MAC", breaks: func(t *testing.T, c *net.TCPConn) {
			check(t, harness.SendAll(c, string(record(23, 100, 100))))
		}},
		{name: "too long", err: "local error: tls:", breaks: func(t *testing.T, c *net.TCPConn) {
			check(t, harness.SendAll(c, string(record(23, 1<<16-1, 20_000))))
		}},
	} {
		for _, side := range []string{"client", "backend"} {
			t.Run(tc.name+" from the "+side, func(t *testing.T) {
				s := w.open(t, bothLegs)
				this, other := s.ends(side)
				tc.breaks(t, this.socket())
				if _, err := io.Copy(io.Discard, other); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the other side is not told")
				}
				other.Close()
				line := w.WaitSession(t, s.client.LocalAddr())
				want := broken[side]
				if tc.reason != "" {
					want = side + tc.reason
				}
				if line.Reason != want || !strings.Contains(line.Err, tc.err) || (line.Err == "") != (tc.err == "") {
					t.Errorf("want %s, %q: %s", want, tc.err, line.Text)
				}
			})
		}
	}
	for _, side := range []string{"client", "backend"} {
		t.Run("alert from the "+side, func(t *testing.T) {
			s := w.open(t, bothLegs)
			this, other := s.ends(side)
			this.below.spoils = true
			check(t, harness.SendAll(other, "this will not arrive"))
			if _, err := this.Read(make([]byte, 100)); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
				t.Errorf("a forged record was read: %v", err) // otherwise an alert was sent
			}
			line := w.WaitSession(t, s.client.LocalAddr())
			if line.Reason != broken[side] || line.Err != "remote error: tls: bad record MAC" {
				t.Errorf("want %s: %s", broken[side], line.Text)
			}
		})
	}
	t.Run("idle", func(t *testing.T) {
		b := startKernelWorld(t, `idle_timeout = "3s"`)
		s := b.open(t, bothLegs)
		expectEnd(t, s.client)
		expectEnd(t, s.backend)
		oneOf(t, []harness.Line{b.WaitSession(t, s.client.LocalAddr())}, "idle")
	})
}

// TestKernelTLSUpgrade has a new process take over sessions whose TLS is the kernel's, at rest and in a transfer.
func TestKernelTLSUpgrade(t *testing.T) {
	const sessions = 5
	w := kernelConfig(t)
	u := startUpgrading(t, w.config, false)
	var listeners struct {
		Listeners []struct{ Name, Address string }
	}
	check(t, u.try("GET", "/v1/listeners", nil, &listeners))
	open := func(g leg) *kernelSession {
		i := slices.IndexFunc(listeners.Listeners, func(l struct{ Name, Address string }) bool { return l.Name == string(g) })
		return w.begin(t, g, listeners.Listeners[i].Address, w.trust(t))
	}
	var kept []*kernelSession
	for _, g := range []leg{termination, reencryption, bothLegs} {
		for range sessions {
			kept = append(kept, open(g))
		}
	}
	stays := open(neitherLeg)
	for round := range 2 {
		done := u.upgrade()
		if done.Sessions < len(kept) || round == 0 && done.Left["tls"] != 1 {
			t.Errorf("upgrade %d: %+v", round, done)
		}
		for i, s := range append(kept, stays) {
			text := fmt.Sprintf("message %d to session %d", round, i)
			check(t, harness.SendAll(s.client, text))
			expectText(t, s.backend, text)
			check(t, harness.SendAll(s.backend, text))
			expectText(t, s.client, text)
		}
	}
	for i, s := range kept {
		first, second := s.ends([]string{"client", "backend"}[i%2])
		check(t, first.CloseWrite())
		expectEnd(t, second)
		check(t, harness.SendAll(second, "the rest"))
		check(t, second.CloseWrite())
		expectText(t, first, "the rest")
		expectEnd(t, first)
	}
	stays.close()
	awaitGone(t, u.pids[0])
}

// TestKernelTLSDrain shuts the balancer down while a session of the kernel goes on, which may finish.
func TestKernelTLSDrain(t *testing.T) {
	w := startKernelWorld(t)
	s := w.open(t, bothLegs)
	w.Signal(t, syscall.SIGTERM)
	w.WaitLine(t, "the drain", func(l harness.Line) bool { return l.Event == "draining" })
	check(t, harness.SendAll(s.client, "still there"))
	expectText(t, s.backend, "still there")
	check(t, s.client.CloseWrite())
	expectEnd(t, s.backend)
	check(t, s.backend.CloseWrite())
	expectEnd(t, s.client)
	if code := w.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestKernelTLSRedis has Redis' client and server, and openssl's client, speak each cipher suite through the kernel.
func TestKernelTLSRedis(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	ca.pair(t, "www", ecdsaKey(t), "www.example.com")
	var b strings.Builder
	for _, suite := range suites {
		redis := startRedisTLS(t, ca, "www", "--tls-ciphersuites", suite, "--tls-protocols", "TLSv1.3")
		fmt.Fprintf(&b, "[listener.%s]\naddress = %q\npool = %q\n%s\n[pool.%s]\nbackends = [%q]\nconnect_timeout = \"5m\"\n"+
			"[pool.%s.tls]\nserver_name = \"www.example.com\"\n%s\n", suite, harness.FreeAddress(t), suite,
			tlsTable(ca.pairs("www"), `handshake_timeout = "5m"`), suite, redis, suite, ca.fileKey("ca", "ca.crt"))
	}
	balancer := harness.StartBalancer(t, b.String())
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			at := balancer.Address(t, suite)
			trusting := []string{"--tls", "--cacert", filepath.Join(dir, "ca.crt"), "--sni", "www.example.com",
				"--tls-ciphersuites", suite}
			value := strings.Repeat(suite, 2000)
			for i, want := range []string{"OK", value} {
				if got := redisCLI(t, at, append(trusting, [][]string{{"set", "a", value}, {"get", "a"}}[i]...)...); got != want {
					t.Errorf("%.200q, want %.20q", got, want)
				}
			}
			trial := harness.Start(t, harness.Command{Path: harness.Tool(t, "openssl"), Stdin: true,
				Args: []string{"s_client", "-connect", at, "-ciphersuites", suite}})
			trial.WaitStdout(t, "Cipher is "+suite)
			trial.Say(t, "PING")
			trial.WaitStdout(t, "+PONG")
			trial.CloseStdin(t)
			trial.Wait(t)
			for _, side := range []string{"client", "backend"} {
				awaitMetric(t, balancer, securedBy(leg(suite), side, "kernel"), 3)
			}
		})
	}
}

// TestKernelTLSKeyUpdate has openssl's client and server change their keys, which this kernel cannot follow.
func TestKernelTLSKeyUpdate(t *testing.T) {
	w := startKernelWorld(t)
	for _, key := range []string{"k", "K"} { // K asks for the other side's new keys, too
		t.Run("client "+key, func(t *testing.T) {
			before := w.secured(t, termination, "kernel")
			ended := len(w.Sessions())
			p := sClient(t, w.Address(t, string(termination)), "-tls1_3", "-servername", "www.example.com")
			backend := w.accept(t)
			expectText(t, backend, marker+"\n")
			check(t, harness.SendAll(backend, "an answer\n"))
			p.WaitStdout(t, "an answer")
			w.awaitSecured(t, termination, "kernel", before, 1)
			p.Say(t, key)
			line := w.WaitSessions(t, ended+1)[ended]
			if line.Reason != "broken_tls" || !strings.Contains(line.Err, "KeyUpdate") ||
				!strings.Contains(line.Err, `kernel_tls = "off"`) {
				t.Errorf("%s", line.Text)
			}
			p.CloseStdin(t)
			p.Wait(t)
		})
	}
	t.Run("backend", func(t *testing.T) {
		port := harness.FreePort(t)
		pair := filepath.Join(w.ca.dir, "www")
		server := harness.Start(t, harness.Command{Path: harness.Tool(t, "openssl"), Stdin: true, Args: []string{
			"s_server", "-accept", fmt.Sprintf("127.0.0.1:%d", port), "-cert", pair + ".crt", "-key", pair + ".key", "-tls1_3",
		}})
		server.WaitStdout(t, "ACCEPT")
		b := world{Backends: []string{fmt.Sprintf("127.0.0.1:%d", port)}, Pool: append([]string{`connect_timeout = "5m"`},
			encrypted(w.ca.fileKey("ca", "ca.crt"), `server_name = "www.example.com"`)...)}.start(t)
		c := b.Dial(t, "main")
		check(t, harness.SendAll(c, "hello\n"))
		server.WaitStdout(t, "hello")
		server.Say(t, "an answer")
		expectText(t, c, "an answer\n")
		awaitMetric(t, b, securedBy("main", "backend", "kernel"), 1)
		server.Say(t, "k")
		line := b.WaitSession(t, c.LocalAddr())
		if line.Reason != "backend_lost" || !strings.Contains(line.Err, "KeyUpdate") {
			t.Errorf("%s", line.Text)
		}
		server.CloseStdin(t)
	})
}

// TestKernelTLSClientCertificates has clients that show a certificate, of which a PROXY header tells the backend.
func TestKernelTLSClientCertificates(t *testing.T) {
	ca := newAuthority(t, t.TempDir(), "ca")
	ca.pair(t, "www", ecdsaKey(t), "www.example.com")
	ca.pair(t, "somebody", ecdsaKey(t))
	shown, err := tls.LoadX509KeyPair(filepath.Join(ca.dir, "somebody.crt"), filepath.Join(ca.dir, "somebody.key"))
	check(t, err)
	b := world{Backends: []string{harness.Serve(t, proxyTLVs).Address()}, Pool: []string{`send_proxy = "v2"`},
		Listener: []string{tlsTable(ca.pairs("www"), `client_auth = "required"`, ca.fileKey("client_ca", "ca.crt"))}}.
		start(t)
	for i := range 2 {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: harness.Patience}, "tcp", b.Address(t, "main"),
			&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{shown}})
		check(t, err)
		check(t, c.SetDeadline(time.Now().Add(harness.Patience)))
		got, err := io.ReadAll(c)
		want := fmt.Sprintf("client %s\ntls true TLSv1.3 TLS_AES_128_GCM_SHA256\ncertificate true \"somebody\"\n",
			c.LocalAddr())
		if string(got) != want || err != nil {
			t.Errorf("got\n%s%v, want\n%s", got, err, want)
		}
		check(t, c.Close())
		awaitMetric(t, b, securedBy("main", "client", "kernel"), float64(i+1))
	}
}
