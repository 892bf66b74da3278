package sock

import (
	"errors"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listening returns a listening socket on the loopback address, which is closed when the test ends.
func listening(t *testing.T, o ListenOptions) (fd int, at netip.AddrPort) {
	t.Helper()
	fd, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), o, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(fd) })
	if at, err = LocalAddr(fd); err != nil {
		t.Fatal(err)
	}
	return fd, at
}

// connected returns a client that waits to be accepted, which is closed when the test ends.
func connected(t *testing.T, to netip.AddrPort) int {
	t.Helper()
	fd, e := Connect(to)
	if e != 0 && e != InProgress {
		t.Fatal(e)
	}
	t.Cleanup(func() { Close(fd) })
	return fd
}

// TestTune checks that all options of a listening socket can be set and unset while a client waits.
func TestTune(t *testing.T) {
	all := ListenOptions{
		Backlog: 64, UserTimeout: 5 * time.Second,
		KeepAlive: KeepAlive{Idle: 7 * time.Second, Interval: 2 * time.Second, Count: 3},
	}
	none := ListenOptions{Backlog: 16}
	fd, at := listening(t, none)
	connected(t, at)
	for _, o := range []ListenOptions{all, none} {
		if err := Tune(fd, o); err != nil {
			t.Fatal(err)
		}
		keepAlive := 0
		if o == all {
			keepAlive = 1
		}
		for _, want := range []struct{ level, name, value int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, keepAlive},
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(o.UserTimeout.Milliseconds())},
			{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		} {
			if got, err := unix.GetsockoptInt(fd, want.level, want.name); err != nil || got != want.value {
				t.Errorf("option %d of level %d: %d (%v), want %d", want.name, want.level, got, err, want.value)
			}
		}
		// tcp_info of a listening socket: the limit of its queue, and how many clients wait in it.
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		if int(info.Sacked) != o.Backlog || info.Unacked != 1 {
			t.Errorf("%d of %d wait, want 1 of %d", info.Unacked, info.Sacked, o.Backlog)
		}
	}
	client, _, e := Accept(fd)
	if e != 0 {
		t.Fatalf("the client that waited: %v", e)
	}
	Close(client)
}

func TestCheckListenOptions(t *testing.T) {
	if err := CheckListenOptions(ListenOptions{UserTimeout: time.Second,
		KeepAlive: KeepAlive{Idle: time.Hour, Count: 127}}); err != nil {
		t.Error(err)
	}
	for _, o := range []ListenOptions{
		{KeepAlive: KeepAlive{Idle: 48 * time.Hour, Count: 1}}, // tcp(7): 32767 s, and 127 probes at most
		{KeepAlive: KeepAlive{Idle: time.Second, Count: 128}},
	} {
		if err := CheckListenOptions(o); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// TestInherit checks which descriptors are accepted as listening sockets, and that an inherited one is non-blocking and
// close-on-exec.
func TestInherit(t *testing.T) {
	fd, at := listening(t, ListenOptions{Backlog: 4})
	flags := func(command int) int {
		v, err := unix.FcntlInt(uintptr(fd), command, 0)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	got, err := Inherit(fd)
	if err != nil || got != at {
		t.Fatalf("inherited at %v, %v; want %v", got, err, at)
	}
	if flags(unix.F_GETFL)&unix.O_NONBLOCK == 0 || flags(unix.F_GETFD)&unix.FD_CLOEXEC == 0 {
		t.Error("the socket blocks, or passes to children")
	}

	local, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(local)
	if err := unix.Bind(local, &unix.SockaddrUnix{Name: t.TempDir() + "/s"}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(local, 1); err != nil {
		t.Fatal(err)
	}
	datagrams, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(datagrams)
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, fd := range map[string]int{
		"a connection": connected(t, at), "a local socket": local, "datagrams": datagrams, "a file": int(file.Fd()),
	} {
		if _, err := Inherit(fd); !errors.Is(err, ErrNotListening) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Inherit(1 << 20); !errors.Is(err, unix.EBADF) {
		t.Errorf("no descriptor: %v", err)
	}
}

// TestSharedListener uses two Pollers with a descriptor of one socket each. Each Poller must learn of every client that
// the other leaves waiting, even if it was not waiting for events when the client came. A client wakes one of the
// waiting Pollers.
func TestSharedListener(t *testing.T) {
	const key, wake = 7, 1
	fd, at := listening(t, ListenOptions{Backlog: 64})
	other, err := Duplicate(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(other)
	pollers := make([]*Poller, 2)
	wakeups := make([]Wakeup, 2)
	for i, fd := range []int{fd, other} {
		if pollers[i], err = NewPoller(); err != nil {
			t.Fatal(err)
		}
		defer pollers[i].Close()
		if wakeups[i], err = NewWakeup(pollers[i], wake); err != nil {
			t.Fatal(err)
		}
		defer wakeups[i].Close()
		if e := pollers[i].AddSharedListener(fd, key); e != 0 {
			t.Fatal(e)
		}
	}
	sees := func(p *Poller) bool {
		for i := range p.Wait(0) {
			if id, _ := p.Event(i).Key(); id == key {
				return true
			}
		}
		return false
	}
	take := func(want int) {
		t.Helper()
		for i := range want {
			client, _, e := Accept(fd)
			if e != 0 {
				t.Fatalf("client %d of %d: %v", i, want, e)
			}
			Close(client)
		}
	}

	// Neither Poller waits when the clients come. The Poller that looks first does not take the event from the other,
	// until no client waits any more.
	connected(t, at)
	connected(t, at)
	wait(t, "both know of two clients", func() bool { return sees(pollers[0]) && sees(pollers[1]) })
	take(1)
	if !sees(pollers[0]) || !sees(pollers[1]) {
		t.Error("a client waits, and not both know")
	}
	take(1)
	if sees(pollers[0]) || sees(pollers[1]) {
		t.Error("no client waits, but a Poller reports one")
	}

	// Once both wait, a client wakes one of them, although the client keeps waiting: the other Poller is woken
	// afterwards, and has no event for it. The test cannot see whether both wait already, so it tries until it happens.
	wait(t, "a client wakes one Poller only", func() bool {
		news := make(chan int, 2)
		var waiting sync.WaitGroup
		for i, p := range pollers {
			waiting.Go(func() {
				n := 0
				for n == 0 {
					n = p.Wait(-1)
				}
				for j := range n {
					if id, _ := p.Event(j).Key(); id == key {
						news <- i
					}
				}
			})
		}
		runtime.Gosched()
		connected(t, at)
		first := <-news
		wakeups[1-first].Signal()
		waiting.Wait()
		take(1)
		for _, p := range pollers {
			p.Wait(0) // an unnecessary wake-up
		}
		return len(news) == 0
	})
}

// TestRemovedListener checks that RemoveListener removes a socket that has other descriptors from the Poller; closing
// the descriptor does not.
func TestRemovedListener(t *testing.T) {
	fd, at := listening(t, ListenOptions{Backlog: 4})
	other, err := Duplicate(fd)
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if e := p.AddListener(other, 1); e != 0 {
		t.Fatal(e)
	}
	p.RemoveListener(other)
	Close(other)
	connected(t, at)
	wait(t, "the client waits", func() bool {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err == nil && info.Unacked == 1
	})
	if n := p.Wait(0); n != 0 {
		t.Errorf("%d events of a socket that was taken out", n)
	}
}

// TestStopNew checks that a socket refuses new clients after StopNew, and keeps those it has.
func TestStopNew(t *testing.T) {
	fd, at := listening(t, ListenOptions{Backlog: 4})
	waiting := connected(t, at)
	if err := StopNew(fd); err != nil {
		t.Fatal(err)
	}
	refused, e := Connect(at)
	switch e {
	case InProgress:
		defer Close(refused)
		wait(t, "a new client is refused", func() bool { return ConnectError(refused) == ConnRefused })
	case ConnRefused:
	default:
		t.Errorf("connect: %v", e)
	}
	client, _, e := Accept(fd)
	if e != 0 {
		t.Fatalf("the client that waited: %v", e)
	}
	defer Close(client)
	if _, e := Write(waiting, []byte("x"), false); e != 0 {
		t.Fatal(e)
	}
	wait(t, "its byte comes", func() bool {
		n, _ := Read(client, make([]byte, 1))
		return n == 1
	})
}
