package l4

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// A UnixSocket is the socket of a listener in the Unix domain: its path, and who may connect. Its clients have no
// address. They are known by their process; pickers that go by the client's address take them all for one client.
type UnixSocket = sock.UnixSocket

// Credentials are the process of a client that has come by a Unix socket.
type Credentials = sock.Credentials

// validateUnix returns what is wrong with a place of the spec that is a Unix socket.
func (spec *ListenerSpec) validateUnix(p *Place) error {
	switch u := &p.Unix; {
	case spec.Protocol != TCP:
		return errors.New("a Unix socket takes no datagrams")
	case p.Address.IsValid() || len(p.Inherited) > 0:
		return errors.New("a Unix socket and an address")
	case !filepath.IsAbs(u.Path) || len(u.Path) > sock.MaxUnixListener:
		return fmt.Errorf("the path of a Unix socket is not absolute, or has more than %d bytes", sock.MaxUnixListener)
	case spec.Proxy.Versions != 0:
		return errors.New("a PROXY header is expected from clients of a Unix socket, who have no address to be trusted")
	}
	return nil
}
