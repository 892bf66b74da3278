//go:build netns

package test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

const (
	fleetAddress  = "192.0.2.10:6379" // of the recipes
	fleetAddress6 = "[2001:db8::10]:6379"
	fleetConfig   = "/etc/limeload/lb.toml"
)

// A hostNode is a host with a balancer on it.
type hostNode struct {
	*harness.Host
	config   string
	balancer *harness.Balancer
	vrrp     *harness.Process // keepalived
}

// start starts the balancer.
func (n *hostNode) start(t *testing.T) {
	t.Helper()
	n.balancer = harness.StartBalancerWith(t, harness.BalancerOptions{Config: n.config, On: n.Host, Killed: true})
}

// A vrrpSite is two nodes with one address, and a router, from which clients come.
type vrrpSite struct {
	router *harness.Host
	lan    *harness.Network
	nodes  [2]*hostNode
}

// startVRRP starts a site with the files of docs/fleet.md. handOn says whether the nodes hand on packets of each other's
// sessions.
func startVRRP(t *testing.T, handOn bool) *vrrpSite {
	t.Helper()
	s := &vrrpSite{router: harness.NewHost(t, "router"), lan: harness.NewNetwork(t, "lan")}
	s.lan.Join(t, s.router, "eth0", "10.0.0.254/24", "2001:db8::254/64")
	s.router.IP(t, "route", "add", "192.0.2.10", "dev", "eth0")
	inner, servers := harness.NewNetwork(t, "inner"), harness.NewHost(t, "servers")
	inner.Join(t, servers, "eth0", "10.1.0.21/24", "10.1.0.22/24")
	servers.Serve(t, "10.1.0.21:6379", whereabouts)
	servers.Serve(t, "10.1.0.22:6379", whereabouts)
	files, common := recipe(t, "VRRP with keepalived"), recipe(t, "Addresses")
	for i := range s.nodes {
		n := &hostNode{Host: harness.NewHost(t, fmt.Sprintf("node%d", i+1)), config: common[fleetConfig]}
		s.nodes[i] = n
		s.lan.Join(t, n.Host, "eth0", fmt.Sprintf("10.0.0.%d/24", i+1), fmt.Sprintf("2001:db8::%d/64", i+1))
		n.IP(t, "link", "set", "eth0", "address", fmt.Sprintf("02:00:00:00:00:%02d", i+1))
		inner.Join(t, n.Host, "eth1", fmt.Sprintf("10.1.0.%d/24", i+1))
		n.start(t)
		if handOn {
			setAll(t, n.Host, files, "/etc/sysctl.d/limeload-fleet.conf")
			n.IP(t, "address", "add", "192.0.2.10/32", "dev", "lo")
			n.IP(t, "address", "add", "2001:db8::10/128", "dev", "lo")
			other := put(t, files, "/etc/nftables.conf", "02:00:00:00:00:02", fmt.Sprintf("02:00:00:00:00:%02d", 2-i),
				"10.0.0.2 ", fmt.Sprintf("10.0.0.%d ", 2-i), "2001:db8::2 ", fmt.Sprintf("2001:db8::%d ", 2-i))
			n.Shell(t, harness.Tool(t, "nft")+" -f "+other)
		}
		s.keepalive(t, n, files)
	}
	s.master(t)
	return s
}

// keepalive starts keepalived on a node.
func (s *vrrpSite) keepalive(t *testing.T, n *hostNode, files map[string]string) {
	t.Helper()
	// In a user namespace without privileges there is no other user than root, and setgroups is not allowed: strace has
	// keepalived believe that it worked. With -D the traced program keeps the pid.
	config := put(t, files, "/etc/keepalived/keepalived.conf", "nobody", "root")
	dir := filepath.Dir(config)
	n.vrrp = daemon(t, n.Host, "strace", "-D", "--quiet=all", "--follow-forks", "--output=/dev/null",
		"--trace=setgroups", "--inject=setgroups:retval=0", "--seccomp-bpf", "--",
		harness.Tool(t, "keepalived"), "--vrrp", "--dont-fork", "--log-console", "--no-syslog", "--use-file", config,
		"--pid", filepath.Join(dir, "pid"), "--vrrp_pid", filepath.Join(dir, "vrrp.pid"))
}

// master waits until one node has the address, and returns it.
func (s *vrrpSite) master(t *testing.T) (with int) {
	t.Helper()
	harness.Eventually(t, "one node has the address", func() error {
		has := 0
		for i, n := range s.nodes {
			addresses, err := n.Addresses("eth0")
			if err != nil {
				return err
			}
			if slices.Contains(addresses, "192.0.2.10/32") {
				has, with = has+1, i
			}
		}
		if has != 1 {
			return fmt.Errorf("%d have", has)
		}
		return nil
	})
	return with
}

// moved waits until the other node has the address, and returns it.
func (s *vrrpSite) moved(t *testing.T, from int) int {
	t.Helper()
	harness.Eventually(t, "the address moves", func() error {
		if s.master(t) == from {
			return errors.New("it has not moved")
		}
		return nil
	})
	return 1 - from
}

// TestNetnsFleetVRRP: the address moves when a node drains, and when its daemon, its host or its cable is lost. With
// packets handed on, established sessions survive a drain.
func TestNetnsFleetVRRP(t *testing.T) {
	t.Parallel()
	for name, handOn := range map[string]bool{"plain": false, "handed on": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startVRRP(t, handOn)
			first := s.master(t)
			sessions := append(establish(t, s.router, fleetAddress, 50), establish(t, s.router, fleetAddress6, 50)...)
			v, v6 := startVisitors(t, s.router, fleetAddress), startVisitors(t, s.router, fleetAddress6)
			started := time.Now()
			s.nodes[first].balancer.Signal(t, syscall.SIGTERM)
			second := s.moved(t, first)
			t.Logf("a drain moves the address after %v", time.Since(started).Round(100*time.Millisecond))
			s.nodes[first].balancer.WaitLine(t, "the listeners close", func(l harness.Line) bool {
				return l.Event == "draining"
			})
			v.report(t, "drain")
			v6.report(t, "drain, IPv6")
			_, broken := sessions.use()
			t.Logf("drain: %d of %d established sessions broken", len(broken), len(sessions))
			if handOn && len(broken)+len(v.broken)+len(v6.broken) > 0 {
				t.Error("packets of established sessions are not handed on")
			}
			sessions.close()
			if !handOn { // it does not learn that they are closed
				s.nodes[first].balancer.Signal(t, syscall.SIGTERM)
			}
			if code := s.nodes[first].balancer.Wait(t); code != 0 {
				t.Errorf("the drained node ends with exit code %d", code)
			}
			s.nodes[first].start(t)
			s.nodes[first].waitReady(t)

			started = time.Now()
			s.nodes[second].balancer.Kill(t)
			t.Logf("kill -9: the address answers after %v", outage(t, s.router, fleetAddress, started))
			s.moved(t, second)
			s.nodes[second].start(t)
			s.nodes[second].waitReady(t)

			started = time.Now()
			s.lan.Cut(t, s.nodes[first].Host)
			t.Logf("cut cable: the address answers after %v", outage(t, s.router, fleetAddress, started))
		})
	}
}

// waitReady waits until keepalived has found a node ready again, so that it would take the address over.
func (n *hostNode) waitReady(t *testing.T) {
	t.Helper()
	harness.Eventually(t, n.Name+" is ready to take the address", func() error {
		log := n.vrrp.Stdout() + n.vrrp.Stderr()
		if strings.LastIndex(log, "BACKUP STATE") < strings.LastIndex(log, "FAULT STATE") {
			return errors.New("keepalived does not think so")
		}
		return nil
	})
}
