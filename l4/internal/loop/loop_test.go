package loop

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a loop with these parts until the test ends.
func start(t *testing.T, parts ...Part) *Loop {
	t.Helper()
	l, err := New(3, time.Now(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		l.Attach(p)
	}
	var running sync.WaitGroup
	running.Go(l.Run)
	t.Cleanup(func() {
		l.Post(l.Stop)
		running.Wait()
	})
	return l
}

// onLoop calls f on the loop, and returns when it has.
func onLoop(t *testing.T, l *Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	if !l.Post(func() { f(); close(done) }) {
		t.Fatal("the loop has ended")
	}
	<-done
}

// A recorder is a part that records its calls, and whose next turn is due when it says so.
type recorder struct {
	name  string
	calls *[]string
	due   func() (time.Duration, bool)
}

func (r *recorder) AfterEvents() { *r.calls = append(*r.calls, r.name+" after events") }
func (r *recorder) OnTime()      { *r.calls = append(*r.calls, r.name+" on time") }
func (r *recorder) EndTurn(int)  { *r.calls = append(*r.calls, r.name+" end") }
func (r *recorder) Close()       { *r.calls = append(*r.calls, r.name+" close") }

func (r *recorder) Due() (time.Duration, bool) {
	if r.due == nil {
		return 0, false
	}
	return r.due()
}

// TestTurn holds in which order the parts of a loop have their shares of a turn, and that each gives back what it holds
// in the end.
func TestTurn(t *testing.T) {
	var calls []string
	l, err := New(0, time.Now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	l.Attach(&recorder{name: "a", calls: &calls})
	l.Attach(&recorder{name: "b", calls: &calls})
	l.Post(l.Stop)
	l.Run()
	want := []string{
		"a after events", "b after events", "a on time", "b on time", "a end", "b end", "a close", "b close",
	}
	if !slices.Equal(calls, want) {
		t.Errorf("%q, want %q", calls, want)
	}
	if l.Post(func() {}) {
		t.Error("a loop that has ended takes mail")
	}
}

// TestDue holds that a loop without events wakes up when a part is due, and sleeps otherwise.
func TestDue(t *testing.T) {
	var calls []string
	var l *Loop
	turns := 0
	p := &recorder{name: "p", calls: &calls}
	p.due = func() (time.Duration, bool) {
		turns++
		return 20 * time.Millisecond, turns < 3
	}
	l = start(t, p)
	for l.State().Turns < 2 || !l.State().Waiting {
		time.Sleep(time.Millisecond)
	}
	if last := l.State().LastTurn.Sub(l.Started); last < 20*time.Millisecond {
		t.Errorf("woke up after %v", last)
	}
	for until := time.Now().Add(10 * time.Second); ; { // a loop waits in short waits for a while first
		turned := l.State().Turns
		time.Sleep(100 * time.Millisecond)
		if l.State().Turns == turned {
			return
		}
		if time.Now().After(until) {
			t.Fatal("does not sleep, and has nothing to do")
		}
	}
}

// TestSources holds that an event comes to the handler of its source, with the slot and the generation that its
// descriptor was registered with.
func TestSources(t *testing.T) {
	l := start(t)
	type event struct{ source, slot, generation uint32 }
	events := make(chan event, 10)
	onLoop(t, l, func() {
		for i := range uint32(2) {
			s := l.NewSource(func(slot, generation, bits uint32) { events <- event{i, slot, generation} })
			fd, e := sock.ConnectDatagram(netip.MustParseAddrPort("127.0.0.1:9"))
			if e != 0 {
				t.Error(e)
				return
			}
			t.Cleanup(func() { sock.Close(fd) })
			if e := s.Add(fd, MaxSlots-1-i, 1<<31+i); e != 0 {
				t.Error(e)
			}
		}
	})
	got := []event{<-events, <-events}
	slices.SortFunc(got, func(a, b event) int { return int(a.source) - int(b.source) })
	if want := []event{{0, MaxSlots - 1, 1 << 31}, {1, MaxSlots - 2, 1<<31 + 1}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A parcel is a handover that says what became of it.
type parcel struct{ taken, givenUp func() }

func (p parcel) TakeOver() { p.taken() }
func (p parcel) GiveUp()   { p.givenUp() }

// TestHandovers holds that a loop takes over what it is offered, but not more than maxHandovers at once, and that what
// it has not taken when it ends is given up.
func TestHandovers(t *testing.T) {
	l, err := New(0, time.Now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	taken, givenUp := 0, 0
	p := parcel{func() { taken++ }, func() { givenUp++ }}
	for range maxHandovers {
		if !l.Offer(p) {
			t.Fatal("not taken")
		}
	}
	if l.Offer(p) {
		t.Error("more were taken than may wait")
	}
	l.Post(func() {
		l.Stop()
		l.Attach(closing{func() { l.Offer(p) }}) // comes too late to be taken over
	})
	l.Run()
	if taken != maxHandovers || givenUp != 1 {
		t.Errorf("%d taken over and %d given up, want %d and 1", taken, givenUp, maxHandovers)
	}
	if l.Offer(p) {
		t.Error("a loop that has ended takes something over")
	}
}

// A closing is a part that does something in the end.
type closing struct{ do func() }

func (closing) AfterEvents()               {}
func (closing) OnTime()                    {}
func (closing) EndTurn(int)                {}
func (closing) Due() (time.Duration, bool) { return 0, false }
func (c closing) Close()                   { c.do() }

// TestDiscard holds that a loop which never ran does what was posted, and gives back what its parts hold.
func TestDiscard(t *testing.T) {
	var calls []string
	l, err := New(0, time.Now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	l.Attach(&recorder{name: "a", calls: &calls})
	l.Post(func() {
		if !l.Discarded() {
			t.Error("does not know that it will not run")
		}
		calls = append(calls, "posted")
	})
	l.Discard()
	if want := []string{"posted", "a close"}; !slices.Equal(calls, want) {
		t.Errorf("%q, want %q", calls, want)
	}
}

// TestAsk holds that a loop answers, that all who ask meanwhile share one message, and that one that has ended is not
// waited for.
func TestAsk(t *testing.T) {
	l, err := New(0, time.Now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	first := l.Ask()
	if l.Ask() != first {
		t.Error("asked twice")
	}
	select {
	case <-first:
		t.Error("a loop that does not run has answered")
	default:
	}
	l.Post(l.Stop)
	l.Run()
	<-first
	<-l.Ask()
}

// TestRounds holds that a round begins flushEvery after the first turn with events, does one slice in a turn, and that
// without events since there is no other.
func TestRounds(t *testing.T) {
	var from []int
	r := NewRounds(func(at int) int {
		from = append(from, at)
		if at == 2 {
			return -1
		}
		return at + 1
	})
	turn := func(now time.Duration, events int, want ...int) {
		t.Helper()
		from = nil
		r.EndTurn(now, events)
		if !slices.Equal(from, want) {
			t.Fatalf("at %v: slices %v, want %v", now, from, want)
		}
	}
	turn(0, 0)
	if _, ok := r.Due(); ok {
		t.Error("due without an event")
	}
	turn(time.Second, 1)
	if at, ok := r.Due(); !ok || at != time.Second+flushEvery {
		t.Errorf("due at %v, %v", at, ok)
	}
	turn(flushEvery, 0)
	turn(time.Second+flushEvery, 0, 0)
	turn(time.Second+flushEvery, 1, 1) // an event during the round asks for another one
	turn(time.Second+flushEvery, 0, 2)
	if at, ok := r.Due(); !ok || at != time.Second+2*flushEvery {
		t.Errorf("the next is due at %v, %v", at, ok)
	}
	for i := range 3 {
		turn(time.Minute, 0, i)
	}
	if _, ok := r.Due(); ok {
		t.Error("due without an event since")
	}
}

// TestByteQueue holds that bytes come out in the order in which they went in, however they are cut, and that an empty
// queue holds no memory.
func TestByteQueue(t *testing.T) {
	var b Buffers
	var q ByteQueue
	q.Append(&b, []byte("abcdef"))
	q.Done(&b, 4)
	q.Append(&b, []byte("ghi"))
	if got := string(q.Bytes()); got != "efghi" || q.Size() != 5 {
		t.Errorf("%q, %d bytes", got, q.Size())
	}
	q.Append(&b, make([]byte, ScratchBytes)) // more than any of Get's buffers
	if got := q.Bytes(); string(got[:5]) != "efghi" || len(got) != 5+ScratchBytes {
		t.Errorf("%d bytes", len(got))
	}
	q.Done(&b, q.Size())
	if q.buf != nil {
		t.Error("an empty queue holds memory")
	}
	q.Append(&b, []byte("xy"))
	q.Done(&b, 1)
	buf, waiting := q.Detach()
	if string(waiting) != "y" || q.Size() != 0 || &waiting[0] != &buf[1] {
		t.Errorf("detached %q", waiting)
	}
	b.Put(buf)
}
