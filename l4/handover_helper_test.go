package l4_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// wired is v after it was written as JSON and read again, as it comes to another process.
func wired[T any](t testing.TB, v T) (read T) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return read
}

// sent is a descriptor as it comes to another process by SCM_RIGHTS.
func sent(t testing.TB, fd int) int {
	t.Helper()
	other, err := sock.Duplicate(fd)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

// A handOver is two servers of one process, of which one hands over to the other.
type handOver struct {
	t        testing.TB
	from, to *l4.Server
	h        *l4.Handover
}

// beginHandOver makes and starts the server that takes over.
func beginHandOver(t testing.TB, from *l4.Server, o l4.Options, specs ...l4.ListenerSpec) *handOver {
	t.Helper()
	h, err := from.HandOver()
	if err != nil {
		t.Fatal(err)
	}
	sockets := h.Sockets()
	o.Sockets = wired(t, sockets)
	for i := range sockets {
		o.Sockets[i].FD = sent(t, sockets[i].FD)
	}
	return &handOver{t, from, start(t, o, specs...), h}
}

// move moves up to most sessions or flows, once, and returns how many were moved and how many refused.
func (u *handOver) move(p l4.Protocol, most int) (moved, refused int) {
	u.t.Helper()
	m := u.h.Detach(p, most)
	if len(m) == 0 {
		return 0, 0
	}
	if len(m) > most {
		u.t.Errorf("%d were detached, want %d at most", len(m), most)
	}
	got := wired(u.t, m)
	for i := range m {
		for _, fd := range m[i].FDs {
			got[i].FDs = append(got[i].FDs, sent(u.t, fd))
		}
	}
	taking := u.to.TakeOver(got)
	var gone, back []l4.Moving
	for i := range m {
		gone = append(gone, m[i])
	}
	for k := len(taking.Refused) - 1; k >= 0; k-- {
		i := taking.Refused[k]
		back = append(back, m[i])
		gone = append(gone[:i], gone[i+1:]...)
	}
	taking.Begin()
	u.h.Moved(gone)
	u.h.Returned(back)
	return len(gone), len(back)
}

// moveAll moves all that comes to rest until n are moved.
func (u *handOver) moveAll(p l4.Protocol, n int) {
	u.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for left := n; left > 0; {
		moved, _ := u.move(p, 7)
		if left -= moved; moved == 0 && time.Now().After(deadline) {
			of, _ := u.h.Left(u.t.Context())
			u.t.Fatalf("%d of %d were not moved: %v", left, n, of)
		}
	}
}

// pause stops admitting on one side, and flows moves what was admitted before the other side begins.
func (u *handOver) pause(flows int) {
	u.t.Helper()
	u.h.Pause()
	u.moveAll(l4.UDP, flows)
	u.to.Admit()
}

// finish ends the server that has handed over.
func (u *handOver) finish() {
	u.t.Helper()
	u.to.AddCounters(wired(u.t, u.h.Counters()))
	u.h.Finish()
	if err := u.from.Shutdown(u.t.Context()); err != nil {
		u.t.Error(err)
	}
	u.to.AddCounters(wired(u.t, u.h.Counters()))
}
