package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

// A manager is the service manager's end of the notify socket.
type manager struct{ conn *net.UnixConn }

// listenAsManager listens on a notify socket, and sets the variables as systemd does.
func listenAsManager(t *testing.T, name string) manager {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return manager{c}
}

// read returns the next message.
func (m manager) read(t *testing.T) string {
	t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8192)
	n, err := m.conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// noWatchdog removes the watchdog of whoever runs the tests from the environment.
func noWatchdog(t *testing.T) {
	t.Helper()
	t.Setenv("WATCHDOG_USEC", "")
	t.Setenv("WATCHDOG_PID", "")
}

func TestNotifierSpeaks(t *testing.T) {
	for name, socket := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": "@limeload-notify-" + strconv.Itoa(os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			noWatchdog(t)
			m := listenAsManager(t, socket)
			var log bytes.Buffer
			n := newNotifier(zerolog.New(&log))
			for _, step := range []struct {
				do   func()
				want string // a pattern of the whole message
			}{
				{func() { n.ready("serving 2 listeners") }, `READY=1\nSTATUS=serving 2 listeners`},
				{n.reloading, `RELOADING=1\nMONOTONIC_USEC=[0-9]+\nSTATUS=reloading the configuration`},
				{func() { n.send(statusLine("one\ntwo\n")) }, `STATUS=one; two`},
				{func() { n.stopping("draining") }, `STOPPING=1\nSTATUS=draining`},
			} {
				step.do()
				if got := m.read(t); !regexp.MustCompile("^" + step.want + "$").MatchString(got) {
					t.Errorf("the manager was told %q, want %s", got, step.want)
				}
			}
			if log.Len() > 0 {
				t.Errorf("logged %s", &log)
			}
			if left, set := os.LookupEnv("NOTIFY_SOCKET"); set {
				t.Errorf("NOTIFY_SOCKET is left in the environment: %q", left)
			}
		})
	}
}

// uptime is the time since boot without the time asleep, as precisely as /proc has it.
func uptime(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	seconds, err := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(seconds * float64(time.Second))
}

// TestReloadingHasItsTime: the time is that of the monotonic clock in microseconds. With another one, systemd waits for
// a notify-reload service until the timeout.
func TestReloadingHasItsTime(t *testing.T) {
	noWatchdog(t)
	m := listenAsManager(t, filepath.Join(t.TempDir(), "notify"))
	n := newNotifier(zerolog.Nop())
	n.reloading()
	first := monotonic(t, m.read(t))
	n.reloading()
	second := monotonic(t, m.read(t))
	if second <= first {
		t.Errorf("the clock went from %d to %d", first, second)
	}
	// /proc/uptime is CLOCK_BOOTTIME. It also counts the time asleep, which may be days
	if up := uptime(t).Microseconds(); second > up+int64(time.Second/time.Microsecond) || second < 1000 {
		t.Errorf("MONOTONIC_USEC is %d, and the machine is up for %d us", second, up)
	}
}

func monotonic(t *testing.T, message string) int64 {
	t.Helper()
	match := regexp.MustCompile(`MONOTONIC_USEC=([0-9]+)`).FindStringSubmatch(message)
	if match == nil {
		t.Fatalf("no time in %q", message)
	}
	usec, err := strconv.ParseInt(match[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return usec
}

// TestStatusFits: no text makes a message that systemd drops.
func TestStatusFits(t *testing.T) {
	for _, text := range []string{
		"", "fine", strings.Repeat("é", maxStatusBytes), "a" + strings.Repeat("é", maxStatusBytes),
		strings.Repeat("line\n", 2000), "bad \xff byte",
	} {
		got := statusLine(text)
		if len(got) > len("STATUS=")+maxStatusBytes || !utf8.ValidString(got) || strings.Contains(got, "\n") {
			t.Errorf("%.40q: %d bytes, valid UTF-8 %v: %.40q", text, len(got), utf8.ValidString(got), got)
		}
	}
}

// TestNotifierWithoutManager: nothing happens without a manager.
func TestNotifierWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "1000")
	t.Setenv("WATCHDOG_PID", "")
	var log bytes.Buffer
	for name, n := range map[string]*notifier{"zero value": {}, "no socket": newNotifier(zerolog.New(&log))} {
		n.ready("")
		n.reloading()
		n.stopping("")
		n.send(statusLine(""))
		// they must return although their contexts do not end
		n.keepAlive(t.Context(),
			func(time.Duration) error { t.Errorf("%s: asked for a sign of life", name); return nil })
		n.reportDelay(t.Context(), time.Now())
		n.reportDrain(t.Context(), func() int { t.Errorf("%s: asked for sessions", name); return 0 }, time.Now())
	}
	if log.Len() > 0 {
		t.Errorf("logged %s", &log)
	}
}

// TestLostMessages: a manager that is gone, or that reads nothing, costs one line and no more than notifyTimeout.
func TestLostMessages(t *testing.T) {
	t.Run("gone", func(t *testing.T) {
		noWatchdog(t)
		t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
		var log bytes.Buffer
		n := newNotifier(zerolog.New(&log))
		n.ready("one")
		n.ready("two")
		if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), `"level":"warn"`) {
			t.Errorf("%d lines: %s", lines, &log)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		noWatchdog(t)
		m := listenAsManager(t, filepath.Join(t.TempDir(), "notify"))
		var log bytes.Buffer
		n := newNotifier(zerolog.New(&log))
		sent := 0
		for ; log.Len() == 0; sent++ { // until the queue of the socket is full
			n.send(statusLine(strconv.Itoa(sent)))
		}
		if !strings.Contains(log.String(), "i/o timeout") {
			t.Errorf("logged %s", &log)
		}
		for i := range sent - 1 { // the messages before are complete, and in order
			if got := m.read(t); got != "STATUS="+strconv.Itoa(i) {
				t.Fatalf("message %d is %q", i, got)
			}
		}
		n.ready("again") // once it reads again, it gets messages again
		if got := m.read(t); got != "READY=1\nSTATUS=again" {
			t.Errorf("got %q", got)
		}
	})
}

func TestWatchdogVariables(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for _, test := range []struct {
		usec, pid string
		want      time.Duration
		warns     bool
	}{
		{"30000000", self, 30 * time.Second, false},
		{"30000000", "", 30 * time.Second, false},
		{"30000000", "1", 0, false}, // meant for another process
		{"", self, 0, false},
		{"soon", self, 0, true},
		{"0", self, 0, true},
	} {
		t.Run(fmt.Sprintf("%q for %q", test.usec, test.pid), func(t *testing.T) {
			t.Setenv("NOTIFY_SOCKET", "/nowhere")
			t.Setenv("WATCHDOG_USEC", test.usec)
			t.Setenv("WATCHDOG_PID", test.pid)
			var log bytes.Buffer
			n := newNotifier(zerolog.New(&log))
			if n.watchdog != test.want || (log.Len() > 0) != test.warns {
				t.Errorf("watchdog %v, logged %q", n.watchdog, &log)
			}
			for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
				if left, set := os.LookupEnv(name); set {
					t.Errorf("%s=%s is left in the environment", name, left)
				}
			}
		})
	}
}

// A said is a message and when it was sent.
type said struct {
	after   time.Duration
	message string
}

// recorded makes a notifier that appends its messages to a list, with the time since the call.
func recorded(watchdog time.Duration) (*notifier, *[]said) {
	start, list := time.Now(), new([]said)
	n := &notifier{watchdog: watchdog, write: func(message string) error {
		*list = append(*list, said{time.Since(start), message})
		return nil
	}}
	return n, list
}

func TestKeepAlive(t *testing.T) {
	const period = 8 * time.Second
	for _, test := range []struct {
		name string
		live func(asked int, within time.Duration) error
		want []time.Duration // when it is fed
	}{
		{"well", func(int, time.Duration) error { return nil },
			[]time.Duration{0, 4 * time.Second, 8 * time.Second, 12 * time.Second}},
		{"one bad answer", func(asked int, _ time.Duration) error {
			if asked == 1 {
				return errors.New("loop 1 does not turn")
			}
			return nil
		}, []time.Duration{0, 5 * time.Second, 9 * time.Second, 13 * time.Second}},
		{"one that does not answer in its time", func(asked int, within time.Duration) error {
			if asked == 1 {
				time.Sleep(within)
				return errors.New("loop 1 does not turn")
			}
			return nil
		}, []time.Duration{0, 6 * time.Second, 10 * time.Second, 14 * time.Second}},
		{"ill", func(asked int, _ time.Duration) error {
			if asked > 0 {
				return errors.New("loop 1 does not turn")
			}
			return nil
		}, []time.Duration{0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, list := recorded(period)
				ctx, cancel := context.WithTimeout(t.Context(), 2*period-time.Millisecond)
				defer cancel()
				asked := 0
				n.keepAlive(ctx, func(within time.Duration) error {
					asked++
					return test.live(asked-1, within)
				})
				var fed []time.Duration
				for _, s := range *list {
					if s.message != "WATCHDOG=1" {
						t.Errorf("said %q", s.message)
					}
					fed = append(fed, s.after)
				}
				if !slices.Equal(fed, test.want) {
					t.Errorf("fed after %v, want %v", fed, test.want)
				}
			})
		})
	}
}

func TestReportDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, list := recorded(0)
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		left := []int{3, 1, 1, 2}
		asked := 0
		n.reportDrain(ctx, func() int { asked++; return left[asked-1] }, time.Now().Add(2500*time.Millisecond))
		const extend = "\nEXTEND_TIMEOUT_USEC=10000000"
		want := []said{
			{0, "STATUS=draining: 3 sessions left, 3 s until they are ended" + extend},
			{time.Second, "STATUS=draining: 1 session left, 2 s until it is ended" + extend},
			{2 * time.Second, "STATUS=draining: 1 session left, 1 s until it is ended" + extend},
			{3 * time.Second, "STATUS=ending 2 sessions" + extend},
		}
		if !slices.Equal(*list, want) {
			t.Errorf("said %+v, want %+v", *list, want)
		}
	})
}

func TestReportDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, list := recorded(0)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		n.reportDelay(ctx, time.Now().Add(time.Hour))
		want := []said{
			{0, "STATUS=still serving, 3600 s until the drain\nEXTEND_TIMEOUT_USEC=10000000"},
			{time.Second, "STATUS=still serving, 3599 s until the drain\nEXTEND_TIMEOUT_USEC=10000000"},
		}
		if !slices.Equal(*list, want) {
			t.Errorf("said %+v, want %+v", *list, want)
		}
	})
}

// TestNotifierOfTwoProcesses holds what both processes of an upgrade report: the old one names the new one and is silent
// from then on, the new one is silent before that.
func TestNotifierOfTwoProcesses(t *testing.T) {
	old, oldSaid := recorded(4 * time.Second)
	old.socket = "/run/systemd/notify"
	if got := old.environment(); !slices.Equal(got, []string{"NOTIFY_SOCKET=/run/systemd/notify", "WATCHDOG_USEC=4000000"}) {
		t.Errorf("the new process gets %q", got)
	}
	old.pass(4711)
	old.ready("serving")
	old.stopping("shutting down")
	if len(*oldSaid) != 1 || (*oldSaid)[0].message != "MAINPID=4711" {
		t.Errorf("the old process says %v", *oldSaid)
	}
	next, nextSaid := recorded(4 * time.Second)
	next.muted.Store(true)
	next.ready("serving")
	next.take()
	next.ready("serving")
	if len(*nextSaid) != 2 || (*nextSaid)[0].message != "WATCHDOG=1" || (*nextSaid)[1].message != "READY=1\nSTATUS=serving" {
		t.Errorf("the new process says %v", *nextSaid)
	}
	if got := (&notifier{}).environment(); got != nil {
		t.Errorf("without a manager the new process gets %q", got)
	}
}
