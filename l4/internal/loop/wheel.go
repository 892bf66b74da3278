package loop

import (
	"math"
	"math/bits"
	"time"
)

// Tick is the resolution of a Wheel. Timeouts here are limits on silence, from a few hundred milliseconds up: ten
// milliseconds late at most is as good as exact.
const Tick = 10 * time.Millisecond

const (
	wheelBits   = 6
	wheelSlots  = 1 << wheelBits
	wheelMask   = wheelSlots - 1
	wheelLevels = 4
	wheelRange  = 1 << (wheelBits * wheelLevels) // ticks, about 46 hours; what lies beyond is looked at again then
)

// A Timer is the part of a session or a flow that hangs in a Wheel; its zero value is stopped.
type Timer[T any] struct {
	next, prev *Timer[T]
	of         *T     // whose timer it is
	expires    uint32 // tick, without what does not fit; see Wheel.ahead
	level      uint8
	slot       uint8
	armed      bool
}

// A Wheel is the timers of one kind of things on one loop, used onLoop only: a hierarchical timing wheel (Varghese and
// Lauck, SOSP 1987, scheme 7). Arming and stopping cost the same however many there are. Level k has slots of 64^k
// ticks, whose timers move down a level when their slot's time comes. The zero value is empty and ready.
type Wheel[T any] struct {
	now   int64 // the tick that was reached
	armed int
	used  [wheelLevels]uint64 // which slots hold timers
	slots [wheelLevels][wheelSlots]*Timer[T]
}

// farthest is how many ticks from now a timer fires at the latest: 248 days.
const farthest = math.MaxInt32

// Arm sets the timer of a thing to fire at a moment, rounded up to a whole Tick, and not before the next one. It may be
// armed already. A moment that is further away than 248 days is too far: then the timer fires early.
func (w *Wheel[T]) Arm(t *Timer[T], of *T, at time.Duration) {
	t.of = of
	w.arm(t, int64((at+Tick-1)/Tick))
}

func (w *Wheel[T]) arm(t *Timer[T], at int64) {
	w.Stop(t)
	t.expires = uint32(min(max(at, w.now+1), w.now+farthest))
	w.insert(t)
	w.armed++
	t.armed = true
}

// Stop takes t out, if it is in.
func (w *Wheel[T]) Stop(t *Timer[T]) {
	if !t.armed {
		return
	}
	w.remove(t)
	w.armed--
	t.armed = false
}

// ahead is how many ticks from now a timer expires. Timers are less than 2^31 ticks apart, so 32 bits tell their order,
// and a session has 8 bytes less.
func (w *Wheel[T]) ahead(t *Timer[T]) int64 { return int64(int32(t.expires - uint32(w.now))) }

func (w *Wheel[T]) insert(t *Timer[T]) {
	delta := min(w.ahead(t), wheelRange-1)
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

func (w *Wheel[T]) remove(t *Timer[T]) {
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

// Due returns when a timer fires or a slot moves down next; false when nothing is armed.
func (w *Wheel[T]) Due() (time.Duration, bool) {
	at, ok := w.due()
	return time.Duration(at) * Tick, ok
}

func (w *Wheel[T]) due() (int64, bool) {
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

// Advance moves to the moment now, and calls fire for each thing whose timer is due. The timer is stopped beforehand,
// so fire may arm it again, or stop any other.
func (w *Wheel[T]) Advance(now time.Duration, fire func(*T)) { w.advance(int64(now/Tick), fire) }

func (w *Wheel[T]) advance(now int64, fire func(*T)) {
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
			w.Stop(t)
			fire(t.of)
		}
	}
}

// cascade moves the timers of a slot whose time has come to the levels below.
func (w *Wheel[T]) cascade(level, slot int) {
	t := w.slots[level][slot]
	w.slots[level][slot] = nil
	w.used[level] &^= 1 << slot
	for t != nil {
		next := t.next
		w.insert(t)
		t = next
	}
}
