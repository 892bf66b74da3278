package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/fdconn"
	"github.com/limeload/limeload-l4/test/harness"
)

// The tests of upgrades run this test binary as the processes: with roleVariable set, it is a daemon, or a relay.
//
// A relay is the new process for the old one. It starts a daemon as the real new process, passes the messages on both
// ways, and kills one of the two just before it passes on a certain message. So the processes themselves need nothing
// that serves tests only.
const roleVariable = "LIMELOAD_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "" {
		os.Exit(m.Run())
	}
	var err error
	switch args := os.Args[1:]; args[0] {
	case "daemon": // FILE VERSION, and the program of an upgrade
		err = runDaemonRole(args[1], args[2], args[3:])
	case "relay": // FILE, who is killed, before which message
		err = runRelay(args[1], args[2], args[3])
	case "silent": // never says anything
		select {}
	case "stuck": // says nothing once it is ready
		err = runStuck()
	case "other": // speaks another version
		err = runOther()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runDaemonRole is the program limeload-l4, with another program for an upgrade.
func runDaemonRole(file, version string, program []string) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGTERM, syscall.SIGINT)
	old, err := MeetOldProcess(version)
	if err != nil {
		return err
	}
	err = func() error {
		cfg, err := Load(context.Background(), file)
		if err != nil {
			return err
		}
		log := zerolog.New(os.Stderr).With().Int("pid", os.Getpid()).Timestamp().Logger()
		d, err := New(Options{Config: cfg, Version: version, Log: log, Program: program, From: old})
		if err != nil {
			return err
		}
		return d.Run(context.Background(), signals)
	}()
	if err != nil {
		old.Refuse(err)
	}
	return err
}

// runRelay is the relay.
func runRelay(file, victim, before string) error {
	runtime.LockOSThread() // the child is killed with the thread that started it
	fd, err := strconv.Atoi(os.Getenv(upgradeVariable))
	if err != nil {
		return err
	}
	toOld, err := fdconn.Take(fd)
	if err != nil {
		return err
	}
	toNew, theirs, err := fdconn.Pair()
	if err != nil {
		return err
	}
	child := exec.Command(os.Args[0], "daemon", file, "2")
	child.ExtraFiles, child.Stderr = []*os.File{theirs}, os.Stderr
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%d", upgradeVariable, firstInherited))
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	old := os.Getppid()
	if err := child.Start(); err != nil {
		return err
	}
	theirs.Close()
	kill := func(kind string, m fdconn.Message) {
		if kind != before {
			return
		}
		m.CloseFDs() // as the kernel does with those on their way
		if victim == "new" {
			_ = child.Process.Kill()
			_ = child.Wait()
			os.Exit(1) // so that the process is gone for the old one, too
		}
		_ = syscall.Kill(old, syscall.SIGKILL)
		for syscall.Kill(old, 0) == nil && os.Getppid() == old {
			time.Sleep(time.Millisecond) // another process's end cannot be waited for
		}
		toNew.Close()
		select {} // the relay ends with the child
	}
	go pass(toNew, toOld, kill)
	go pass(toOld, toNew, kill)
	_ = child.Wait()
	return nil
}

// pass passes messages on. The number of a repeated kind is added to it.
func pass(from, to *fdconn.Conn, before func(kind string, m fdconn.Message)) {
	count := make(map[string]int)
	for {
		m, err := from.Receive()
		if err != nil {
			to.Close()
			return
		}
		kind := m.Kind
		if count[m.Kind]++; count[m.Kind] > 1 {
			kind += strconv.Itoa(count[m.Kind])
		}
		before(kind, m)
		_ = to.Send(m.Kind, m.Body, m.FDs...) // the next Receive reports what is wrong
		m.CloseFDs()
	}
}

// runStuck is a program that gets stuck when it is ready.
func runStuck() error {
	old, err := MeetOldProcess("2")
	if err != nil {
		return err
	}
	old.prepared()
	if _, err := old.conn.Receive(); err != nil { // counters
		return err
	}
	if err := old.conn.Send(kindCounted, noBody); err != nil {
		return err
	}
	select {}
}

// runOther is a program that speaks another version.
func runOther() error {
	fd, err := strconv.Atoi(os.Getenv(upgradeVariable))
	if err != nil {
		return err
	}
	c, err := fdconn.Take(fd)
	if err != nil {
		return err
	}
	if _, err := c.Receive(); err != nil {
		return err
	}
	h := newHello("9.9", os.Getpid())
	h.Protocol++
	if err := c.Send(kindHello, h); err != nil {
		return err
	}
	_, err = c.Receive()
	return err
}

// An upgradable is a daemon in a process of its own, with clients.
type upgradable struct {
	t        *testing.T
	file     string
	admin    *admin.Client
	cmd      *exec.Cmd
	ended    chan struct{} // closed when the old process is gone
	tcp, udp string        // the listeners
	metrics  string        // the address for metrics

	udpBackend *harness.UDPBackend
	sessions   []net.Conn
	flows      []*net.UDPConn
	log        string
	busy       int // flows that may live though others are lost, since they were busy and would have gone later
}

const (
	upgradeSessions = 5
	upgradeFlows    = 3
)

// newUpgradable starts a daemon, whose program for an upgrade is this test binary with these arguments. FILE stands for
// the configuration.
func newUpgradable(t *testing.T, program ...string) *upgradable {
	t.Helper()
	dir, err := os.MkdirTemp("", "limeload-") // t.TempDir may be longer than a socket's path can be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	u := &upgradable{
		t: t, file: filepath.Join(dir, "lb.toml"), ended: make(chan struct{}), tcp: harness.FreeAddress(t),
		udp: harness.FreeAddress(t), udpBackend: harness.ServeUDP(t, harness.EchoDatagrams), log: filepath.Join(dir, "log"),
		metrics: harness.FreeAddress(t),
	}
	u.configure("")
	if u.admin, err = admin.NewClient(admin.ClientOptions{Address: "unix:" + filepath.Join(dir, "admin.sock")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.admin.Close)
	for i := range program {
		if program[i] == "FILE" {
			program[i] = u.file
		}
	}
	log, err := os.Create(u.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if len(program) > 0 && program[0] != "" && program[0][0] != '/' {
		program = append([]string{os.Args[0]}, program...)
	}
	u.cmd = exec.Command(os.Args[0], append([]string{"daemon", u.file, "1"}, program...)...)
	u.cmd.Env = append(os.Environ(), roleVariable+"=1")
	u.cmd.Stderr = log
	if err := u.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // the end of the test kills the process
		_ = u.cmd.Wait()
		close(u.ended)
	}()
	t.Cleanup(u.end)
	u.awaitPID(u.cmd.Process.Pid)
	for range upgradeSessions {
		u.sessions = append(u.sessions, u.dial())
	}
	for range upgradeFlows {
		c := harness.DialUDP(t, u.udp)
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
		u.flows = append(u.flows, c)
	}
	return u
}

// configure writes the configuration, with more lines at its end.
func (u *upgradable) configure(more string) {
	u.t.Helper()
	text := fmt.Sprintf(`[global]
drain_timeout = "5s"
workers = 2
[admin]
address = "unix:admin.sock"
[metrics]
address = %q
[listener.tcp]
address = %q
pool = "tcp"
[listener.udp]
address = %q
protocol = "udp"
pool = "udp"
[pool.tcp]
backends = [{ name = "b1", address = %q }]
[pool.udp]
backends = [{ name = "b1", address = %q }]
%s`, u.metrics, u.tcp, u.udp, harness.Serve(u.t, harness.Echo).Address(), u.udpBackend.Address(), more)
	if err := os.WriteFile(u.file, []byte(text), 0o600); err != nil {
		u.t.Fatal(err)
	}
}

// end kills what runs still, and shows the log of a test that has failed.
func (u *upgradable) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s, err := u.admin.Status(ctx); err == nil {
		_ = syscall.Kill(s.PID, syscall.SIGKILL)
	}
	_ = u.cmd.Process.Kill() // it may be gone
	<-u.ended
	if log, err := os.ReadFile(u.log); err == nil && u.t.Failed() {
		u.t.Logf("the log:\n%s", log)
	}
}

// awaitPID waits until a process other than those in not answers at the admin socket, or the one that is given.
func (u *upgradable) awaitPID(want int, not ...int) admin.Status {
	u.t.Helper()
	var status admin.Status
	harness.Eventually(u.t, fmt.Sprintf("process %d answers", want), func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if status, err = u.admin.Status(ctx); err != nil {
			return err
		}
		if want != 0 && status.PID != want || want == 0 && status.PID == not[0] || status.State != "serving" {
			return fmt.Errorf("process %d answers, in the state %s", status.PID, status.State)
		}
		return nil
	})
	return status
}

// dial opens a session that has been used.
func (u *upgradable) dial() net.Conn {
	u.t.Helper()
	c := harness.Dial(u.t, u.tcp)
	if err := ask(c); err != nil {
		u.t.Fatal(err)
	}
	return c
}

// ask sends a byte, and waits for it to come back.
func ask(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// expect checks how many sessions and flows have survived. Clients whose flow has not are served by another one.
func (u *upgradable) expect(sessions, flows int) {
	u.t.Helper()
	alive := 0
	for _, c := range u.sessions {
		if ask(c) == nil {
			alive++
		}
	}
	if alive != sessions {
		u.t.Errorf("%d sessions are alive, want %d", alive, sessions)
	}
	before := len(u.udpBackend.Sources())
	for _, c := range u.flows {
		if err := ask(c); err != nil {
			u.t.Errorf("a client of UDP: %v", err)
		}
	}
	if kept := upgradeFlows - (len(u.udpBackend.Sources()) - before); kept < flows || kept > flows+u.busy {
		u.t.Errorf("%d flows are alive, want %d", kept, flows)
	}
	if err := ask(u.dial()); err != nil {
		u.t.Errorf("a new session: %v", err)
	}
}

// upgrade asks for an upgrade.
func (u *upgradable) upgrade(deadline float64) (admin.Upgraded, error) {
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	return u.admin.Upgrade(ctx, admin.Upgrade{Deadline: deadline})
}

// scrape reads the metrics, over a connection of its own.
func (u *upgradable) scrape(ctx context.Context) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+u.metrics+"/metrics", nil)
	if err != nil {
		return "", err
	}
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status)
	}
	return string(text), err
}

// scrapeUntil reads the metrics again and again until ctx is done. It returns how often.
func (u *upgradable) scrapeUntil(ctx context.Context) (n int, err error) {
	for ctx.Err() == nil {
		if _, err := u.scrape(context.WithoutCancel(ctx)); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// TestUpgrade hands everything over twice in a row, with the run-time changes, and checks what the answer says.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	u := newUpgradable(t, "daemon", "FILE", "2", "/nothing")
	old := u.cmd.Process.Pid
	const level = "warn"
	scraping, stopScraping := context.WithCancel(t.Context())
	defer stopScraping()
	scraped := background(func(context.Context) (int, error) { return u.scrapeUntil(scraping) }, t.Context())
	if _, err := u.admin.ChangeBackend(t.Context(), "udp", "b1", admin.BackendChange{MaxSessions: new(77)}); err != nil {
		t.Fatal(err)
	}
	set, err := u.admin.SetLogLevel(t.Context(), level, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	done, err := u.upgrade(0)
	if err != nil {
		t.Fatal(err)
	}
	if done.OldPID != old || done.NewPID == old || done.OldVersion != "1" || done.NewVersion != "2" ||
		done.Sessions != upgradeSessions || done.Flows != upgradeFlows || len(done.Left) != 0 {
		t.Errorf("the answer is %+v", done)
	}
	s := u.awaitPID(done.NewPID)
	if s.LogLevel != level || len(s.Differences) != 1 || s.Differences[0].Running != "77" {
		t.Errorf("the level of the log is %s, and the differences are %+v", s.LogLevel, s.Differences)
	}
	now, err := u.admin.LogLevel(t.Context())
	if err != nil || now.Until == nil || now.Until.Sub(*set.Until).Abs() > time.Minute {
		t.Errorf("the level of the log %+v became %+v: %v", set, now, err)
	}
	u.expect(upgradeSessions, upgradeFlows)
	<-u.ended
	text, err := u.scrape(t.Context())
	if err != nil || !strings.Contains(text, `version="2"} 1`) {
		t.Errorf("the metrics after the upgrade, %v:\n%s", err, text)
	}
	stopScraping()
	if err := <-scraped; err != nil {
		t.Errorf("the metrics during the upgrade: %v", err)
	}
	if code := u.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the old process ends with exit code %d", code)
	}
	// its own upgrade fails, since its program is nothing
	if _, err := u.upgrade(0); err == nil || !strings.Contains(err.Error(), "/nothing") ||
		!strings.Contains(err.Error(), "goes on as before") {
		t.Errorf("an upgrade to nothing gives %v", err)
	}
	u.expect(upgradeSessions, upgradeFlows)
}

// TestUpgradeIsGivenUp has new processes that do not take over. Nothing changes.
func TestUpgradeIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		program  []string
		deadline float64
		config   string // of the new process
		want     string
	}{
		{"exits", []string{"/bin/false"}, 0, "", "ended before it took over: exit status 1"},
		{"is missing", []string{"/none/limeload-l4"}, 0, "", "no such file or directory"},
		{"hangs", []string{"silent"}, 1, "", "did not take over within 1s, and was killed"},
		{"gets stuck", []string{"stuck"}, 1, "", "did not answer for 1s, and was killed"},
		{"another version", []string{"other"}, 0, "", "version 1 hands over with protocol 1.2, and version 9.9 takes over with 2.2"},
		{"a broken configuration", []string{"daemon", "FILE", "2"}, 0, "[pool.udp]\nbogus = 1\n", "lb.toml:"},
		{"an address in use", []string{"daemon", "FILE", "2"}, 0, "", "listener.more.address"},
		{"an address for metrics in use", []string{"daemon", "FILE", "2"}, 0, "", "metrics.address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			u := newUpgradable(t, tt.program...)
			config := tt.config
			switch tt.name {
			case "an address in use":
				l, _ := listenLocal(t)
				config = fmt.Sprintf("[listener.more]\naddress = %q\npool = \"tcp\"\n", l.Addr())
			case "an address for metrics in use": // when the new process has the admin socket already
				l, _ := listenLocal(t)
				u.metrics = l.Addr().String()
			}
			u.configure(config)
			_, err := u.upgrade(tt.deadline)
			var problem *admin.Problem
			if !errors.As(err, &problem) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v, want %s", err, tt.want)
			}
			u.awaitPID(u.cmd.Process.Pid)
			u.expect(upgradeSessions, upgradeFlows)
			if _, err := u.admin.ChangeBackend(t.Context(), "udp", "b1", admin.BackendChange{MaxSessions: new(7)}); err != nil {
				t.Errorf("a change after that: %v", err)
			}
		})
	}
}

// TestKilledNewProcess kills the new process at each step. Sessions and flows that it had are lost, and no others.
func TestKilledNewProcess(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		before          string
		sessions, flows int
	}{
		{kindOffer, upgradeSessions, upgradeFlows},
		{kindPrepared, upgradeSessions, upgradeFlows},
		{kindCounted, upgradeSessions, upgradeFlows},
		{kindMoving, upgradeSessions, upgradeFlows},
		{kindTaken, upgradeSessions, upgradeFlows},
		{kindBegin, upgradeSessions, 0},
		{kindAdmit, upgradeSessions, 0},
		{kindMoving + "2", upgradeSessions, 0},
		{kindTaken + "2", upgradeSessions, 0},
		{kindBegin + "2", 0, 0},
		{kindCounted + "2", 0, 0},
		{kindFinish, 0, 0},
		{kindFinished, 0, 0},
	} {
		t.Run(tt.before, func(t *testing.T) {
			t.Parallel()
			u := newUpgradable(t, "relay", "FILE", "new", tt.before)
			_, err := u.upgrade(0)
			if err == nil || !strings.Contains(err.Error(), "ended before it took over") {
				t.Errorf("the error is %v", err)
			}
			u.awaitPID(u.cmd.Process.Pid)
			if tt.before == kindBegin {
				u.busy = upgradeFlows - 1
			}
			u.expect(tt.sessions, tt.flows)
		})
	}
}

// TestKilledOldProcess kills the old process at each step. The new one goes on with what it has by then.
func TestKilledOldProcess(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		before          string
		sessions, flows int
	}{
		{kindPrepared, 0, 0},
		{kindMoving, 0, 0},
		{kindTaken, 0, upgradeFlows},
		{kindBegin, 0, upgradeFlows},
		{kindAdmit, 0, upgradeFlows},
		{kindMoving + "2", 0, upgradeFlows},
		{kindTaken + "2", upgradeSessions, upgradeFlows},
		{kindBegin + "2", upgradeSessions, upgradeFlows},
		{kindCounters + "2", upgradeSessions, upgradeFlows},
		{kindFinish, upgradeSessions, upgradeFlows},
		{kindFinished, upgradeSessions, upgradeFlows},
		{kindMain, upgradeSessions, upgradeFlows},
	} {
		t.Run(tt.before, func(t *testing.T) {
			t.Parallel()
			u := newUpgradable(t, "relay", "FILE", "old", tt.before)
			// main has no answer, so that of the upgrade may be faster
			if _, err := u.upgrade(0); err == nil && tt.before != kindMain {
				t.Error("a process that was killed has answered")
			}
			<-u.ended
			u.awaitPID(0, u.cmd.Process.Pid)
			u.expect(tt.sessions, tt.flows)
		})
	}
}

// awaitHandingOver begins an upgrade to a process that says nothing, and returns when it is under way.
func (u *upgradable) awaitHandingOver() <-chan error {
	u.t.Helper()
	failure := background(func(context.Context) (admin.Upgraded, error) { return u.upgrade(60) }, u.t.Context())
	harness.Eventually(u.t, "the upgrade is under way", func() error {
		s, err := u.admin.Status(u.t.Context())
		if err == nil && s.State != "handing_over" {
			err = fmt.Errorf("the state is %s", s.State)
		}
		return err
	})
	return failure
}

// TestSecondUpgrade holds that a second upgrade and run-time changes are refused while one is under way, and that
// sessions go on meanwhile.
func TestSecondUpgrade(t *testing.T) {
	t.Parallel()
	u := newUpgradable(t, "silent")
	failure := u.awaitHandingOver()
	if _, err := u.upgrade(0); !errors.Is(err, admin.ErrUpgrading) {
		t.Errorf("a second upgrade gives %v", err)
	}
	if _, err := u.admin.ChangeBackend(t.Context(), "tcp", "b1", admin.BackendChange{MaxSessions: new(7)}); !errors.Is(
		err, admin.ErrUpgrading) {
		t.Errorf("a change gives %v", err)
	}
	u.expect(upgradeSessions, upgradeFlows)
	_ = u.cmd.Process.Signal(syscall.SIGINT)
	<-failure
	<-u.ended
}

// TestTermWhileUpgrading holds that TERM gives an upgrade up before anything has gone over, and drains. The new process
// is killed.
func TestTermWhileUpgrading(t *testing.T) {
	t.Parallel()
	u := newUpgradable(t, "silent")
	failure := u.awaitHandingOver()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", u.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_ = u.cmd.Process.Signal(syscall.SIGTERM)
	if err := <-failure; !errors.Is(err, admin.ErrEnding) {
		t.Errorf("the upgrade gives %v", err)
	}
	for _, c := range u.sessions {
		if err := ask(c); err != nil {
			t.Errorf("a session while it drains: %v", err)
		}
		c.Close()
	}
	_ = u.cmd.Process.Signal(syscall.SIGTERM) // flows have no end of their own
	<-u.ended
	if code := u.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ends with exit code %d", code)
	}
	for _, pid := range strings.Fields(string(children)) {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("the new process %s is alive", pid)
		}
	}
}

// TestHangupWhileUpgrading holds that HUP waits for an upgrade that fails, and then reloads.
func TestHangupWhileUpgrading(t *testing.T) {
	t.Parallel()
	u := newUpgradable(t, "silent")
	failure := background(func(context.Context) (admin.Upgraded, error) { return u.upgrade(1) }, t.Context())
	harness.Eventually(t, "the upgrade is under way", func() error {
		s, err := u.admin.Status(t.Context())
		if err == nil && s.State != "handing_over" {
			err = fmt.Errorf("the state is %s", s.State)
		}
		return err
	})
	_ = u.cmd.Process.Signal(syscall.SIGHUP)
	if err := <-failure; err == nil {
		t.Error("a process that says nothing has taken over")
	}
	harness.Eventually(t, "it reloads", func() error {
		s, err := u.admin.Status(t.Context())
		if err == nil && s.Reloads.Done+s.Reloads.Failed != 1 {
			err = errors.New("it has not")
		}
		return err
	})
}
