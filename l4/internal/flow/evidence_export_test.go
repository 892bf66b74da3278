package flow

import "github.com/limeload/limeload-l4/l4/internal/sock"

// LeaveUnsendable calls leaveUnsendable for each of a loop's flows. It is called onLoop.
func LeaveUnsendable(l *Loop, e sock.Errno) { l.store.All(func(f *Flow) { l.leaveUnsendable(f, e) }) }
