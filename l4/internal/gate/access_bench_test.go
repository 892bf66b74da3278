package gate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
)

// accessPrefixes makes n different prefixes of a kind, and addresses of which half are in one of them.
func accessPrefixes(kind string, n int) (prefixes []netip.Prefix, clients []netip.Addr) {
	r := rand.New(rand.NewPCG(1, 2))
	seen := make(map[netip.Prefix]bool, n)
	v4 := func() netip.Addr {
		x := r.Uint32()
		return netip.AddrFrom4([4]byte{byte(x >> 24), byte(x >> 16), byte(x >> 8), byte(x)})
	}
	v6 := func() netip.Addr { // of 2000::/3, in the first 64 bits of which providers' blocks are dense
		a := [16]byte{0x20 | byte(r.IntN(2)), byte(r.IntN(32))}
		for i := 2; i < 16; i++ {
			a[i] = byte(r.Uint32())
		}
		return netip.AddrFrom16(a)
	}
	for len(prefixes) < n {
		var p netip.Prefix
		switch kind {
		case "ipv4-addresses":
			p = netip.PrefixFrom(v4(), 32)
		case "ipv4-24":
			p, _ = v4().Prefix(24)
		case "ipv6-64":
			p, _ = v6().Prefix(64)
		}
		if !seen[p] {
			seen[p] = true
			prefixes = append(prefixes, p)
		}
	}
	for i := range 1 << 14 {
		c := prefixes[r.IntN(n)].Addr()
		if i%2 == 1 {
			if c = v4(); kind == "ipv6-64" {
				c = v6()
			}
		}
		clients = append(clients, c)
	}
	return prefixes, clients
}

// BenchmarkAccess measures one lookup in a list of n prefixes, and reports its memory for each prefix.

func BenchmarkAccess(b *testing.B) {
	for _, kind := range []string{"ipv4-addresses", "ipv4-24", "ipv6-64"} {
		for _, n := range []int{100, 1_000_000} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				prefixes, clients := accessPrefixes(kind, n)
				var before, after runtime.MemStats
				runtime.GC()
				runtime.GC() // what the first one leaves of making the prefixes
				runtime.ReadMemStats(&before)
				list := NewAccessList(false)
				for _, p := range prefixes {
					list.Deny(p)
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				runtime.KeepAlive(prefixes)
				ls, s := &Listener{gate: new(Gate)}, &Settings{Access: list}
				b.ReportAllocs()
				i, found := 0, 0
				for b.Loop() {
					if !ls.letsIn(s, clients[i&(len(clients)-1)]) {
						found++
					}
					i++
				}
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/prefix")
				if list.Len() != n || i > len(clients) && found < i/3 {
					b.Errorf("%d prefixes, %d of %d found", list.Len(), found, i)
				}
			})
		}
	}
}

// BenchmarkAccessBuild measures how long it takes to make a list of a million prefixes.
func BenchmarkAccessBuild(b *testing.B) {
	for _, kind := range []string{"ipv4-addresses", "ipv4-24", "ipv6-64"} {
		b.Run(kind, func(b *testing.B) {
			prefixes, _ := accessPrefixes(kind, 1_000_000)
			for b.Loop() {
				list := NewAccessList(false)
				for _, p := range prefixes {
					list.Deny(p)
				}
			}
		})
	}
}
