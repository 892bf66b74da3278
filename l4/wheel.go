package l4

import (
	"math/bits"
	"time"
)

// tick is the resolution of a wheel. Timeouts here are limits on silence, from a few hundred milliseconds
// up; ten milliseconds late at most is as good as exact.
const tick = 10 * time.Millisecond

const (
	wheelBits   = 6
	wheelSlots  = 1 << wheelBits
	wheelMask   = wheelSlots - 1
	wheelLevels = 4
	wheelRange  = 1 << (wheelBits * wheelLevels) // ticks, about 46 hours; what lies beyond is looked at again then
)

// A timer is the part of a session or a flow that hangs in a wheel; its zero value is stopped.
type timer struct {
	next, prev *timer
	session    *session // whose it is; nil if it is a flow's
	flow       *flow
	expires    int64 // tick
	level      uint8
	slot       uint8
	armed      bool
}

// A wheel is the timers of one loop, and used onLoop only: a hierarchical timing wheel (Varghese and Lauck,
// SOSP 1987, scheme 7). Arming and stopping cost the same whatever there is; level k has slots of
// 64^k ticks, whose timers move down a level when their slot's time comes.
type wheel struct {
	now   int64 // the tick that was reached
	armed int
	used  [wheelLevels]uint64 // which slots hold timers
	slots [wheelLevels][wheelSlots]*timer
}

// arm sets t to fire at a tick, at the earliest the next one. t may be armed already.
func (w *wheel) arm(t *timer, at int64) {
	w.stop(t)
	t.expires = max(at, w.now+1)
	w.insert(t)
	w.armed++
	t.armed = true
}

// stop takes t out, if it is in.
func (w *wheel) stop(t *timer) {
	if !t.armed {
		return
	}
	w.remove(t)
	w.armed--
	t.armed = false
}

func (w *wheel) insert(t *timer) {
	delta := min(t.expires-w.now, wheelRange-1)
	at := w.now + delta
	level := 0
	if delta > 0 {
		level = (bits.Len64(uint64(delta)) - 1) / wheelBits
	}
	slot := at >> (wheelBits * level) & wheelMask
	t.level, t.slot = uint8(level), uint8(slot)
	head := w.slots[level][slot]
	t.prev, t.next = nil, head
	if head != nil {
		head.prev = t
	}
	w.slots[level][slot] = t
	w.used[level] |= 1 << slot
}

func (w *wheel) remove(t *timer) {
	if t.next != nil {
		t.next.prev = t.prev
	}
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		w.slots[t.level][t.slot] = t.next
		if t.next == nil {
			w.used[t.level] &^= 1 << t.slot
		}
	}
	t.next, t.prev = nil, nil
}

// due is the next tick at which a timer fires or a slot moves down; false when nothing is armed.
func (w *wheel) due() (int64, bool) {
	if w.armed == 0 {
		return 0, false
	}
	var first int64 = -1
	for level := range wheelLevels {
		if w.used[level] == 0 {
			continue
		}
		shift := wheelBits * level
		pos := w.now >> shift
		ahead := bits.RotateLeft64(w.used[level], -int(pos&wheelMask)-1)
		at := (pos + 1 + int64(bits.TrailingZeros64(ahead))) << shift
		if first < 0 || at < first {
			first = at
		}
	}
	return first, true
}

// advance moves to the tick now and calls fire for each timer that is due. It is stopped beforehand, so
// fire may arm it again, or stop any other.
func (w *wheel) advance(now int64, fire func(*timer)) {
	for {
		at, ok := w.due()
		if !ok || at > now {
			w.now = max(w.now, now)
			return
		}
		w.now = at
		for level := wheelLevels - 1; level > 0; level-- {
			if at&(1<<(wheelBits*level)-1) == 0 {
				w.cascade(level, int(at>>(wheelBits*level)&wheelMask))
			}
		}
		slot := at & wheelMask
		for t := w.slots[0][slot]; t != nil; t = w.slots[0][slot] {
			w.stop(t)
			fire(t)
		}
	}
}

// cascade moves the timers of a slot whose time has come to the levels below.
func (w *wheel) cascade(level, slot int) {
	t := w.slots[level][slot]
	w.slots[level][slot] = nil
	w.used[level] &^= 1 << slot
	for t != nil {
		next := t.next
		w.insert(t)
		t = next
	}
}
