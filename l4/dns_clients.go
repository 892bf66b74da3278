package l4

import (
	"net/netip"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// dnsClients counts how many questions of each client wait for an answer, by the addresses that client_flows counts by. Used onLoop only.
type dnsClients struct {
	waiting map[clientID]int
	refused bool // the last question that Refuse was said of was its client's fault
}

const (
	// crowdedQuestions is how many questions wait when those of one client are bounded whatever its limit: half of what may.
	crowdedQuestions = maxQuestions / 2

	// clientShare is how many of them one client then has at most. A resolver with 20,000 questions a second that take 100 ms has as many.
	clientShare = 2048
)

// clientOf is as whom the sender of a datagram is counted.
func clientOf(peer *sock.Peer) clientID {
	addr, _ := peer.Addr16()
	return limitedAs(addr)
}

// clientAt is as whom a session's client is counted.
func clientAt(addr netip.Addr) clientID { return limitedAs(addr.As16()) }

// enter counts a question of a client that waits from now on, and reports whether it may: limit is how many the client
// may have, 0 = no limit, and all how many questions wait.
func (c *dnsClients) enter(id clientID, limit, all int) bool {
	n := c.waiting[id]
	if limit > 0 && n >= limit || all >= crowdedQuestions && n >= clientShare {
		return false
	}
	c.waiting[id] = n + 1
	return true
}

// leave is for a question that has its answer.
func (c *dnsClients) leave(id clientID) {
	if n := c.waiting[id]; n > 1 {
		c.waiting[id] = n - 1
	} else {
		delete(c.waiting, id)
	}
}

// refusal is why the cache has refused a question just now.
func (c *dnsClients) refusal() Drop {
	if c.refused {
		c.refused = false
		return DropClientLimit
	}
	return DropQueueFull
}

// admit lets a client wait for the cache's answer, or not; see dnscache.Resolver.Admit. A session has a bound of its own besides.
func (k *dnsAsker) admit(who dnsClient) (dnsClient, bool) {
	limit := 0
	if who.session != nil {
		who.id = clientAt(who.session.peer.Addr())
	} else {
		who.id = clientOf(&who.from.peer)
		limit = who.from.door.listener.spec.Load().Flows.ClientMax
	}
	k.clients.refused = !k.clients.enter(who.id, limit, k.service.cache.Waiting())
	return who, !k.clients.refused
}
