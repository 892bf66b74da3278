package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
)

const (
	// notifyTimeout is how long a message may wait for a manager that does not read: long enough for one that is busy
	// for a moment, and short enough for those that wait for the message.
	notifyTimeout = time.Second

	// maxStatusBytes bounds a status text. systemd drops messages of more than 4096 bytes (NOTIFY_BUFFER_MAX of its
	// manager.c), and people read one line.
	maxStatusBytes = 1024

	// drainTick is how often a drain is reported.
	drainTick = time.Second

	// drainExtension is the time that each report of a drain asks for. It is long enough for some reports to come late
	// on a busy machine, and short enough that a daemon that hangs is ended soon. It never shortens TimeoutStopSec=.
	drainExtension = 10 * time.Second
)

// A notifier reports the state of the daemon to the service manager, by sd_notify(3). Its zero value reports nothing.
// Its methods may be called from any goroutine.
//
// No method fails, or waits for longer than notifyTimeout, since a manager that cannot be reached must not disturb the
// sessions. The first lost message is logged.
//
// It only uses the library's clock and its reading of the watchdog's variables. The library's SdNotify writes without a
// deadline, so it would wait for as long as the manager hangs.
type notifier struct {
	// set once, then read-only
	log      zerolog.Logger
	write    func(message string) error // nil without a service manager
	watchdog time.Duration              // WatchdogSec=; 0 if there is none, or if it is not meant for this process

	lost sync.Once // done once the first lost message is logged
}

// newNotifier makes a notifier from the variables that the manager has set. It removes them from the environment, since
// they are not meant for the programs that checks run.
func newNotifier(log zerolog.Logger) *notifier {
	n := &notifier{log: log}
	socket := os.Getenv("NOTIFY_SOCKET")
	watchdog, err := systemd.SdWatchdogEnabled(true)
	_ = os.Unsetenv("NOTIFY_SOCKET") // a valid name: it cannot fail
	if socket == "" {
		return n
	}
	if err != nil {
		log.Warn().AnErr("err", err).Str("event", "watchdog_failed").Msg("watchdog not served")
	}
	n.watchdog = watchdog
	n.write = func(message string) error { return writeDatagram(socket, message) }
	return n
}

// writeDatagram sends one datagram to a Unix socket; "@" as the first character stands for the abstract namespace. It
// opens a socket each time, since messages are rare and the manager may have bound its socket again.
func writeDatagram(socket, message string) error {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(notifyTimeout)); err != nil {
		return err
	}
	_, err = c.Write([]byte(message))
	return err
}

// ready reports that the daemon serves, after its start and after each reload, whether that succeeded or not.
func (n *notifier) ready(status string) { n.send(systemd.SdNotifyReady, statusLine(status)) }

// reloading reports that a reload begins; ready reports its end.
func (n *notifier) reloading() {
	// With Type=notify-reload, the manager recognizes by the time that this answers its latest request.
	n.send(systemd.SdNotifyReloading, strings.TrimSuffix(systemd.SdNotifyMonotonicUsec(), "\n"),
		statusLine("reloading the configuration"))
}

// stopping reports that the daemon ends.
func (n *notifier) stopping(status string) { n.send(systemd.SdNotifyStopping, statusLine(status)) }

// keepAlive feeds the watchdog until ctx ends, at half of the watchdog's time. live reports whether the daemon is well,
// within the given time. After one failure live is asked again before the watchdog's time is over.
func (n *notifier) keepAlive(ctx context.Context, live func(within time.Duration) error) {
	if n.write == nil || n.watchdog <= 0 {
		return
	}
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
		if err := live(n.watchdog / 8); err != nil {
			n.log.Error().AnErr("err", err).
				Str("event", "watchdog_failed").Msg("watchdog not fed: the daemon does not answer itself")
			next.Reset(n.watchdog / 8)
			continue
		}
		n.send(systemd.SdNotifyWatchdog)
		next.Reset(n.watchdog / 2) // sd_watchdog_enabled(3)
	}
}

// reportDelay reports how long clients are still served before the drain, until ctx ends. It asks for more time as
// reportDrain does.
func (n *notifier) reportDelay(ctx context.Context, end time.Time) {
	n.report(ctx, func() string { return fmt.Sprintf("still serving, %d s until the drain", secondsUntil(end)) })
}

// reportDrain reports how many sessions a drain still waits for and how long it may last, until ctx ends. It asks for
// more time with each report, so that drain_timeout may be longer than TimeoutStopSec=.
func (n *notifier) reportDrain(ctx context.Context, sessions func() int, end time.Time) {
	n.report(ctx, func() string { return drainStatus(sessions(), secondsUntil(end)) })
}

// report sends a text and asks for more time at each tick, until ctx ends.
func (n *notifier) report(ctx context.Context, text func() string) {
	if n.write == nil {
		return
	}
	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	for {
		n.send(statusLine(text()), fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", drainExtension.Microseconds()))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// secondsUntil is rounded up, so that 0 is the end. It is never negative.
func secondsUntil(end time.Time) int {
	return int((max(time.Until(end), 0) + time.Second - 1) / time.Second)
}

// drainStatus returns the status text of a drain.
func drainStatus(sessions, seconds int) string {
	noun, they := "sessions", "they are"
	if sessions == 1 {
		noun, they = "session", "it is"
	}
	if sessions > 0 && seconds == 0 {
		return fmt.Sprintf("ending %d %s", sessions, noun)
	}
	return fmt.Sprintf("draining: %d %s left, %d s until %s ended", sessions, noun, seconds, they)
}

// send sends lines as one message.
func (n *notifier) send(lines ...string) {
	if n.write == nil {
		return
	}
	if err := n.write(strings.Join(lines, "\n")); err != nil {
		n.lost.Do(func() {
			n.log.Warn().AnErr("err", err).Str("event", "notify_failed").Msg("service manager not told")
		})
	}
}

// statusLine returns the assignment of a status: one line of valid UTF-8 (sd_notify(3)), cut to maxStatusBytes.
func statusLine(text string) string {
	text = strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
	if len(text) > maxStatusBytes {
		text = text[:maxStatusBytes]
	}
	return "STATUS=" + strings.ToValidUTF8(text, "")
}
