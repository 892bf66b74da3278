package flow

import "github.com/limeload/limeload-l4/l4/internal/sock"

// An identity is what tells the flows of a socket apart: who sent the datagram, and which address of ours it was sent
// to. IPv4 addresses are in their form mapped into IPv6: 192.0.2.1 is one client whatever socket its datagrams come by.
type identity struct {
	client, local [16]byte
	scope         uint32 // the interface of a link-local client
	port          uint32
}

func identityOf(peer *sock.Peer, local *sock.Local) identity {
	addr, scope := peer.Addr16()
	return identity{client: addr, local: local.Addr16(), scope: scope, port: uint32(peer.Port())}
}
