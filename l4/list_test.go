package l4_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestList holds that sessions in all phases are told of as they are, and that each part of a filter leaves out the
// others.
func TestList(t *testing.T) {
	good, silent := backend(t, echo), swallowing(t)
	queueing := newQueuePool(t, pool.Options{QueueMax: 1, QueueTimeout: time.Minute}, good)
	hanging, err := pool.New(pool.Options{
		Name: "hanging", Algorithm: "first", Initial: pool.Healthy, ConnectTimeout: time.Minute, Retries: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{refusing(t), silent} {
		if err := hanging.Add(pool.Spec{ID: "id of " + a, Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1}); err != nil {
			t.Fatal(err)
		}
	}
	one, two := spec(queueing), spec(hanging)
	one.Name, two.Name = "one", "two"
	s := start(t, l4.Options{Loops: 2}, one, two)
	at := s.Listeners()
	relayed := dial(t, at[0].Address.String())
	for range 3 {
		if err := ask(relayed); err != nil {
			t.Fatal(err)
		}
	}
	queuedClient := dial(t, at[0].Address.String())
	eventually(t, "a client waits", func() bool { return queueing.Waiting() == 1 })
	connectingClient := dial(t, at[1].Address.String())
	eventually(t, "a session connects", func() bool {
		return len(listOf(t, s, l4.SessionFilter{Backend: silent}).Sessions) == 1
	})

	all := listOf(t, s, l4.SessionFilter{})
	if all.Total != 3 || len(all.Sessions) != 3 {
		t.Fatalf("%d of %d sessions: %+v", len(all.Sessions), all.Total, all.Sessions)
	}
	for i, want := range []l4.SessionInfo{
		{
			Listener: "one", Pool: "pool", Backend: good, Client: addrPort(relayed), Phase: "relaying",
			BytesIn: 3, BytesOut: 3,
		},
		{Listener: "one", Pool: "pool", Client: addrPort(queuedClient), Phase: "queued"},
		{
			Listener: "two", Pool: "hanging", Backend: "id of " + silent, Client: addrPort(connectingClient),
			Phase: "connecting", Retries: 1,
		},
	} {
		got := all.Sessions[i]
		if got.BackendAddress.IsValid() != (want.Backend != "") ||
			got.Connected.IsZero() != (want.Phase != "relaying") {
			t.Errorf("session %d is connected to %q since %v", i, got.BackendAddress, got.Connected)
		}
		if got.Accepted.After(time.Now()) || got.Age < 0 || got.Idle < 0 || got.Idle > got.Age || got.ID == 0 {
			t.Errorf("session %d, %s, began at %v: %v old, idle for %v", i, got.ID, got.Accepted, got.Age, got.Idle)
		}
		want.ID, want.BackendAddress, want.Connected = got.ID, got.BackendAddress, got.Connected
		want.Accepted, want.Age, want.Idle = got.Accepted, got.Age, got.Idle
		if got != want {
			t.Errorf("session %d is\n%+v, want\n%+v", i, got, want)
		}
	}

	for name, test := range map[string]struct {
		filter l4.SessionFilter
		want   []int
	}{
		"listener":           {l4.SessionFilter{Listener: "one"}, []int{0, 1}},
		"pool":               {l4.SessionFilter{Pool: "hanging"}, []int{2}},
		"backend":            {l4.SessionFilter{Backend: "id of " + silent}, []int{2}},
		"backend by address": {l4.SessionFilter{Backend: silent}, []int{2}},
		"no such backend":    {l4.SessionFilter{Backend: "nowhere"}, nil},
		"client":             {l4.SessionFilter{Client: netip.MustParsePrefix("127.0.0.0/8")}, []int{0, 1, 2}},
		"another client":     {l4.SessionFilter{Client: netip.MustParsePrefix("10.0.0.0/8")}, nil},
		"id":                 {l4.SessionFilter{ID: all.Sessions[1].ID}, []int{1}},
		"age":                {l4.SessionFilter{MinAge: time.Hour}, nil},
		"idle":               {l4.SessionFilter{MinIdle: time.Hour}, nil},
		"both":               {l4.SessionFilter{Listener: "one", Pool: "hanging"}, nil},
	} {
		var want []l4.SessionID
		for _, i := range test.want {
			want = append(want, all.Sessions[i].ID)
		}
		var got []l4.SessionID
		list := listOf(t, s, test.filter)
		for _, session := range list.Sessions {
			got = append(got, session.ID)
		}
		if !slices.Equal(got, want) || list.Total != len(want) {
			t.Errorf("%s: sessions %v of %d, want %v", name, got, list.Total, want)
		}
	}
	list := listOf(t, s, l4.SessionFilter{Limit: 2})
	if list.Total != 3 || len(list.Sessions) != 2 || list.Sessions[0].ID != all.Sessions[0].ID {
		t.Errorf("with a limit of 2: %+v", list)
	}

	counts, err := s.Count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := map[l4.SessionGroup]int{
		{"one", "pool", l4.TCP, good}: 1, {"one", "pool", l4.TCP, ""}: 1, {"two", "hanging", l4.TCP, "id of " + silent}: 1,
	}; !maps.Equal(counts, want) {
		t.Errorf("counts are %v, want %v", counts, want)
	}
}

func addrPort(c *net.TCPConn) netip.AddrPort { return c.LocalAddr().(*net.TCPAddr).AddrPort() }

// TestListMany holds that a list of more sessions than a slice has tells of all of them once, the oldest first, and
// which of them a limit keeps.
func TestListMany(t *testing.T) {
	const sessions = 3 * sliceSessions
	s := start(t, l4.Options{Loops: 2}, spec(newPool(t, backend(t, echo))))
	var ids []string
	for range sessions {
		c := dial(t, address(s))
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, c.LocalAddr().String())
	}
	list := listOf(t, s, l4.SessionFilter{})
	var got []string
	for _, s := range list.Sessions {
		got = append(got, s.Client.String())
	}
	if !slices.Equal(got, ids) || list.Total != sessions {
		t.Errorf("%d sessions of %d, not the %d there are in their order", len(got), list.Total, sessions)
	}
	whole := list
	whole.Sessions = slices.Concat(list.Sessions, list.Sessions)
	slices.Reverse(whole.Sessions)
	l4.KeepOldest(&whole, 4)
	if whole.Sessions[0] != list.Sessions[0] || whole.Sessions[3] != list.Sessions[1] || len(whole.Sessions) != 4 {
		t.Error("KeepOldest keeps others")
	}
}

// TestEnd holds that sessions of all phases are ended with their reason, and no others.
func TestEnd(t *testing.T) {
	p := newQueuePool(t, pool.Options{QueueMax: 2, QueueTimeout: time.Minute}, backend(t, echo))
	silent := newPool(t, swallowing(t))
	one, two, other := spec(p), spec(silent), spec(newPool(t, backend(t, echo)))
	one.Name, two.Name, other.Name = "a queues", "b hangs", "c stays"
	lines, log := newCapture()
	s := start(t, l4.Options{Loops: 2, Access: true, Log: log}, one, two, other)
	at := s.Listeners()
	relayed := dial(t, at[0].Address.String())
	if err := ask(relayed); err != nil {
		t.Fatal(err)
	}
	waits := dial(t, at[0].Address.String())
	eventually(t, "a client waits", func() bool { return p.Waiting() == 1 })
	connects := dial(t, at[1].Address.String())
	eventually(t, "a session connects", func() bool {
		return len(listOf(t, s, l4.SessionFilter{Listener: "b hangs"}).Sessions) == 1
	})
	stays := dial(t, at[2].Address.String())
	if err := ask(stays); err != nil {
		t.Fatal(err)
	}

	id := listOf(t, s, l4.SessionFilter{Listener: "a queues"}).Sessions[1].ID
	for i, test := range []struct {
		filter l4.SessionFilter
		client *net.TCPConn
	}{
		{l4.SessionFilter{ID: id}, waits},
		{l4.SessionFilter{Backend: p.Backends()[0].ID}, relayed},
		{l4.SessionFilter{Pool: "pool", Listener: "b hangs"}, connects},
	} {
		if n, err := s.End(t.Context(), test.filter); n != 1 || err != nil {
			t.Fatalf("%d: %d sessions ended, error %v", i, n, err)
		}
		if !reset(t, test.client) {
			t.Errorf("%d: the client saw an orderly end", i)
		}
		line := lines.Next(t)
		if line.Reason != tally.EndedByOperator.String() || line.Client != test.client.LocalAddr().String() {
			t.Errorf("%d: the access line is %+v", i, line)
		}
		if i == 0 && line.Session != id.String() {
			t.Errorf("the line's session is %s, the list's %s", line.Session, id)
		}
	}
	if err := ask(stays); err != nil {
		t.Errorf("another session: %v", err)
	}
	if n, err := s.End(t.Context(), l4.SessionFilter{Listener: "nowhere"}); n != 0 || err != nil {
		t.Errorf("nothing fits: %d sessions ended, error %v", n, err)
	}
	if p.Waiting() != 0 || p.Backends()[0].Leases != 0 || silent.Backends()[0].Leases != 0 {
		t.Error("something of the sessions is left")
	}
}

// TestListUnderLoad lists, counts and ends beside clients that come and go, and holds that every session has ended
// once, with a reason, and that as many as End told of were ended by it.
func TestListUnderLoad(t *testing.T) {
	const clients, rounds = 16, 60
	p := newPool(t, backend(t, echo), backend(t, echo), refusing(t))
	s := start(t, l4.Options{Loops: 3}, spec(p))
	for range 2 * sliceSessions { // who stay, so that there are several slices
		if err := ask(dial(t, address(s))); err != nil {
			t.Fatal(err)
		}
	}
	staying := s.Sessions()
	var working, asking sync.WaitGroup
	quit := make(chan struct{})
	for i := range clients {
		host := fmt.Sprintf("127.0.0.%d", 10+i%2)
		working.Go(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}}
			for range rounds {
				c, err := d.Dial("tcp", address(s))
				if err != nil {
					continue // it was ended before Dial had looked
				}
				c.SetDeadline(time.Now().Add(20 * time.Second))
				for range 5 {
					if err := ask(c); err != nil {
						if host == "127.0.0.10" {
							t.Errorf("a session that nobody ended: %v", err)
						}
						break
					}
				}
				c.(*net.TCPConn).SetLinger(0) // else its address and port would be in use for a minute
				c.Close()
			}
		})
	}
	repeat := func(f func() error) {
		asking.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				if err := f(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	ended := 0
	repeat(func() error {
		n, err := s.End(t.Context(), l4.SessionFilter{Client: netip.MustParsePrefix("127.0.0.11/32")})
		ended += n
		return err
	})
	repeat(func() error {
		list, err := s.List(t.Context(), l4.SessionFilter{Limit: 10})
		if err == nil && (list.Total < staying || len(list.Sessions) != 10) {
			err = fmt.Errorf("%d of %d sessions, and %d stay", len(list.Sessions), list.Total, staying)
		}
		return err
	})
	repeat(func() error {
		counts, err := s.Count(t.Context())
		total := 0
		for _, n := range counts {
			total += n
		}
		if err == nil && total < staying {
			err = fmt.Errorf("%d sessions, and %d stay", total, staying)
		}
		return err
	})
	working.Wait()
	close(quit)
	asking.Wait()
	eventually(t, "the clients' sessions have ended", func() bool { return s.Sessions() == staying })
	info := s.Listeners()[0]
	if info.Ended[tally.EndedByOperator] != uint64(ended) || ended == 0 {
		t.Errorf("End told of %d sessions, and %d have that reason", ended, info.Ended[tally.EndedByOperator])
	}
	var all uint64
	for _, n := range info.Ended {
		all += n
	}
	if all+uint64(staying) != info.Accepted {
		t.Errorf("%d sessions were accepted, %d have ended and %d stay", info.Accepted, all, staying)
	}
}

// TestListEnds holds that a list of a loop that does not answer ends with its context, and of one that is gone at once.
func TestListEnds(t *testing.T) {
	s := start(t, l4.Options{Loops: 2}, spec(newPool(t, backend(t, echo))))
	for range 4 {
		if err := ask(dial(t, address(s))); err != nil {
			t.Fatal(err)
		}
	}
	release := hold(t, s, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	list, err := s.List(ctx, l4.SessionFilter{})
	if !errors.Is(err, context.DeadlineExceeded) || list.Total == 4 {
		t.Errorf("with a loop stuck: %d sessions, error %v", list.Total, err)
	}
	if n, err := s.End(done(t), l4.SessionFilter{}); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %d sessions, error %v", n, err)
	}
	release()
	if s.Sessions() != 4 {
		t.Error("a call that had ended before it began has ended sessions")
	}
	if err := s.Shutdown(done(t)); err == nil {
		t.Error("nothing was cut")
	}
	if list := listOf(t, s, l4.SessionFilter{}); list.Total != 0 {
		t.Errorf("%d sessions after the end", list.Total)
	}
}

// TestLostQuestions holds that nobody waits for a loop which has ended in spite of a message that came too late.
func TestLostQuestions(t *testing.T) {
	s := start(t, l4.Options{Loops: 1})
	mail := func(n int) func() bool {
		return func() bool { return waitingMail(s, 0) == n }
	}
	release := hold(t, s, 0)
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(context.Background()) }()
	eventually(t, "the loop is told to stop", mail(1))
	held, free := make(chan struct{}), make(chan struct{})
	l4test.RoomsOf(s).Loops[0].Post(func() {
		close(held)
		<-free
	})
	release()
	<-held // in the loop's last turn
	answers := make(chan error, 2)
	go func() {
		_, err := s.List(t.Context(), l4.SessionFilter{})
		answers <- err
	}()
	go func() { answers <- s.Live(t.Context()) }()
	eventually(t, "both questions are posted", mail(2))
	close(free)
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestParseSessionID holds that ids are read as they are written, and nothing else.
func TestParseSessionID(t *testing.T) {
	for _, id := range []l4.SessionID{1, 0xfedcba9876543210} {
		if got, err := l4.ParseSessionID(id.String()); got != id || err != nil {
			t.Errorf("%v was read as %v, %v", id, got, err)
		}
	}
	for _, s := range []string{"", "1", "+000000000000001", "00000000000000000", "000000000000000g"} {
		if _, err := l4.ParseSessionID(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}
