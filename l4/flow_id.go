package l4

import "github.com/limeload/limeload-l4/l4/internal/sock"

// A flowID is what tells the flows of a door apart: who sent the datagram, and which address of ours it was sent to.
// IPv4 addresses are in their form mapped into IPv6: 192.0.2.1 is one client whatever socket its datagrams come by.
type flowID struct {
	client, local [16]byte
	scope         uint32 // the interface of a link-local client
	port          uint32
}

func idOf(peer *sock.Peer, local *sock.Local) flowID {
	addr, scope := peer.Addr16()
	return flowID{client: addr, local: local.Addr16(), scope: scope, port: uint32(peer.Port())}
}
