package gate

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/pool/rate"
)

// BenchmarkClients measures what one more client costs that the table does not know, at a full table for a million, and
// one that it knows. It also reports the memory of the table after ten million clients.
func BenchmarkClients(b *testing.B) {
	limits := &Limits{ClientRate: rate.PerSecond(100, 100)}
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / (1 << 20)
	}
	before := heap()
	table := newClients(limits, 1)
	now := time.Duration(1)
	come := func(n int) {
		now += time.Microsecond
		table.admit(numbered(n), limits, 0, false, now)
	}
	const many = 10_000_000
	var half float64
	for n := range many {
		if come(n); n == many/2 {
			half = heap()
		}
	}
	full := heap()
	b.Run("new", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			come(many + n)
		}
		b.ReportMetric(half-before, "MiB-after-5M")
		b.ReportMetric(full-before, "MiB-after-10M")
	})
	b.Run("known", func(b *testing.B) {
		come(1)
		for b.Loop() {
			come(1)
		}
	})
	runtime.KeepAlive(table)
}

// BenchmarkAdmitSession measures what a session costs at the gate, from its coming to its leaving.
func BenchmarkAdmitSession(b *testing.B) {
	list := NewAccessList(false)
	for n := range 1_000_000 {
		list.Deny(netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 12), byte(n >> 4), byte(n << 4), 0}), 28))
	}
	for _, tt := range []struct {
		name     string
		settings Settings
	}{
		{"off", Settings{MaxSessions: 1000}},
		{"on", Settings{MaxSessions: 1000, Access: list, Limits: Limits{
			ClientRate: rate.PerSecond(1_000_000, 1_000_000), Rate: rate.PerSecond(1_000_000, 1_000_000),
			ClientSessions: 1000,
		}}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			g := &Gate{started: time.Now(), empty: make(chan struct{})}
			g.Share(nil, 0)
			ls := g.NewListener("web", 1, 1)
			ls.Set(tt.settings)
			n := 0
			for b.Loop() {
				n++
				c := Client{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{254, byte(n >> 16), byte(n >> 8), byte(n)}), 1)}
				var place Place
				ls.AdmitSession(&c, &place, false, time.Duration(n)*time.Microsecond)
				ls.LeaveSession(place, c.Addr.Addr())
			}
		})
	}
}
