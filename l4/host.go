package l4

import (
	"net/netip"

	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// This file answers questions about the host for whoever makes a Plan. The functions may be called from any goroutine.

// CheckCongestionControl returns an error if connections of this process cannot have the congestion control algorithm
// of that name. It names those that they can have.
func CheckCongestionControl(name string) error { return sock.CheckCongestionControl(name) }

// LoopbackCongestionControl is for pool.Options: the algorithm of connections over the loopback interface for which none
// is configured, as the system is now. It is "" unless the system's algorithm paces what it sends (BBR). Listeners at
// loopback addresses have it by themselves.
func LoopbackCongestionControl() string { return sock.LoopbackCongestionControl() }

// GiveWay has loops interrupt the calling goroutine whenever they have something to do, for work that takes long, such as
// reading a configuration. restore ends it, and is called by the same goroutine. It does nothing before Linux 6.12.
func GiveWay() (restore func()) { return sock.GiveWay() }

// FastOpenAllowed reports whether net.ipv4.tcp_fastopen lets listeners use TCP Fast Open, and its value, which may be
// "" if it cannot be read.
func FastOpenAllowed() (allowed bool, value string) { return sock.FastOpenAllowed() }

// IsLocal reports whether an address is one of this host's now.
func IsLocal(a netip.Addr) bool { return sock.IsLocal(a) }
