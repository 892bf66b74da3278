package test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// An upgrading is a balancer that is upgraded: its process changes. Its log is a file, since all processes write to it.
type upgrading struct {
	t       testing.TB
	dir     string
	program string // where it is started from: a link, so that a test can put another program there
	file    string // the configuration
	log     string
	first   *harness.Process
	pids    []int // of all processes so far
	client  *http.Client
}

// startUpgrading starts a balancer, and waits until it serves. measured is for harness.Binary.
func startUpgrading(t testing.TB, config string, measured bool, env ...string) *upgrading {
	t.Helper()
	dir, err := os.MkdirTemp("", "limeload-") // t.TempDir may be longer than a socket's path can be
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	u := &upgrading{
		t: t, dir: dir, program: filepath.Join(dir, "limeload-l4"), file: filepath.Join(dir, "lb.toml"),
		log: filepath.Join(dir, "log"),
	}
	u.client = &http.Client{Timeout: harness.Patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "admin.sock"))
		}}}
	u.install(harness.Binary(t, measured))
	u.configure(config)
	u.first = harness.Start(t, harness.Command{
		Path: "/bin/sh", Args: []string{"-c", `exec "$0" "$@" >"$LOG" 2>&1`, u.program, "--config", u.file},
		Env: append([]string{"LOG=" + u.log, "GORACE=atexit_sleep_ms=50"}, env...),
	})
	t.Cleanup(u.end)
	harness.Eventually(t, "the balancer serves", func() error { return u.try("GET", "/ready", nil, nil) })
	u.pids = []int{u.pid()}
	return u
}

// install makes the program another one.
func (u *upgrading) install(path string) {
	u.t.Helper()
	check(u.t, os.Symlink(path, u.program+".next"))
	check(u.t, os.Rename(u.program+".next", u.program))
}

// configure writes the configuration.
func (u *upgrading) configure(config string) {
	u.t.Helper()
	check(u.t, os.WriteFile(u.file, []byte(config+"\n[admin]\naddress = \"unix:admin.sock\"\n"), 0o600))
}

// try asks the API, and decodes the answer into into unless that is nil.
func (u *upgrading) try(method, path string, body, into any) error {
	var text io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		text = bytes.NewReader(encoded)
	}
	request, err := http.NewRequest(method, "http://limeload"+path, text)
	if err != nil {
		return err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := u.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode/100 != 2:
		return fmt.Errorf("%s %s: %d %s", method, path, response.StatusCode, answer)
	case into == nil:
		return nil
	}
	return json.Unmarshal(answer, into)
}

// pid returns the process that answers at the admin socket.
func (u *upgrading) pid() int {
	u.t.Helper()
	var status struct{ PID int }
	check(u.t, u.try("GET", "/v1/status", nil, &status))
	return status.PID
}

// command runs a command of the program as it was at first, as an operator does.
func (u *upgrading) command(args ...string) (stdout, stderr string, code int) {
	u.t.Helper()
	return harness.Run(u.t, harness.Command{
		Path: harness.Binary(u.t, false), Args: append(args, "--admin", "unix:"+filepath.Join(u.dir, "admin.sock")),
		Env: []string{"GORACE=atexit_sleep_ms=50"},
	})
}

// An upgraded is the answer about an upgrade.
type upgraded struct {
	OldPID   int            `json:"old_pid"`
	NewPID   int            `json:"new_pid"`
	Sessions int            `json:"sessions"`
	Flows    int            `json:"flows"`
	Left     map[string]int `json:"left"`
	Took     float64        `json:"took_seconds"`
}

// upgrade has a new process take over, and checks that it has.
func (u *upgrading) upgrade() (done upgraded) {
	u.t.Helper()
	check(u.t, u.try("POST", "/v1/upgrade", nil, &done))
	if now := u.pid(); now != done.NewPID || slices.Contains(u.pids, now) {
		u.t.Fatalf("process %d answers after %+v, and there were %v", now, done, u.pids)
	}
	u.pids = append(u.pids, done.NewPID)
	return done
}

// isGone reports whether a process has ended. Its parent may not have asked for its status.
func isGone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

// awaitGone waits until a process has ended.
func awaitGone(t testing.TB, pid int) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("process %d ends", pid), func() error {
		if !isGone(pid) {
			return errors.New("it runs")
		}
		return nil
	})
}

// end ends all processes there were, and shows the log of a test that has failed.
func (u *upgrading) end() {
	for _, pid := range u.pids {
		if !isGone(pid) {
			_ = syscall.Kill(pid, syscall.SIGINT) // it may have ended
		}
	}
	for _, pid := range u.pids {
		awaitGone(u.t, pid)
	}
	if log, err := os.ReadFile(u.log); err == nil && u.t.Failed() {
		u.t.Logf("the log:\n%s", log)
	}
}

// descriptorsOf returns how many descriptors a process has open, but for pipes: those that transfers have used are kept
// for a while.
func descriptorsOf(t testing.TB, pid int) (n int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range entries {
		if name, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && !strings.HasPrefix(name, "pipe:") {
			n++
		}
	}
	return n
}

// memoryOf returns the own resident memory of a process.
func memoryOf(t testing.TB, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	var kib int64
	_, err = fmt.Sscanf(rest, "%d kB", &kib)
	check(t, err)
	return kib << 10
}

// counted returns what listeners and backends have counted, by names. The numbers only grow.
func (u *upgrading) counted() map[string]uint64 {
	u.t.Helper()
	all := make(map[string]uint64)
	var listeners struct {
		Listeners []struct {
			Name, Protocol string
			Accepted       uint64
			BytesIn        uint64 `json:"bytes_in"`
			BytesOut       uint64 `json:"bytes_out"`
			DatagramsIn    uint64 `json:"datagrams_in"`
			Ended          map[string]uint64
		}
	}
	check(u.t, u.try("GET", "/v1/listeners", nil, &listeners))
	for _, l := range listeners.Listeners {
		name := l.Name + "/" + l.Protocol + " "
		all[name+"accepted"], all[name+"bytes in"], all[name+"bytes out"] = l.Accepted, l.BytesIn, l.BytesOut
		all[name+"datagrams in"] = l.DatagramsIn
		for why, n := range l.Ended {
			all[name+why] = n
		}
	}
	var backends struct {
		Backends []struct {
			Pool, Name string
			BytesIn    uint64 `json:"bytes_in"`
			BytesOut   uint64 `json:"bytes_out"`
			Outcomes   map[string]uint64
		}
	}
	check(u.t, u.try("GET", "/v1/backends", nil, &backends))
	for _, b := range backends.Backends {
		name := b.Pool + "/" + b.Name + " "
		all[name+"bytes in"], all[name+"bytes out"] = b.BytesIn, b.BytesOut
		for what, n := range b.Outcomes {
			all[name+what] = n
		}
	}
	return all
}

// A stream is a session that sends without a pause, in both directions, until it is told to stop.
type stream struct {
	stop       context.CancelFunc
	done       chan error
	sent, back int64
}

// newStream begins a stream of at least so many bytes to an echo server.
func newStream(t testing.TB, address string, least int64) *stream {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	s := &stream{stop: stop, done: make(chan error, 1)}
	t.Cleanup(stop)
	c := harness.Dial(t, address)
	check(t, c.SetDeadline(time.Time{}))
	go func() { s.done <- s.run(ctx, c, least) }()
	return s
}

func (s *stream) run(ctx context.Context, c *net.TCPConn, least int64) error {
	out, in := sha256.New(), sha256.New()
	var writing sync.WaitGroup
	var failed error
	writing.Go(func() {
		chunk := make([]byte, 64<<10)
		for n := uint64(0); ctx.Err() == nil || s.sent < least; n++ {
			for i := range 8 {
				chunk[i] = byte(n >> (8 * i))
			}
			out.Write(chunk)
			s.sent += int64(len(chunk))
			if _, failed = c.Write(chunk); failed != nil {
				return
			}
		}
		failed = c.CloseWrite()
	})
	var err error
	s.back, err = io.CopyBuffer(in, struct{ io.Reader }{c}, make([]byte, 256<<10))
	writing.Wait()
	switch {
	case errors.Join(err, failed) != nil:
		return errors.Join(err, failed)
	case s.back != s.sent || !bytes.Equal(in.Sum(nil), out.Sum(nil)):
		return fmt.Errorf("%d bytes came back of %d, or others", s.back, s.sent)
	}
	return nil
}

// end ends the stream, and checks that every byte has come back.
func (s *stream) end(t testing.TB) {
	t.Helper()
	s.stop()
	if err := harness.Receive(t, "the end of a transfer", s.done); err != nil {
		t.Errorf("a transfer: %v", err)
	}
}

// connectAll runs redis-benchmark with a connection for each request until it is told to stop, again and again. Any
// connect that fails ends it with an error.
func connectAll(t testing.TB, address string) (stop func() (requests int)) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	check(t, err)
	path := harness.Tool(t, "redis-benchmark")
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	const each = 500
	requests := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil && !t.Failed() {
			text, err := exec.Command(path, "-h", host, "-p", port, "-c", "5", "-t", "get", "-k", "0",
				"-n", strconv.Itoa(each), "--csv").CombinedOutput()
			out := string(text)
			if err != nil || strings.Contains(strings.ToLower(out), "error") || !strings.Contains(out, `"GET"`) {
				t.Errorf("redis-benchmark: %v\n%s", err, out)
				return
			}
			requests += each
		}
	}()
	return func() int {
		cancel()
		<-done
		return requests
	}
}

// TestUpgrade upgrades ten times in a row, with sessions and flows of all kinds, and under new connections.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	const upgrades, sessions, flows = 10, 40, 20
	redis := harness.StartRedis(t)
	echo := []string{harness.Serve(t, harness.Echo).Address(), harness.Serve(t, harness.Echo).Address()}
	datagrams := harness.ServeUDP(t, harness.EchoDatagrams)
	echoAt, redisAt, udpAt := harness.FreeAddress(t), harness.FreeAddress(t), harness.FreeAddress(t)
	u := startUpgrading(t, fmt.Sprintf(`[log]
access = false
[listener.echo]
address = %q
pool = "echo"
[listener.redis]
address = %q
pool = "redis"
[listener.udp]
address = %q
protocol = "udp"
pool = "udp"
[pool.echo]
backends = %s
[pool.redis]
backends = %s
[pool.redis.health]
type = "redis"
[pool.udp]
backends = %s
`, echoAt, redisAt, udpAt, harness.BackendList(echo...), harness.BackendList(redis.Address),
		harness.BackendList(datagrams.Address())), false)

	var kept []net.Conn
	for range sessions {
		kept = append(kept, harness.Dial(t, echoAt))
	}
	var clients []net.Conn
	for range flows {
		clients = append(clients, harness.DialUDP(t, udpAt))
	}
	all := func() {
		t.Helper()
		for i, c := range kept {
			if err := harness.PingPong(c, 1, 100); err != nil {
				t.Fatalf("session %d of %d: %v", i, sessions, err)
			}
		}
		for i, c := range clients {
			if answer, err := harness.AskUDP(c, []byte("datagram")); err != nil || string(answer) != "datagram" {
				t.Fatalf("flow %d of %d: %q, %v", i, flows, answer, err)
			}
		}
	}
	all()
	descriptors, memory := descriptorsOf(t, u.pids[0]), memoryOf(t, u.pids[0])
	busy := newStream(t, echoAt, 0)
	stop := connectAll(t, redisAt)
	before := u.counted()
	for round := range upgrades {
		done := u.upgrade()
		all()
		if done.Flows != flows || done.Sessions < sessions {
			t.Errorf("upgrade %d: %+v", round, done)
		}
		now := u.counted()
		for name, n := range before {
			if now[name] < n {
				t.Errorf("upgrade %d: %s was %d, and is %d", round, name, n, now[name])
			}
		}
		before = now
	}
	busy.end(t)
	requests := stop()
	t.Logf("%d requests with a connection each, and a transfer of %d MiB", requests, busy.sent>>20)
	for _, pid := range u.pids[:upgrades] {
		awaitGone(t, pid)
	}
	if code := u.first.Wait(t); code != 0 {
		t.Errorf("the first process ended with exit code %d", code)
	}
	if n := len(datagrams.Sources()); n != flows {
		t.Errorf("the UDP backend has had %d flows, want %d", n, flows)
	}
	harness.Eventually(t, "what was counted is right", func() error {
		now := u.counted()
		if n := now["echo/tcp accepted"]; n != sessions+1 {
			return fmt.Errorf("%d sessions were accepted at the listener, want %d", n, sessions+1)
		}
		want := uint64(busy.sent + sessions*(upgrades+1)*100)
		if n := now["echo/b1 bytes in"] + now["echo/b2 bytes in"]; n != want {
			return fmt.Errorf("%d bytes went to the backends, want %d", n, want)
		}
		if n := now["udp/udp datagrams in"]; n != flows*(upgrades+1) {
			return fmt.Errorf("%d datagrams came, want %d", n, flows*(upgrades+1))
		}
		return nil
	})
	last := u.pids[upgrades]
	harness.Eventually(t, "descriptors are those of the start", func() error {
		if n := descriptorsOf(t, last); n > descriptors {
			return fmt.Errorf("%d are open, and %d were at the start", n, descriptors)
		}
		return nil
	})
	t.Logf("memory: %d KiB at the start, %d KiB at the end", memory>>10, memoryOf(t, last)>>10)
}

// TestUpgradeFails has upgrades that fail, and what the command says about them. The process goes on with its sessions.
func TestUpgradeFails(t *testing.T) {
	t.Parallel()
	echo := harness.Serve(t, harness.Echo)
	address := harness.FreeAddress(t)
	config := fmt.Sprintf("[global]\nstate_file = \"state.json\"\n[listener.echo]\naddress = %q\npool = \"echo\"\n"+
		"[pool.echo]\nbackends = %s\n", address, harness.BackendList(echo.Address()))
	u := startUpgrading(t, config, false)
	c := harness.Dial(t, address)
	script := func(name, text string) string {
		path := filepath.Join(u.dir, name)
		check(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700))
		return path
	}
	for _, tt := range []struct {
		program, config string
		args            []string
		want            string
	}{
		{"", config + "bogus = 1\n", nil, "lb.toml:8: pool.echo.bogus: unknown key"},
		{script("exits", "exit 3"), config, nil,
			"the new process PID ended before it took over: exit status 3; its messages are in the log; " +
				"the old process goes on as before"},
		{script("hangs", "exec sleep 1000"), config, []string{"--deadline", "1s"},
			"the new process PID did not take over within 1s, and was killed; the old process goes on as before"},
		{filepath.Join(u.dir, "none"), config, nil, "no such file or directory; the old process goes on as before"},
	} {
		if tt.program != "" {
			u.install(tt.program)
		}
		u.configure(tt.config)
		stdout, stderr, code := u.command(append([]string{"upgrade"}, tt.args...)...)
		message := regexp.MustCompile(`process \d+`).ReplaceAllString(stderr, "process PID")
		if code != 1 || stdout != "" || !strings.Contains(message, tt.want) {
			t.Errorf("exit code %d\n%s%s; want %s", code, stdout, message, tt.want)
		}
		if u.pid() != u.pids[0] {
			t.Fatal("another process answers")
		}
		check(t, harness.PingPong(c, 1, 100))
		another := harness.Dial(t, address)
		check(t, harness.PingPong(another, 1, 100))
		check(t, another.Close())
	}
	harness.Eventually(t, "one session is left", func() error {
		var status struct{ Sessions int }
		if err := u.try("GET", "/v1/status", nil, &status); err != nil || status.Sessions != 1 {
			return fmt.Errorf("%d sessions: %w", status.Sessions, err)
		}
		return nil
	})
	// and then one that succeeds, with the run-time changes
	u.install(harness.Binary(t, false))
	check(t, u.try("PATCH", "/v1/pools/echo/backends/b1", map[string]any{"weight": 7}, nil))
	stdout, stderr, code := u.command("upgrade")
	u.pids = append(u.pids, u.pid())
	if want := fmt.Sprintf("(pid %d) to ", u.pids[0]); code != 0 || !strings.Contains(stdout, want) ||
		!strings.Contains(stdout, fmt.Sprintf("(pid %d) in ", u.pids[1])) ||
		!strings.Contains(stdout, "1 session and 0 flows went over") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	check(t, harness.PingPong(c, 1, 100))
	check(t, u.try("PATCH", "/v1/pools/echo/backends/b1", map[string]any{"max_sessions": 70}, nil))
	awaitGone(t, u.pids[0])
	state, err := os.ReadFile(filepath.Join(u.dir, "state.json"))
	if err != nil || !strings.Contains(string(state), `"weight": 7`) || !strings.Contains(string(state), `"max_sessions": 70`) {
		t.Errorf("the state file is %s: %v", state, err)
	}
	check(t, syscall.Kill(u.pids[1], syscall.SIGTERM))
	check(t, c.Close())
	awaitGone(t, u.pids[1])
	if _, err := os.Lstat(filepath.Join(u.dir, "admin.sock")); err == nil {
		t.Error("the admin socket's file is left")
	}
}

// TestUpgradeNotifies holds what systemd hears at an upgrade, and from which process: the old one names the new one,
// and then the new one says that it serves, and feeds the watchdog.
func TestUpgradeNotifies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := "@limeload-" + filepath.Base(filepath.Dir(dir)) + "-upgrade"
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	check(t, err)
	raw, err := c.SyscallConn()
	check(t, err)
	check(t, raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1)
	}))
	check(t, err)
	type message struct {
		pid  int
		text string
	}
	messages := make(chan message, 1<<10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		text, control := make([]byte, 8192), make([]byte, 256)
		for {
			n, size, _, _, err := c.ReadMsgUnix(text, control)
			if err != nil {
				return
			}
			m := message{text: string(text[:n])}
			if all, err := syscall.ParseSocketControlMessage(control[:size]); err == nil && len(all) == 1 {
				if from, err := syscall.ParseUnixCredentials(&all[0]); err == nil {
					m.pid = int(from.Pid)
				}
			}
			messages <- m
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	echo := harness.Serve(t, harness.Echo)
	u := startUpgrading(t, fmt.Sprintf("[listener.echo]\naddress = %q\npool = \"echo\"\n[pool.echo]\nbackends = %s\n",
		harness.FreeAddress(t), harness.BackendList(echo.Address())), false,
		"NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=600000000")
	u.upgrade()
	u.upgrade()
	// a service manager waits only for the end of a main process that is its child
	for _, pid := range u.pids[1:] {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil || !strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", os.Getpid())) {
			t.Errorf("process %d is not a child of the manager, %v:\n%s", pid, err, status)
		}
	}
	awaitGone(t, u.pids[0])
	awaitGone(t, u.pids[1])
	var got []string
	for number := 0; number < 3+3+1; { // those that are not the watchdog's
		m := harness.Receive(t, "a message", messages)
		process := slices.Index(u.pids, m.pid)
		for name := range strings.SplitSeq(m.text, "\n") {
			if strings.HasPrefix(name, "STATUS=") {
				name, _, _ = strings.Cut(name, ":")
			}
			next := fmt.Sprintf("%d %s", process, strings.ReplaceAll(name, fmt.Sprint(u.pids[min(process+1, 2)]), "PID"))
			if name != "WATCHDOG=1" || !slices.Contains(got, next) { // it may be fed for its time, too
				got = append(got, next)
			}
		}
		if !strings.HasPrefix(m.text, "WATCHDOG") {
			number++
		}
	}
	want := []string{
		"0 WATCHDOG=1", "0 READY=1", "0 STATUS=serving 1 listener over 1 pool",
		"0 STATUS=upgrading", "0 MAINPID=PID",
		"1 WATCHDOG=1", "1 READY=1", "1 STATUS=serving 1 listener over 1 pool",
		"1 STATUS=upgrading", "1 MAINPID=PID",
		"2 WATCHDOG=1", "2 READY=1", "2 STATUS=serving 1 listener over 1 pool",
	}
	slices.Sort(want[:3]) // the watchdog is fed by a goroutine of its own
	slices.Sort(got[:min(3, len(got))])
	if !slices.Equal(got, want) {
		t.Errorf("the manager hears\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
