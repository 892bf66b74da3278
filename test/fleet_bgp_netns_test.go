//go:build netns

package test

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// A bgpSite is three nodes that announce an address to a router, and a host behind it with the clients.
type bgpSite struct {
	client, router *harness.Host
	lan            *harness.Network
	remembers      bool // the router
	nodes          [3]*hostNode
}

// startBGP starts a site with the files of docs/fleet.md. remember says whether the router remembers which node a
// session went to.
func startBGP(t *testing.T, remember bool) *bgpSite {
	t.Helper()
	s := &bgpSite{client: harness.NewHost(t, "client"), router: harness.NewHost(t, "router"),
		lan: harness.NewNetwork(t, "lan"), remembers: remember}
	outer, inner, servers := harness.NewNetwork(t, "outer"), harness.NewNetwork(t, "inner"), harness.NewHost(t, "servers")
	outer.Join(t, s.client, "eth0", "198.51.100.9/24")
	outer.Join(t, s.router, "eth1", "198.51.100.1/24")
	s.client.IP(t, "route", "add", "default", "via", "198.51.100.1")
	s.lan.Join(t, s.router, "eth0", "10.0.0.254/24")
	inner.Join(t, servers, "eth0", "10.1.0.21/24", "10.1.0.22/24")
	servers.Serve(t, "10.1.0.21:6379", whereabouts)
	servers.Serve(t, "10.1.0.22:6379", whereabouts)
	files, common := recipe(t, "BGP with BIRD"), recipe(t, "Addresses")
	setAll(t, s.router, files, "/etc/sysctl.d/router.conf")
	router := files["/etc/bird/router.conf"]
	if remember {
		router += files["/etc/bird/sessions.conf"]
		s.router.Shell(t, harness.Tool(t, "nft")+" -f "+put(t, files, "/etc/nftables.d/router.conf"))
		for mark := 1; mark <= len(s.nodes); mark++ {
			s.router.IP(t, "rule", "add", "fwmark", fmt.Sprint(mark), "lookup", fmt.Sprint(100+mark))
		}
	}
	bird(t, s.router, put(t, map[string]string{"router": router}, "router"))
	for i := range s.nodes {
		n := &hostNode{Host: harness.NewHost(t, fmt.Sprintf("node%d", i+1)), config: common[fleetConfig]}
		s.nodes[i] = n
		address := fmt.Sprintf("10.0.0.%d", i+1)
		s.lan.Join(t, n.Host, "eth0", address+"/24")
		inner.Join(t, n.Host, "eth1", fmt.Sprintf("10.1.0.%d/24", i+1))
		n.IP(t, "route", "add", "default", "via", "10.0.0.254")
		n.IP(t, "address", "add", "192.0.2.10/32", "dev", "lo")
		n.start(t)
		control := bird(t, n.Host, put(t, files, "/etc/bird/node.conf", "10.0.0.1", address))
		loop := put(t, files, "/usr/local/sbin/limeload-announce", "birdc ", harness.Tool(t, "birdc")+" -s "+control+" ")
		daemon(t, n.Host, "sh", loop)
		if i == 0 {
			unit := put(t, files, "/etc/systemd/system/limeload-announce.service", "/usr/local/sbin/limeload-announce", loop)
			if output := complaints(t, unit); output != "" {
				t.Error(output)
			}
		}
	}
	s.routes(t, len(s.nodes))
	return s
}

// bird starts BIRD on a host, and returns the path of its control socket.
func bird(t *testing.T, h *harness.Host, config string) string {
	t.Helper()
	harness.MustRun(t, harness.Command{Path: harness.Tool(t, "bird"), Args: []string{"-p", "-c", config}})
	control := filepath.Join(filepath.Dir(config), "ctl")
	daemon(t, h, "bird", "-f", "-c", config, "-s", control, "-P", filepath.Join(filepath.Dir(config), "pid"))
	return control
}

// routes waits until the router's route for the address has n nodes.
func (s *bgpSite) routes(t *testing.T, n int) {
	t.Helper()
	s.router.Shell(t, fmt.Sprintf("timeout %d sh -c 'until [ $(ip route show 192.0.2.10 | grep -c via) = %d ]; do "+
		"sleep 0.02; done'", int(harness.Patience.Seconds()), n))
}

// TestNetnsFleetBGP: nodes announce an address while they are ready. A drain and a return refuse no new session, and
// with a router that remembers sessions break none of the established.
func TestNetnsFleetBGP(t *testing.T) {
	t.Parallel()
	for name, remember := range map[string]bool{"ECMP alone": false, "remembering": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startBGP(t, remember)
			sessions := establish(t, s.client, fleetAddress, 300)
			v := startVisitors(t, s.client, fleetAddress)

			s.nodes[0].balancer.Signal(t, syscall.SIGTERM)
			started := time.Now()
			s.routes(t, 2)
			t.Logf("a drain withdraws the address after %v", time.Since(started).Round(100*time.Millisecond))
			s.nodes[0].balancer.WaitLine(t, "the listeners close", func(l harness.Line) bool {
				return l.Event == "draining"
			})
			v.report(t, "drain")
			s.count(t, "drain", 1, &sessions, remember)
			if !remember { // it does not learn of all ends
				s.nodes[0].balancer.Signal(t, syscall.SIGTERM)
			}
			sessions.close()
			if code := s.nodes[0].balancer.Wait(t); code != 0 {
				t.Errorf("the drained node ends with exit code %d", code)
			}

			sessions = establish(t, s.client, fleetAddress, 300)
			v = startVisitors(t, s.client, fleetAddress)
			s.nodes[0].start(t)
			s.routes(t, 3)
			v.report(t, "return")
			s.count(t, "return", 1, &sessions, remember)

			s.nodes[2].balancer.Kill(t)
			started = time.Now()
			s.routes(t, 2)
			t.Logf("kill -9: the address is withdrawn after %v", time.Since(started).Round(100*time.Millisecond))
			s.count(t, "kill -9", 3, &sessions, false)

			s.lan.Cut(t, s.nodes[1].Host)
			started = time.Now()
			s.routes(t, 1)
			t.Logf("cut cable: the address is withdrawn after %v", time.Since(started).Round(100*time.Millisecond))
			s.count(t, "cut cable", 2, &sessions, false)
		})
	}
}

// count uses all sessions after a change of a node, and leaves those that work. None may be broken if keeps is true, and
// those of other nodes never if the router remembers.
func (s *bgpSite) count(t *testing.T, what string, node int, sessions *established, keeps bool) {
	t.Helper()
	all, on := len(*sessions), sessions.on(node)
	work, broken := sessions.use()
	t.Logf("%s: %d of %d established sessions broken, of which %d were on this node, which had %d", what, len(broken), all,
		broken.on(node), on)
	if keeps && len(broken) > 0 || s.remembers && broken.on(node) < len(broken) {
		t.Errorf("%s: broken sessions", what)
	}
	*sessions = work
}
