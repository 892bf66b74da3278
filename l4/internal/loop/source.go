package loop

import "github.com/limeload/limeload-l4/l4/internal/sock"

// A Source is a handler, and the descriptors whose events it gets: each has a slot of its own, which is a number below
// MaxSlots, and a generation, which tells the uses of a slot apart.
//
// An interface for each descriptor would be plainer. It was left: it costs 24 bytes for each descriptor, so 8 % of the
// memory of a session at rest, and most handlers find what an event belongs to in a Slab by the slot.
type Source struct {
	loop  *Loop
	index int32
}

// An event's key holds the source's index above the slot's bits.
const (
	slotBits = 24
	slotMask = 1<<slotBits - 1
)

// MaxSlots bounds the slots of a Source. A session has two: 8 million of them are more than descriptors allow
// (fs.nr_open).
const MaxSlots = 1 << slotBits

// NewSource makes a source whose events h handles.
func (l *Loop) NewSource(h Handler) Source {
	l.sources = append(l.sources, h)
	return Source{loop: l, index: int32(len(l.sources) - 1)}
}

func (s Source) key(slot uint32) int32 { return s.index<<slotBits | int32(slot) }

// Add registers a connection; see sock.Poller.Add.
func (s Source) Add(fd int, slot, generation uint32) sock.Errno {
	return s.loop.poller.Add(fd, s.key(slot), generation)
}

// WatchInput says whether a connection of Add is watched for bytes to read; see sock.Poller.WatchInput.
func (s Source) WatchInput(fd int, slot, generation uint32, watch bool) {
	s.loop.poller.WatchInput(fd, s.key(slot), generation, watch)
}

// AddDatagram registers a socket for what can be read; see sock.Poller.AddDatagram.
func (s Source) AddDatagram(fd int, slot, generation uint32) sock.Errno {
	return s.loop.poller.AddDatagram(fd, s.key(slot), generation)
}

// WatchRoom says whether a socket of AddDatagram is watched for room to write, too; see sock.Poller.WatchRoom.
func (s Source) WatchRoom(fd int, slot, generation uint32, watch bool) {
	s.loop.poller.WatchRoom(fd, s.key(slot), generation, watch)
}

// WatchDatagram says what a socket of AddDatagram is watched for; see sock.Poller.WatchDatagram.
func (s Source) WatchDatagram(fd int, slot, generation uint32, in, out bool) {
	s.loop.poller.WatchDatagram(fd, s.key(slot), generation, in, out)
}

// AddListener registers a listening socket; shared says that other loops have the same socket, see
// sock.Poller.AddSharedListener.
func (s Source) AddListener(fd int, slot uint32, shared bool) sock.Errno {
	if shared {
		return s.loop.poller.AddSharedListener(fd, s.key(slot))
	}
	return s.loop.poller.AddListener(fd, s.key(slot))
}

// Remove takes out a socket or a connection that is not closed, or whose other descriptors are not; see
// sock.Poller.RemoveListener.
func (s Source) Remove(fd int) { s.loop.poller.RemoveListener(fd) }
