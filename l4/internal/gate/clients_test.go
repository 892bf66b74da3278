package gate

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/limeload/limeload-l4/pool/rate"
)

// numbered is the n-th of many IPv6 clients.
func numbered(n int) ClientID {
	var id ClientID
	id[0] = 0x20
	binary.BigEndian.PutUint32(id[4:], uint32(n))
	return id
}

// TestTableIsBounded holds that the table knows no more clients than it may, however many come, and forgets the idle
// ones first: neither who is over its rate nor who has sessions.
func TestTableIsBounded(t *testing.T) {
	limits := &Limits{Tracked: MinTracked, ClientRate: rate.PerSecond(1, 5)}
	table := newClients(limits, 1)
	now := time.Duration(1)
	abuser, holder := numbered(1<<30), numbered(1<<30+1)
	for range 10 {
		table.admit(abuser, limits, 0, false, now)
	}
	table.admit(holder, limits, 0, true, now)
	for n := range 40 * MinTracked {
		now += 50 * time.Microsecond // 16 clients in 40 ms for each set: all of them are fresh
		table.admit(numbered(n), limits, 0, false, now)
		if n%100 == 0 { // it goes on
			if why := table.admit(abuser, limits, 0, false, now); why != ClientOften && n < 1000 {
				t.Fatalf("after %d others the abuser is admitted", n)
			}
		}
	}
	if known := table.known(); known > MinTracked || known < MinTracked*9/10 {
		t.Errorf("%d clients are known, of %d", known, MinTracked)
	}
	for _, id := range []ClientID{abuser, holder} {
		sh, hash := table.place(&id)
		if sh.find(&id, hash) == nil {
			t.Errorf("client %x was forgotten", id)
		}
		sh.mu.Unlock()
	}
	if n := table.forgot.Load(); n != 0 {
		t.Errorf("%d clients that matter were forgotten", n)
	}
}

// TestTableShrinks holds that a lower bound holds at once, and that who matters most stays.
func TestTableShrinks(t *testing.T) {
	limits := &Limits{Tracked: 8 * MinTracked}
	table := newClients(limits, 1)
	for n := range 6 * MinTracked {
		table.admit(numbered(n), limits, 0, n%16 == 0, time.Duration(n))
	}
	before := table.known()
	limits.Tracked = MinTracked
	table.set(limits, time.Second)
	if after := table.known(); before < 5*MinTracked || after > MinTracked {
		t.Errorf("%d clients before, and %d after", before, after)
	}
	kept := 0
	for n := range 6 * MinTracked {
		if id := numbered(n); n%16 == 0 {
			sh, hash := table.place(&id)
			if sh.find(&id, hash) != nil {
				kept++
			}
			sh.mu.Unlock()
		}
	}
	if all := 6 * MinTracked / 16; kept < all*9/10 {
		t.Errorf("of %d clients with sessions %d are known", all, kept)
	}
	if uint64(kept)+table.forgot.Load() != 6*MinTracked/16 {
		t.Errorf("%d are known and %d forgotten", kept, table.forgot.Load())
	}
}

// TestTableCounts holds that sessions, rates and what is shown are those of a simple model, as long as the table is
// not full.
func TestTableCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := &Limits{
			Tracked: MinTracked, ClientSessions: rapid.IntRange(0, 5).Draw(t, "most"),
			DryRun: rapid.Bool().Draw(t, "dry"),
		}
		if rapid.Bool().Draw(t, "limited") {
			limits.ClientRate = rate.PerSecond(rapid.IntRange(1, 100).Draw(t, "rate"), rapid.IntRange(1, 5).Draw(t, "burst"))
		}
		type known struct {
			sessions int
			at       time.Duration
			refused  int
		}
		model := make(map[ClientID]*known)
		table := newClients(limits, 1)
		now := time.Duration(1)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 20).Draw(t, "ms")) * time.Millisecond
			id := numbered(rapid.IntRange(0, 3).Draw(t, "client"))
			m := model[id]
			if m == nil {
				m = new(known)
				model[id] = m
			}
			if rapid.Bool().Draw(t, "leaves") {
				table.leave(id)
				m.sessions = max(0, m.sessions-1)
				continue
			}
			want := Admitted
			if limits.ClientSessions > 0 && m.sessions >= limits.ClientSessions {
				want = ClientFull
			} else if limits.ClientRate.On() {
				if next, wait := limits.ClientRate.Take(m.at, now); wait > 0 {
					want = ClientOften
				} else {
					m.at = next
				}
			}
			if want != Admitted {
				m.refused++
			}
			if want == Admitted || limits.DryRun {
				m.sessions++
			}
			if why := table.admit(id, limits, limits.ClientSessions, true, now); why != want {
				t.Fatalf("reason %d, want %d", why, want)
			}
		}
		for _, c := range table.heaviest(BySessions, 10, now) {
			m := model[ClientID(c.Client.Addr().As16())]
			if m == nil || c.Sessions != m.sessions || c.Refused != uint64(m.refused) {
				t.Fatalf("shown is %+v, want %+v", c, m)
			}
		}
	})
}

// TestHeaviest holds which clients are shown first.
func TestHeaviest(t *testing.T) {
	g := newGate(t, plenty, plenty)
	ls := g.NewListener("web", 1, 1)
	ls.Set(Settings{Limits: Limits{Track: true}})
	come := func(addr string, times, leave int, bytes uint64) {
		a := netip.MustParseAddr(addr)
		for i := range times {
			var place Place
			c := Client{Addr: netip.AddrPortFrom(a, uint16(i))}
			if why := ls.AdmitSession(&c, &place, false, time.Since(g.started)); why != Admitted {
				t.Fatalf("reason %d", why)
			}
			if i < leave {
				ls.LeaveSession(place, a)
			}
		}
		ls.NoteBytes(a, bytes, 1)
	}
	come("192.0.2.1", 50, 50, 10)
	come("192.0.2.2", 20, 0, 20)
	come("2001:db8::1", 10, 5, 1000)
	come("2001:db8::2", 10, 5, 1000)
	for by, want := range map[Order]string{ByRate: "192.0.2.1/32", BySessions: "192.0.2.2/32", ByBytes: "2001:db8::/64"} {
		got := ls.Heaviest(by, 2)
		if len(got) != 2 || got[0].Client.String() != want {
			t.Errorf("order %d: %+v, want %s first", by, got, want)
		}
	}
	all := ls.Heaviest(ByBytes, 10)
	if c := all[0]; len(all) != 3 || c.Sessions != 10 || c.BytesIn != 2000 || c.BytesOut != 2 || c.Rate < 1.9 || c.Rate > 2.1 {
		t.Errorf("%d clients, the first %+v", len(all), c)
	}
	if known, most, forgotten := ls.Tracked(); known != 3 || most != 999_424 || forgotten != 0 {
		t.Errorf("%d of %d clients are known, %d forgotten", known, most, forgotten)
	}
}

// TestSetKeepsClients holds that other limits keep what is known of clients, and that other prefixes do not.
func TestSetKeepsClients(t *testing.T) {
	ls := newGate(t, plenty, plenty).NewListener("web", 1, 1)
	addr := netip.MustParseAddr("192.0.2.1")
	admit := func(want Reason) (place Place) {
		t.Helper()
		c := Client{Addr: netip.AddrPortFrom(addr, 1)}
		if why := ls.AdmitSession(&c, &place, false, time.Second); why != want {
			t.Errorf("reason %d, want %d", why, want)
		}
		return place
	}
	ls.Set(Settings{Limits: Limits{ClientSessions: 2}})
	first := admit(Admitted)
	ls.Set(Settings{Limits: Limits{ClientSessions: 1, ClientRate: rate.PerSecond(10, 10)}})
	admit(ClientFull)
	ls.Set(Settings{Limits: Limits{ClientSessions: 1, Prefix4: 24}})
	other := admit(Admitted)
	admit(ClientFull)
	ls.LeaveSession(first, addr) // of the table before: nothing here
	admit(ClientFull)
	ls.LeaveSession(other, addr)
	admit(Admitted)
}

// TestDryRun holds that a dry run refuses nobody, and counts whom it would refuse, but does not open the access list.
func TestDryRun(t *testing.T) {
	g := newGate(t, plenty, plenty)
	ls := g.NewListener("web", 1, 1)
	ls.Set(Settings{
		Limits: Limits{ClientSessions: 2, Rate: rate.PerSecond(1, 3), DryRun: true},
		Access: listOf(t, false, "-10.0.0.0/8"),
	})
	for range 5 {
		if why := ls.AdmitSession(someone(), new(Place), false, time.Second); why != Admitted {
			t.Errorf("reason %d", why)
		}
	}
	c := Client{Addr: netip.MustParseAddrPort("10.0.0.1:1")}
	if why := ls.AdmitSession(&c, new(Place), false, time.Second); why != Denied {
		t.Errorf("reason %d", why)
	}
	if a, b := ls.WouldRefuse(ClientFull), ls.WouldRefuse(Often); a != 3 || b != 2 || g.Sessions() != 5 {
		t.Errorf("it would have refused %d for their sessions and %d for the rate; %d sessions", a, b, g.Sessions())
	}
}

// TestClaims holds that a listener that delays gives out its places before clients are accepted: as many as there are,
// and as often as the rate says; and that a place comes back when nobody came, or a client was refused.
func TestClaims(t *testing.T) {
	g := newGate(t, plenty, plenty)
	ls := g.NewListener("web", 1, 1)
	ls.Set(Settings{MaxSessions: 2, Limits: Limits{Over: OverDelay, ClientSessions: 1, Rate: rate.PerSecond(100, 3)}})
	claim := func(now time.Duration, want Reason, again time.Duration) {
		t.Helper()
		if at, why := ls.Claim(now); why != want || at != again {
			t.Errorf("reason %d and again at %v, want %d and %v", why, at, want, again)
		}
	}
	now := time.Second
	claim(now, Admitted, 0)
	claim(now, Admitted, 0)
	claim(now, ListenerFull, now+claimAgain)
	ls.Unclaim()
	claim(now, Admitted, 0)
	var place Place
	if why := ls.AdmitSession(someone(), &place, true, now); why != Admitted || ls.Sessions() != 2 {
		t.Errorf("reason %d, %d sessions", why, ls.Sessions())
	}
	if why := ls.AdmitSession(someone(), new(Place), true, now); why != ClientFull || ls.Sessions() != 1 {
		t.Errorf("the same client for reason %d, %d sessions", why, ls.Sessions())
	}
	ls.LeaveSession(place, someone().Addr.Addr())
	claim(now, Admitted, 0)
	claim(now, Admitted, 0)
	ls.Unclaim()
	ls.Unclaim()
	for range 3 { // the burst, but for one that came
		ls.rate.Take(rate.PerSecond(100, 3), now)
	}
	claim(now, Often, now+10*time.Millisecond)
	claim(now+10*time.Millisecond, Admitted, 0)
}

// TestClientMask holds which part of an address stands for a client.
func TestClientMask(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limits{Prefix4: rapid.IntRange(0, 32).Draw(t, "v4"), Prefix6: rapid.IntRange(0, 128).Draw(t, "v6")}
		m := maskOf(&l)
		bits := m.prefix4
		addr := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "four")))
		if rapid.Bool().Draw(t, "six") {
			addr = netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "sixteen")))
			bits = m.prefix6
			if addr.Is4In6() {
				bits, addr = m.prefix4, addr.Unmap()
			}
		}
		want, err := addr.Prefix(bits)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.prefix(m.id(addr.As16())); got != want {
			t.Fatalf("%v with %+v: %v, want %v", addr, l, got, want)
		}
	})
}

// TestHigherRate holds that a higher rate holds at once for who has used up a lower one, and a lower one too.
func TestHigherRate(t *testing.T) {
	seldom, often := rate.Limit{Every: time.Hour, Burst: 2}, rate.PerSecond(100, 1)
	for _, of := range []func(rate.Limit) Limits{
		func(r rate.Limit) Limits { return Limits{ClientRate: r} },
		func(r rate.Limit) Limits { return Limits{Rate: r} },
	} {
		g := newGate(t, plenty, plenty)
		ls := g.NewListener("web", 1, 1)
		admit := func(after time.Duration, want bool) {
			t.Helper()
			why := ls.AdmitSession(someone(), new(Place), false, time.Since(g.started)+after)
			if (why == Admitted) != want {
				t.Errorf("reason %d", why)
			}
		}
		ls.Set(Settings{Limits: of(seldom)})
		admit(0, true)
		admit(0, true)
		admit(time.Minute, false)
		ls.Set(Settings{Limits: of(often)})
		time.Sleep(15 * time.Millisecond) // for the next one of the higher rate
		admit(0, true)
		ls.Set(Settings{Limits: of(seldom)})
		admit(0, true)
		admit(time.Minute, false)
	}
}
