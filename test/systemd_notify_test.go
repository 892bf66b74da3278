package test

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// A serviceManager is systemd's end of the notify socket.
type serviceManager struct {
	messages chan map[string]string // what each message sets; closed by read
}

// listenAsManager listens on a notify socket, "@" for the abstract namespace, until the end of the test.
func listenAsManager(t *testing.T, socket string) *serviceManager {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	check(t, err)
	m := &serviceManager{messages: make(chan map[string]string, 1<<16)}
	done := make(chan struct{})
	go func() { defer close(done); m.read(c) }()
	t.Cleanup(func() { c.Close(); <-done })
	return m
}

func (m *serviceManager) read(c *net.UnixConn) {
	defer close(m.messages)
	for buf := make([]byte, 8192); ; {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		fields := map[string]string{}
		for line := range strings.Lines(string(buf[:n])) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			fields[name] = value
		}
		m.messages <- fields
	}
}

// wait waits for the first message from here on that sets name to a value of this pattern, and returns it.
func (m *serviceManager) wait(t *testing.T, name, pattern string) map[string]string {
	t.Helper()
	for {
		fields := harness.Receive(t, "a message with "+name+"="+pattern, m.messages)
		if value, is := fields[name]; is && regexp.MustCompile("^("+pattern+")$").MatchString(value) {
			return fields
		}
	}
}

// rest returns the messages so far that no wait has returned.
func (m *serviceManager) rest() []map[string]string {
	var messages []map[string]string
	for {
		select {
		case fields := <-m.messages:
			messages = append(messages, fields)
		default:
			return messages
		}
	}
}

// notifiedOptions says how to start a balancer as a service; Config must be set.
type notifiedOptions struct {
	Config string
	Binary string   // "": that of the test
	Socket string   // the notify socket; "": a path
	Env    []string // more of it
	Before []string // a program with arguments that executes the balancer
}

// A notified is a balancer that a service manager started.
type notified struct {
	*harness.Process
	*serviceManager
	file string // the configuration
}

// startNotified starts a balancer as systemd does, and does not wait until it is ready. It must end with exit code 0 on
// SIGTERM.
func startNotified(t *testing.T, o notifiedOptions) *notified {
	t.Helper()
	if o.Socket == "" {
		dir, err := os.MkdirTemp("", "limeload-") // t.TempDir may be longer than a socket's path can be
		check(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		o.Socket = filepath.Join(dir, "notify")
	}
	if o.Binary == "" {
		o.Binary = harness.Binary(t, false)
	}
	n := &notified{serviceManager: listenAsManager(t, o.Socket), file: filepath.Join(t.TempDir(), "lb.toml")}
	check(t, os.WriteFile(n.file, []byte(o.Config+"\n[admin]\naddress = \"\"\n"), 0o600))
	command := append(o.Before, o.Binary, "--config", n.file)
	n.Process = harness.Start(t, harness.Command{
		Path: command[0], Args: command[1:],
		Env: append([]string{"NOTIFY_SOCKET=" + o.Socket, "GORACE=atexit_sleep_ms=50"}, o.Env...),
	})
	t.Cleanup(func() {
		select {
		case <-n.Done():
		default:
			n.Signal(t, syscall.SIGINT)
			if code := n.Wait(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
		}
	})
	return n
}

// ready waits until the balancer says that it serves.
func (n *notified) ready(t *testing.T) map[string]string {
	t.Helper()
	return n.wait(t, "READY", "1")
}

func TestNotifyReady(t *testing.T) {
	t.Parallel()
	for name, socket := range map[string]string{"path": "", "abstract": "@limeload-" + strconv.Itoa(os.Getpid()) +
		"-ready"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := harness.Serve(t, harness.Echo)
			w := world{Listen: harness.FreeAddress(t), Backends: []string{backend.Address()}}
			n := startNotified(t, notifiedOptions{Config: w.config(t), Socket: socket})
			if fields := n.ready(t); fields["STATUS"] == "" {
				t.Errorf("READY=1 came without a STATUS: %v", fields)
			}
			served(t, w.Listen) // it is true
			n.Signal(t, syscall.SIGTERM)
			n.wait(t, "STOPPING", "1")
			endsNotified(t, n)
		})
	}
}

// TestNotifyNotReady holds that a balancer which cannot start does not say that it has.
func TestNotifyNotReady(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer taken.Close()
	w := world{Listen: taken.Addr().String(), Backends: []string{taken.Addr().String()}}
	n := startNotified(t, notifiedOptions{Config: w.config(t)})
	if code := n.Wait(t); code != 1 {
		t.Errorf("exit code %d, expected 1", code)
	}
	for _, fields := range n.rest() {
		if _, is := fields["READY"]; is {
			t.Errorf("it said %v", fields)
		}
	}
}

func TestNotifyDrain(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.Echo)
	w := world{Listen: harness.FreeAddress(t), Backends: []string{backend.Address()},
		Global: []string{`drain_timeout = "1h"`}}
	n := startNotified(t, notifiedOptions{Config: w.config(t)})
	n.ready(t)
	c := harness.Dial(t, w.Listen)
	check(t, harness.PingPong(c, 1, 1))
	n.Signal(t, syscall.SIGTERM)
	n.wait(t, "STOPPING", "1")
	// twice: the messages continue, and each asks for more time than until the next
	for range 2 {
		fields := n.wait(t, "STATUS", `draining: 1 session left, 3[56][0-9][0-9] s until it is ended`)
		if usec, err := strconv.Atoi(fields["EXTEND_TIMEOUT_USEC"]); err != nil || usec < 2_000_000 {
			t.Errorf("a drain of an hour must ask for more time: %v", fields)
		}
	}
	check(t, c.Close())
	endsNotified(t, n)
}

// served runs one session through the balancer, from its start to its end.
func served(t *testing.T, address string) {
	t.Helper()
	c := harness.Dial(t, address)
	check(t, harness.PingPong(c, 1, 1))
	check(t, c.Close())
}

func endsNotified(t *testing.T, n *notified) {
	t.Helper()
	if code := n.Wait(t); code != 0 {
		t.Errorf("exit code %d, expected 0", code)
	}
}

func TestNotifyReload(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.Echo)
	w := world{Listen: harness.FreeAddress(t), Backends: []string{backend.Address()}}
	n := startNotified(t, notifiedOptions{Config: w.config(t)})
	n.ready(t)
	reload := func() (after map[string]string) {
		t.Helper()
		n.Signal(t, syscall.SIGHUP)
		begin := n.wait(t, "RELOADING", "1")
		if !regexp.MustCompile(`^[1-9][0-9]*$`).MatchString(begin["MONOTONIC_USEC"]) {
			t.Errorf("RELOADING=1 came without its time: %v", begin)
		}
		return n.ready(t)
	}
	good := reload()
	check(t, os.WriteFile(n.file, []byte("[listener.main]\n"), 0o600))
	bad := reload()
	if bad["STATUS"] == "" || bad["STATUS"] == good["STATUS"] {
		t.Errorf("after a reload that failed the status is %q, after a good one %q", bad["STATUS"], good["STATUS"])
	}
	served(t, w.Listen)
	n.Signal(t, syscall.SIGTERM)
	endsNotified(t, n)
}

func TestNotifyWatchdog(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.Echo)
	config := func() string { return world{Backends: []string{backend.Address()}}.config(t) }
	t.Run("fed, also while it drains", func(t *testing.T) {
		t.Parallel()
		w := world{Listen: harness.FreeAddress(t), Backends: []string{backend.Address()},
			Global: []string{`drain_timeout = "1h"`}}
		n := startNotified(t, notifiedOptions{Config: w.config(t), Env: []string{"WATCHDOG_USEC=2000000"}})
		n.ready(t)
		for range 3 {
			n.wait(t, "WATCHDOG", "1")
		}
		c := harness.Dial(t, w.Listen)
		check(t, harness.PingPong(c, 1, 1))
		n.Signal(t, syscall.SIGTERM)
		n.wait(t, "STOPPING", "1")
		for range 2 {
			n.wait(t, "WATCHDOG", "1")
		}
		check(t, c.Close())
		endsNotified(t, n)
	})
	t.Run("of another process", func(t *testing.T) {
		t.Parallel()
		n := startNotified(t, notifiedOptions{Config: config(), Env: []string{"WATCHDOG_USEC=1000", "WATCHDOG_PID=1"}})
		n.ready(t)
		n.Signal(t, syscall.SIGTERM)
		endsNotified(t, n)
		for _, fields := range n.rest() {
			if _, is := fields["WATCHDOG"]; is {
				t.Errorf("it feeds the watchdog of process 1: %v", fields)
			}
		}
	})
}

// TestNotifyManagerGone holds that a balancer serves even if its service manager does not listen.
func TestNotifyManagerGone(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.Echo)
	w := world{Listen: harness.FreeAddress(t), Backends: []string{backend.Address()}}
	n := startNotified(t, notifiedOptions{Config: w.config(t), Env: []string{"NOTIFY_SOCKET=/nowhere/notify",
		"WATCHDOG_USEC=100000"}})
	line := n.WaitStderr(t, "service manager not told")
	if !strings.Contains(line, `"level":"warn"`) {
		t.Errorf("logged %s", line)
	}
	n.WaitStderr(t, `"message":"ready"`)
	served(t, w.Listen)
	n.Signal(t, syscall.SIGTERM)
	endsNotified(t, n)
	if times := strings.Count(n.Stderr(), "service manager not told"); times != 1 {
		t.Errorf("logged %d times, expected once", times)
	}
}
