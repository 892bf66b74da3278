package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/fdconn"
	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/pool"
)

// descriptors returns the number of this process's open descriptors.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// meet has a script play the old process, and returns what the new one makes of it.
func meet(t *testing.T, script func(old *fdconn.Conn)) (o *OldProcess, err error) {
	t.Helper()
	old, theirs, err := fdconn.Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Dup(int(theirs.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	t.Setenv(upgradeVariable, fmt.Sprint(fd))
	done := make(chan struct{})
	go func() {
		defer close(done)
		script(old)
	}()
	o, err = MeetOldProcess("2")
	if o != nil {
		o.conn.Close()
	}
	<-done
	old.Close()
	if _, set := os.LookupEnv(upgradeVariable); set {
		t.Error("programs of checks inherit the variable")
	}
	return o, err
}

// TestMeetHostile has old processes that say something else than they should: the new one ends with an error, says so,
// and leaves no descriptor open.
func TestMeetHostile(t *testing.T) {
	pipe := make([]int, 2)
	if err := syscall.Pipe2(pipe, syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pipe[0])
	defer syscall.Close(pipe[1])
	good := newHello("1", 1)
	for _, tt := range []struct {
		name   string
		script func(old *fdconn.Conn)
		want   string
	}{
		{"it ends", func(old *fdconn.Conn) { old.Close() }, "has ended"},
		{"no hello", func(old *fdconn.Conn) { _ = old.Send(kindOffer, offer{}, pipe...) }, `message "offer" came instead of "hello"`},
		{"another protocol", func(old *fdconn.Conn) {
			h := good
			h.Protocol = 7
			_ = old.Send(kindHello, h)
		}, "version 1 hands over with protocol 7.2, and version 2 takes over with 1.2; restart the service"},
		{"another hand-over", func(old *fdconn.Conn) {
			h := good
			h.Sockets = 9
			_ = old.Send(kindHello, h)
		}, "protocol 1.9"},
		{"no version", func(old *fdconn.Conn) { _ = old.Send(kindHello, "x") }, "message \"hello\": json"},
		{"descriptors of nothing", func(old *fdconn.Conn) {
			_ = old.Send(kindHello, good)
			_ = old.Send(kindOffer, offer{}, pipe...)
		}, "2 descriptors for 0 sockets of HTTP"},
		{"sockets without descriptors", func(old *fdconn.Conn) {
			_ = old.Send(kindHello, good)
			_ = old.Send(kindOffer, offer{Sockets: 2})
			_ = old.Send(kindSockets, sockets{make([]l4.ListeningSocket, 2)})
		}, "0 descriptors for 2 listening sockets"},
		{"sockets without end", func(old *fdconn.Conn) {
			_ = old.Send(kindHello, good)
			_ = old.Send(kindOffer, offer{Sockets: 1 << 30})
			_ = old.Send(kindSockets, sockets{make([]l4.ListeningSocket, 1)}, pipe[0])
			old.Close()
		}, "has ended"},
	} {
		before := descriptors(t)
		_, err := meet(t, tt.script)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: the error is %v, want %s", tt.name, err, tt.want)
		}
		if after := descriptors(t); after != before {
			t.Errorf("%s: %d descriptors are open, and %d were before", tt.name, after, before)
		}
	}
}

// TestNoOldProcess holds what a variable does that no old process has set.
func TestNoOldProcess(t *testing.T) {
	if o, err := MeetOldProcess("2"); o != nil || err != nil {
		t.Errorf("without the variable: %v, %v", o, err)
	}
	var none *OldProcess
	none.Refuse(io.EOF) // nothing happens
	none.end()
	for _, value := range []string{"", "x", "-1", "2", "99999999", "60000"} {
		t.Setenv(upgradeVariable, value)
		if o, err := MeetOldProcess("2"); err == nil || o != nil || !strings.Contains(err.Error(), "needs to be unset") {
			t.Errorf("with %q: %v", value, err)
		}
	}
}

// TestRefusal holds that the old process gets the reason of a refusal, and whether it is a mistake of the configuration.
func TestRefusal(t *testing.T) {
	_, mistake := Read(filepath.Join(t.TempDir(), "none.toml"))
	bad := filepath.Join(t.TempDir(), "lb.toml")
	if err := os.WriteFile(bad, []byte("bogus = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, wrong := Read(bad)
	for _, tt := range []struct {
		err           error
		configuration bool
	}{{mistake, true}, {wrong, true}, {errors.New("no memory"), false}} {
		n := &newProcess{ended: make(chan struct{})}
		mine, theirs, err := fdconn.Pair()
		if err != nil {
			t.Fatal(err)
		}
		fd, err := syscall.Dup(int(theirs.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		other, err := fdconn.Take(fd)
		if err != nil {
			t.Fatal(err)
		}
		n.conn = mine
		(&OldProcess{conn: other}).Refuse(tt.err)
		err = n.ask(kindHello, noBody, nil, kindHello, &hello{}) // it has refused before it was asked
		var config *admin.ConfigError
		if err == nil || !strings.Contains(err.Error(), tt.err.Error()) || errors.As(err, &config) != tt.configuration {
			t.Errorf("the refusal %v arrives as %v", tt.err, err)
		}
		mine.Close()
	}
}

// TestMoving holds which descriptors belong to which session, and that wrong numbers are an error.
func TestMoving(t *testing.T) {
	message, fds := newMoving(l4.TCP, []l4.Moving{{FDs: []int{10, 11}}, {}, {FDs: []int{12}}})
	text, err := json.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	var got moving
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if err := got.assign(fds); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Moving[0].FDs, []int{10, 11}) || len(got.Moving[1].FDs) != 0 ||
		!slices.Equal(got.Moving[2].FDs, []int{12}) {
		t.Errorf("the descriptors are %v", got.Moving)
	}
	for _, bad := range []moving{
		{Counts: []int{2, 0}, Moving: got.Moving},
		{Counts: []int{2, 0, 2}, Moving: got.Moving},
		{Counts: []int{2, 0, 0}, Moving: got.Moving},
		{Counts: []int{4, -1, 0}, Moving: got.Moving},
		{Counts: []int{-1, 2, 2}, Moving: got.Moving},
		{},
	} {
		if err := bad.assign(fds); err == nil {
			t.Errorf("%v are the numbers of descriptors", bad.Counts)
		}
	}
	moved, returned, err := taken{Refused: []int{1}}.split(got.Moving)
	if err != nil || len(moved) != 2 || len(returned) != 1 || len(returned[0].FDs) != 0 {
		t.Errorf("%d were taken and %d were not: %v", len(moved), len(returned), err)
	}
	for _, refused := range [][]int{{3}, {-1}, {0, 0}, {0, 1, 2, 3}} {
		if _, _, err := (taken{Refused: refused}).split(got.Moving); err == nil {
			t.Errorf("%v of three are refused", refused)
		}
	}
}

// TestTakeWithoutAnswer holds what becomes of sessions whose answer does not arrive. If the old process is gone, this
// one serves them. If this one has closed the connection, the old one does. No descriptor is closed twice.
func TestTakeWithoutAnswer(t *testing.T) {
	d := testDaemon(t, parsed(t, ""))
	for _, tt := range []struct {
		name           string
		missing        int
		closes, serves bool
	}{
		{"the old process is gone", 0, false, true}, {"this process ends", 0, true, false},
		{"no room, and the old process is gone", 1, false, false},
	} {
		before := descriptors(t)
		mine, theirs, err := fdconn.Pair()
		if err != nil {
			t.Fatal(err)
		}
		if theirs.Close(); tt.closes {
			mine.Close()
		}
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(moving{Protocol: l4.TCP, Counts: []int{2}, Moving: make([]l4.Moving, 1)})
		if err != nil {
			t.Fatal(err)
		}
		o := &OldProcess{conn: mine}
		m := fdconn.Message{Kind: kindMoving, Body: body, FDs: pair[:], Missing: tt.missing}
		if err := o.handle(d.server, m); err != nil { // the caller closes the descriptors then, which are closed already
			t.Errorf("%s: %v", tt.name, err)
		}
		if (o.taking != nil) != tt.serves {
			t.Errorf("%s: it serves them is %v", tt.name, o.taking != nil)
		}
		mine.Close()
		if after := descriptors(t); after != before {
			t.Errorf("%s: %d descriptors are open, and %d were before", tt.name, after, before)
		}
	}
}

// TestHeldState holds that a state that is held is not written, and that holding waits for the write under way.
func TestHeldState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s := newStateStore(path, func() any { return "x" })
	s.hold()
	if err := s.save(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a state that is held is written")
	}
	s.release()
	if err := s.save(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// TestChangesWhileUpgrading holds that run-time changes are refused while a new process takes over, and a second upgrade.
func TestChangesWhileUpgrading(t *testing.T) {
	d := testDaemon(t, parsed(t, ""))
	d.holdChanges()
	_, add := d.AddBackend("web", admin.NewBackend{Address: "192.0.2.1:1"})
	_, change := d.ChangeBackend("web", "127.0.0.1:7998", admin.BackendChange{MaxSessions: new(1)})
	_, drain := d.DrainBackend("web", "127.0.0.1:7998", admin.Drain{})
	_, rule := d.AddAccessRule(admin.NewAccessRule{Prefix: "192.0.2.0/24", Action: admin.ActionDeny})
	for name, err := range map[string]error{
		"add": add, "change": change, "drain": drain, "rule": rule,
		"remove":      errorOf(d.RemoveBackend("web", "127.0.0.1:7998", admin.Origin{})),
		"remove rule": errorOf(d.RemoveAccessRule("192.0.2.0/24", "", admin.Origin{})),
		"log level":   d.SetLogLevel("warn", 0, "alice"),
	} {
		if err != admin.ErrUpgrading {
			t.Errorf("%s gives %v", name, err)
		}
	}
	d.allowChanges()
	if _, err := d.AddBackend("web", admin.NewBackend{Address: "192.0.2.1:1"}); err != nil {
		t.Error(err)
	}
	d.upgrading.Store(true)
	if _, err := d.Upgrade(t.Context(), admin.Upgrade{}); err != admin.ErrUpgrading {
		t.Errorf("a second upgrade gives %v", err)
	}
}

// TestUpgradeWaitsForTheTurn holds that an upgrade waits for a reload, for as long as its caller does.
func TestUpgradeWaitsForTheTurn(t *testing.T) {
	d := testDaemon(t, parsed(t, ""))
	d.life.serve()
	d.life.allowReloads()
	_, giveBack, err := d.life.takeTurn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer giveBack()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := d.Upgrade(ctx, admin.Upgrade{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the upgrade gives %v", err)
	}
}

// TestContinueDrains holds that a drain under way has the same end in the process that takes over.
func TestContinueDrains(t *testing.T) {
	d, other := testDaemon(t, parsed(t, "")), testDaemon(t, parsed(t, ""))
	const backend = "127.0.0.1:7998"
	lease, err := d.pools["web"].pool.Pick(pool.PickContext{})
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release(0)
	if _, err := d.DrainBackend("web", backend, admin.Drain{Deadline: 3600, Remove: true}); err != nil {
		t.Fatal(err)
	}
	defer d.drains.end()
	offered := d.drains.offered()
	if len(offered) != 1 || !offered[0].Remove || offered[0].Pool != "web" || offered[0].Backend != backend {
		t.Fatalf("the drains are %+v", offered)
	}
	if err := other.restore(d.collectState()); err != nil {
		t.Fatal(err)
	}
	offered = append(offered, offeredDrain{Pool: "none"})
	other.continueDrains(offered)
	defer other.drains.end()
	// its last session has ended, so the drain removes it
	for deadline := time.Now().Add(10 * time.Second); len(other.pools["web"].pool.Backends()) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the backend is not removed")
		}
		time.Sleep(time.Millisecond)
	}
}

// TestDrainWhileUpgrading holds that a drain does not end while a new process takes over. Its last session may have gone
// there.
func TestDrainWhileUpgrading(t *testing.T) {
	d := testDaemon(t, parsed(t, ""))
	const backend = "127.0.0.1:7998"
	p := d.pools["web"].pool
	lease, err := p.Pick(pool.PickContext{})
	if err != nil {
		t.Fatal(err)
	}
	events, unsubscribe := d.events.subscribe()
	defer unsubscribe()
	if _, err := d.DrainBackend("web", backend, admin.Drain{Remove: true}); err != nil {
		t.Fatal(err)
	}
	defer d.drains.end()
	d.holdChanges()
	lease.HandOver()
	if offered := d.drains.offered(); len(offered) != 1 || len(p.Backends()) != 1 {
		t.Errorf("the drains are %+v, and the backends %+v", offered, p.Backends())
	}
	d.allowChanges()
	for e := range events {
		if e.Kind == "drained" {
			break
		}
	}
	if left := p.Backends(); len(left) > 0 {
		t.Errorf("the drain was given up: %+v", left)
	}
	if _, err := d.AddBackend("web", admin.NewBackend{Address: backend}); err != nil {
		t.Fatal(err)
	}
	if lease, err = p.Pick(pool.PickContext{}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.DrainBackend("web", backend, admin.Drain{Remove: true}); err != nil {
		t.Fatal(err)
	}
	d.holdChanges()
	lease.HandOver()
	d.drains.end() // the new process has taken over
	if len(p.Backends()) != 1 {
		t.Error("the drain has ended in the old process")
	}
}

// TestThisProgram holds that a program is started again by the name it was started with, even if that is a link, and by
// the path of its file if the name stands for something else.
func TestThisProgram(t *testing.T) {
	running, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	link, other := filepath.Join(dir, "link"), filepath.Join(dir, "other")
	if err := errors.Join(os.Symlink(running, link), os.WriteFile(other, nil, 0o700)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	for name, want := range map[string]string{link: link, "link": link, other: running, "other": running, "": running} {
		got, err := ThisProgram([]string{name, "--config", "x"})
		if err != nil || !slices.Equal(got, []string{want, "--config", "x"}) {
			t.Errorf("started as %q, it starts %q again: %v", name, got, err)
		}
	}
	if _, err := ThisProgram(nil); err == nil {
		t.Error("a program without a name is started again")
	}
}
