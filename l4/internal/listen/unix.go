package listen

import "github.com/limeload/limeload-l4/l4/internal/sock"

// IsUnix reports whether the binding is of a Unix socket. It has no Address.
func (b *Binding) IsUnix() bool { return b.Unix != sock.UnixSocket{} }

// openUnix opens the one socket of a binding in the Unix domain, which has no SO_REUSEPORT: each loop has a descriptor
// of its own for it, and all have one queue of clients. ours says that the process listens at the path already.
func (b *Binding) openUnix(spec *Spec, ours bool) error {
	b.Unix = spec.Unix
	fd, file, err := sock.ListenUnix(spec.Unix, spec.Stream.Backlog, ours)
	if err != nil {
		return err
	}
	b.file = file
	return b.spread([]int{fd})
}

// Publish makes the file of a Unix socket appear at its path, in place of one that is there. Other bindings have nothing
// to publish.
func (b *Binding) Publish() error {
	if b.file == nil {
		return nil
	}
	return b.file.Publish()
}

// Withdraw removes the file of a Unix socket, unless another one has taken its place: no client comes any more. Other
// bindings have none.
func (b *Binding) Withdraw() {
	if b.file != nil && !b.Elsewhere() {
		b.file.Withdraw()
	}
}
