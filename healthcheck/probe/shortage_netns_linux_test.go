//go:build netns

package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/test/harness"
)

// TestNetnsNoPortLeft uses up both local ports. A healthy target keeps its verdict, and the check says what it lacks.
func TestNetnsNoPortLeft(t *testing.T) {
	ownNetwork(t)
	setSysctl(t, "/proc/sys/net/ipv4/ip_local_port_range", "40000 40001")
	server, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:5000")))
	must(t, err)
	defer server.Close()
	accepting, err := net.Listen("tcp", "127.0.0.1:5000")
	must(t, err)
	defer accepting.Close()
	var taken []net.Conn
	defer func() {
		for _, c := range taken {
			c.Close()
		}
	}()
	for _, network := range []string{"udp", "tcp"} {
		for range 2 {
			c, err := net.Dial(network, "127.0.0.1:5000")
			must(t, err)
			taken = append(taken, c)
		}
	}
	to := healthcheck.Target{ID: "a", Addr: netip.MustParseAddrPort("127.0.0.1:5000")}
	for name, tt := range map[string]struct {
		checker healthcheck.Checker
		want    string
	}{
		"udp":          {UDP{}, "cannot check: resource temporarily unavailable"},
		"dns":          {DNS{}, "cannot check: resource temporarily unavailable"},
		"tcp":          {TCP{}, "cannot check: no local port is free"},
		"dns over tcp": {DNS{TCP: true}, "cannot check: no local port is free"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tt.checker.Check(deadlineIn(t, patience), to)
			failsWith(t, err, tt.want, healthcheck.ErrInconclusive)

			s := healthcheck.NewScheduler(healthcheck.Options{Report: func(changes []healthcheck.Change) {
				t.Errorf("reported %v", changes)
			}})
			p := healthcheck.Policy{Interval: 5 * time.Millisecond, StaleAfter: 2 * time.Second, Timeout: time.Second,
				Rise: 1, Fall: 1, Initial: healthcheck.Healthy}
			must(t, s.Add(to, tt.checker, p))
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() {
				if err := s.Run(ctx); err != nil {
					t.Error(err)
				}
			})
			defer running.Wait()
			defer cancel()
			harness.Eventually(t, "20 checks have found nothing out", func() error {
				if s.Stats().Targets["a"].Checks[healthcheck.FoundNothingOut] < 20 {
					return errors.New("fewer so far")
				}
				return nil
			})
		})
	}
}

// TestNetnsNoAddressOfTheFamily disables IPv6. Sessions could not reach the backend either, and so it is unhealthy.
func TestNetnsNoAddressOfTheFamily(t *testing.T) {
	ownNetwork(t)
	setSysctl(t, "/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")
	for name, c := range map[string]healthcheck.Checker{"tcp": TCP{}, "udp": UDP{}, "dns": DNS{}} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := c.Check(ctx, healthcheck.Target{ID: "a", Addr: netip.MustParseAddrPort("[::1]:5000")})
		cancel()
		if failsWith(t, err, "no address of this machine can reach it"); errors.Is(err, healthcheck.ErrInconclusive) {
			t.Errorf("%s: inconclusive", name)
		}
	}
}
