//go:build netns

package test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// An ecmpSite is three members of etcd, ten backends, five nodes of a fleet with one address, a router that shares the
// clients among them, and a host with the clients.
type ecmpSite struct {
	client, router, servers *harness.Host
	nodes                   []*hostNode
	backends                []*harness.Backend
	udpBackends             []*harness.UDPBackend
	refills                 int // of sessions
}

const (
	ecmpNodes, ecmpBackends = 5, 10
	ecmpUDP                 = "192.0.2.10:5353"
)

// startECMP starts a site. The nodes choose backends by maglev, from a client's address and port.
func startECMP(t *testing.T) *ecmpSite {
	t.Helper()
	s := &ecmpSite{client: harness.NewHost(t, "client"), router: harness.NewHost(t, "router"),
		servers: harness.NewHost(t, "servers")}
	outer, lan, inner := harness.NewNetwork(t, "outer"), harness.NewNetwork(t, "lan"), harness.NewNetwork(t, "inner")
	outer.Join(t, s.client, "eth0", "198.51.100.9/24")
	outer.Join(t, s.router, "eth1", "198.51.100.1/24")
	s.client.IP(t, "route", "add", "default", "via", "198.51.100.1")
	lan.Join(t, s.router, "eth0", "10.0.0.254/24")
	setAll(t, s.router, recipe(t, "BGP with BIRD"), "/etc/sysctl.d/router.conf")

	var list, endpoints, addresses []string
	inner.Join(t, s.servers, "eth0", "10.1.0.100/24")
	for i := range ecmpBackends {
		address := fmt.Sprintf("10.1.0.%d", 101+i)
		s.servers.IP(t, "address", "add", address+"/24", "dev", "eth0")
		list = append(list, address+":6379")
		s.backends, s.udpBackends = append(s.backends, nil), append(s.udpBackends, nil)
		s.serve(t, i)
	}
	var members []*harness.Host
	for i := range 3 {
		members = append(members, harness.NewHost(t, fmt.Sprintf("etcd%d", i)))
		addresses = append(addresses, fmt.Sprintf("10.1.0.%d", 31+i))
		inner.Join(t, members[i], "eth0", addresses[i]+"/24")
		endpoints = append(endpoints, fmt.Sprintf("%q", "http://"+addresses[i]+":2379"))
	}
	harness.StartEtcdOn(t, members, addresses, "--unsafe-no-fsync")

	for i := range ecmpNodes {
		n := &hostNode{Host: harness.NewHost(t, fmt.Sprintf("node%d", i+1))}
		n.config = fmt.Sprintf("[fleet]\nname = \"edge\"\nnode = %q\nendpoints = [%s]\n"+
			"[listener.tcp]\naddress = \":6379\"\npool = \"all\"\n"+
			"[listener.udp]\naddress = \":5353\"\nprotocol = \"udp\"\npool = \"all\"\n"+
			"[pool.all]\nalgorithm = \"maglev\"\nhash_key = \"client\"\nbackends = %s\n"+
			"[pool.all.health]\ntype = \"tcp\"\ninterval = \"500ms\"\n",
			n.Name, strings.Join(endpoints, ", "), harness.BackendList(list...))
		s.nodes = append(s.nodes, n)
		lan.Join(t, n.Host, "eth0", fmt.Sprintf("10.0.0.%d/24", i+1))
		inner.Join(t, n.Host, "eth1", fmt.Sprintf("10.1.0.%d/24", i+1))
		n.IP(t, "route", "add", "default", "via", "10.0.0.254")
		n.IP(t, "address", "add", "192.0.2.10/32", "dev", "lo")
		n.join(t)
	}
	return s
}

// join starts the balancer, and waits until it is in the fleet and finds all backends healthy.
func (n *hostNode) join(t *testing.T) {
	t.Helper()
	n.start(t)
	n.balancer.WaitLine(t, "connected to etcd", func(l harness.Line) bool { return l.Event == "fleet_connected" })
	for i := range ecmpBackends {
		n.balancer.WaitVerdict(t, fmt.Sprintf("b%d", i+1), "healthy", time.Time{})
	}
}

// serve starts backend i, for TCP and UDP.
func (s *ecmpSite) serve(t *testing.T, i int) {
	t.Helper()
	address := fmt.Sprintf("10.1.0.%d:6379", 101+i)
	s.backends[i] = s.servers.Serve(t, address, whereabouts)
	s.udpBackends[i] = s.servers.ServeUDP(t, address, func(c *net.UDPConn, from netip.AddrPort, _ []byte) {
		_, _ = c.WriteToUDPAddrPort([]byte{from.Addr().Unmap().As4()[3], byte(101 + i)}, from)
	})
}

// A flow is a UDP client, and where it went last.
type openFlow struct {
	conn          net.Conn
	node, backend byte
}

// openFlows starts n flows, which the caller closes.
func (s *ecmpSite) openFlows(t *testing.T, n int) []*openFlow {
	t.Helper()
	flows := make([]*openFlow, n)
	check(t, inParallel(n, func(i int) error {
		f := &openFlow{}
		flows[i] = f
		err := s.client.Do(func() (err error) {
			f.conn, err = net.Dial("udp", ecmpUDP)
			return err
		})
		if err == nil {
			err = f.ask()
		}
		return err
	}))
	return flows
}

// ask asks until an answer comes, and notes where it comes from.
func (f *openFlow) ask() error {
	answer := make([]byte, 2)
	var failed error
	for range 20 {
		if failed = f.conn.SetDeadline(time.Now().Add(time.Second)); failed != nil {
			return failed
		}
		if _, failed = f.conn.Write([]byte("?")); failed != nil {
			continue // the error is that of an earlier datagram
		}
		if _, failed = io.ReadFull(f.conn, answer); failed == nil {
			f.node, f.backend = answer[0], answer[1]
			return nil
		}
	}
	return fmt.Errorf("no answer for %s: %w", f.conn.LocalAddr(), failed)
}

// askAll asks from all flows. It returns how many now go to another node, and to another backend, except for those of
// the backend that has left; 0 for none.
func askAll(t *testing.T, flows []*openFlow, left byte) (otherNode, otherBackend int) {
	t.Helper()
	var nodes, backends atomic.Int64
	check(t, inParallel(len(flows), func(i int) error {
		f := flows[i]
		node, backend := f.node, f.backend
		if err := f.ask(); err != nil {
			return err
		}
		if f.node != node {
			nodes.Add(1)
		}
		if f.backend != backend && backend != left {
			backends.Add(1)
		}
		return nil
	}))
	return int(nodes.Load()), int(backends.Load())
}

// A router kind is a way to share clients among nodes.
type routerKind struct {
	name     string
	prepare  func(t *testing.T, s *ecmpSite)
	route    func(nodes []int) []string // the arguments of ip
	remember bool                       // sessions stay where they are
	resident bool                       // only the sessions of the changed node move
}

// routerKinds returns all kinds. The last one has the backend that leaves: nodes remember its failures for a while.
func routerKinds() []routerKind {
	threshold := func(nodes []int) []string {
		args := []string{"route", "replace", "192.0.2.10"}
		for _, n := range nodes {
			args = append(args, "nexthop", "via", fmt.Sprintf("10.0.0.%d", n))
		}
		return args
	}
	return []routerKind{
		{name: "resilient", resident: true, prepare: func(t *testing.T, s *ecmpSite) {
			for n := 1; n <= ecmpNodes; n++ {
				s.router.IP(t, "nexthop", "add", "id", fmt.Sprint(n), "via", fmt.Sprintf("10.0.0.%d", n), "dev", "eth0")
			}
			s.router.IP(t, "nexthop", "add", "id", "100", "group", "1/2/3/4/5", "type", "resilient", "buckets", "512",
				"idle_timer", "60", "unbalanced_timer", "0")
			s.router.IP(t, "route", "replace", "192.0.2.10", "nhid", "100")
		}, route: func(nodes []int) []string {
			group := strings.Trim(strings.ReplaceAll(fmt.Sprint(nodes), " ", "/"), "[]")
			return []string{"nexthop", "replace", "id", "100", "group", group, "type", "resilient"}
		}},
		{name: "remembering", resident: true, remember: true, prepare: func(t *testing.T, s *ecmpSite) {
			rules := put(t, recipe(t, "BGP with BIRD"), "/etc/nftables.d/router.conf",
				"10.0.0.3 : 3", "10.0.0.3 : 3, 10.0.0.4 : 4, 10.0.0.5 : 5")
			s.router.Shell(t, harness.Tool(t, "nft")+" -f "+rules)
			for n := 1; n <= ecmpNodes; n++ {
				table := fmt.Sprint(100 + n)
				s.router.IP(t, "route", "add", "192.0.2.10", "via", fmt.Sprintf("10.0.0.%d", n), "table", table)
				s.router.IP(t, "rule", "add", "fwmark", fmt.Sprint(n), "lookup", table)
			}
		}, route: threshold},
		{name: "hash threshold", prepare: func(t *testing.T, s *ecmpSite) {
			s.router.Shell(t, harness.Tool(t, "nft")+" delete table ip limeload")
		}, route: threshold},
	}
}

// TestNetnsFleetECMP is a small run of what TestSoakNetnsFleetECMP measures.
func TestNetnsFleetECMP(t *testing.T) {
	t.Parallel()
	experiment(t, 400)
}

// experiment counts the sessions and flows that a change breaks, of n each: a node that drains, comes back and crashes,
// with each kind of router, and a backend that leaves.
func experiment(t *testing.T, n int) {
	s := startECMP(t)
	for _, kind := range routerKinds() {
		kind.prepare(t, s)
		e := &ecmpRun{ecmpSite: s, kind: kind, n: n}
		e.route(t, 1, 2, 3, 4, 5)
		e.flows = s.openFlows(t, n)
		e.drain(t, "node drains", 0)
		e.comeBack(t)
		e.crash(t)
		e.comeBack(t)
		if !kind.resident {
			e.loseBackend(t, 2)
			e.drain(t, "node drains after that", 0)
		}
		e.sessions.close()
		for _, f := range e.flows {
			f.conn.Close()
		}
	}
}

// An ecmpRun is the experiment with one kind of router.
type ecmpRun struct {
	*ecmpSite
	kind     routerKind
	n        int
	sessions established
	flows    []*openFlow
	lost     time.Time // when a backend was
}

func (e *ecmpRun) route(t *testing.T, nodes ...int) {
	t.Helper()
	e.router.IP(t, e.kind.route(nodes)...)
}

// refill opens new sessions, in place of those from before the last change, which the hash has sorted.
func (e *ecmpRun) refill(t *testing.T) {
	t.Helper()
	e.sessions.close()
	for _, n := range e.nodes { // sessions whose client got a reset from another node
		select {
		case <-n.balancer.Done():
		default:
			n.balancer.Ask(t, "DELETE", "/v1/sessions?all=true", nil, nil)
		}
	}
	harness.Eventually(t, "the sessions end", func() error {
		for _, b := range e.backends {
			if open := b.Open(); open > 0 {
				return fmt.Errorf("%s has %d", b.Address(), open)
			}
		}
		return nil
	})
	// a new address, so that no connection meets an earlier one from its port
	e.refills++
	from := fmt.Sprintf("198.51.100.%d", 10+e.refills)
	e.client.IP(t, "address", "add", from+"/24", "dev", "eth0")
	e.sessions = establishFrom(t, e.client, &net.TCPAddr{IP: net.ParseIP(from)}, fleetAddress, e.n)
}

// drain takes the first node out of the route, and then ends it, while visitors come.
func (e *ecmpRun) drain(t *testing.T, what string, left byte) {
	t.Helper()
	e.refill(t)
	v := startVisitors(t, e.client, fleetAddress)
	e.route(t, 2, 3, 4, 5)
	b := e.nodes[0].balancer
	b.Signal(t, syscall.SIGTERM)
	b.WaitLine(t, "the listeners close", func(l harness.Line) bool { return l.Event == "draining" })
	v.report(t, what)
	own, others := e.count(t, what, left)
	switch {
	case e.kind.remember && own+others > 0, e.kind.resident && others > 0:
		t.Errorf("%s: broken sessions", what)
	case !e.kind.resident && (others < e.n/10 || others > e.n*45/100): // three of ten are expected
		t.Errorf("%s: the hash moves %d of %d sessions of other nodes", what, others, e.n)
	}
	b.Signal(t, syscall.SIGTERM) // cuts what it has
	b.Wait(t)
}

// comeBack starts the first node again, and puts it into the route.
func (e *ecmpRun) comeBack(t *testing.T) {
	t.Helper()
	e.refill(t)
	v := startVisitors(t, e.client, fleetAddress)
	e.nodes[0].join(t)
	e.route(t, 1, 2, 3, 4, 5)
	v.report(t, "node comes back")
	if own, others := e.count(t, "node comes back", 0); e.kind.resident && own+others > 0 {
		t.Error("broken sessions")
	}
}

// crash kills the first node, and takes it out of the route.
func (e *ecmpRun) crash(t *testing.T) {
	t.Helper()
	e.refill(t)
	e.nodes[0].balancer.Kill(t)
	e.route(t, 2, 3, 4, 5)
	if _, others := e.count(t, "node crashes", 0); e.kind.resident && others > 0 {
		t.Error("sessions of other nodes are broken")
	}
}

// loseBackend ends a backend, and waits until all nodes know.
func (e *ecmpRun) loseBackend(t *testing.T, i int) {
	t.Helper()
	e.refill(t)
	e.lost = time.Now()
	e.backends[i].Close()
	e.udpBackends[i].Close()
	for _, n := range e.nodes {
		n.balancer.WaitVerdict(t, fmt.Sprintf("b%d", i+1), "unhealthy", e.lost)
	}
	had := slices.IndexFunc(e.sessions, func(s *openSession) bool { return int(s.backend) == 101+i }) >= 0
	own, others := e.count(t, "backend leaves", byte(101+i))
	if !had || own+others == 0 {
		t.Error("the backend had no sessions")
	}
}

// count uses all sessions and flows after a change of the first node or of the backend that left, and leaves the
// sessions that work. It returns how many sessions of the node or backend, and of others, are broken. No flow of another
// backend may change its backend, unless a backend has left before.
func (e *ecmpRun) count(t *testing.T, what string, left byte) (own, others int) {
	t.Helper()
	all, its := len(e.sessions), e.sessions.on(1)
	work, broken := e.sessions.use()
	own = broken.on(1)
	if left != 0 {
		its, own = 0, 0
		for _, s := range e.sessions {
			if s.backend == left {
				its++
			}
		}
		for _, s := range broken {
			if s.backend == left {
				own++
			}
		}
	}
	others = len(broken) - own
	broken.close()
	e.sessions = work
	otherNode, otherBackend := askAll(t, e.flows, left)
	t.Logf("%s: %-22s of %d sessions, %d of them there: %d of these and %d others broken; of %d flows: %d to another node, "+
		"%d to another backend", e.kind.name, what, all, its, own, others, len(e.flows), otherNode, otherBackend)
	if limit := len(e.flows) / 50; otherBackend > 0 && (e.lost.IsZero() || otherBackend > limit) {
		t.Errorf("%s: flows to another backend", what)
	}
	return own, others
}
