package l4_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// namedPool is a pool of backends that answer with their names.
func namedPool(t *testing.T, at ...string) *pool.Pool {
	t.Helper()
	p, err := pool.New(pool.Options{
		Name: "pool", Algorithm: "round_robin", Initial: pool.Healthy, ConnectTimeout: time.Second, Retries: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range at {
		err := p.Add(pool.Spec{ID: fmt.Sprint("b", i), Addr: pool.At(netip.MustParseAddrPort(a)), Weight: 1})
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// TestHandOverFlows holds that flows of each kind go on with their backend and their socket to it, that datagrams which
// come meanwhile are answered, and that counters go on.
func TestHandOverFlows(t *testing.T) {
	for _, key := range []l4.FlowKey{l4.ByClient, l4.ByClientIP, l4.ByPacket} {
		for _, loops := range [][2]int{{1, 1}, {2, 2}, {2, 1}, {1, 3}, {3, 2}} {
			t.Run(fmt.Sprint(key, loops), func(t *testing.T) { handOverFlows(t, key, loops) })
		}
	}
}

func handOverFlows(t *testing.T, key l4.FlowKey, loops [2]int) {
	before := descriptors(t)
	var at []string
	for i := range 3 {
		at = append(at, startUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, d []byte) {
			_, _ = b.WriteToUDPAddrPort(fmt.Appendf(nil, "b%d %s %s", i, from, d), from)
		}).Address())
	}
	ls := flowSpec(namedPool(t, at...))
	ls.Flows.Key = key
	from := start(t, l4.Options{Loops: loops[0]}, ls)
	const clients = 12
	var all []*net.UDPConn
	var had []string
	for range clients {
		c := dialUDP(t, address(from))
		all = append(all, c)
		had = append(had, askUDP(t, c, "x"))
	}
	flows := from.Flows()
	accepted := info(from).Accepted
	old := listOf(t, from, l4.SessionFilter{})
	ls.Pool = namedPool(t, at...)
	u := l4test.BeginHandOver(t, from, l4.Options{Loops: loops[1]}, ls)
	u.H.Pause()
	for _, c := range all {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Error(err)
		}
	}
	u.MoveAll(l4.UDP, flows)
	if from.Flows() != 0 || u.To.Flows() != flows {
		t.Errorf("%d flows became %d, and %d are left", flows, u.To.Flows(), from.Flows())
	}
	leases := int64(0)
	for _, b := range ls.Pool.Backends() {
		leases += b.Leases
	}
	if want := map[bool]int{true: 1, false: flows}[key == l4.ByClientIP]; leases != int64(want) {
		t.Errorf("%d leases, want %d", leases, want)
	}
	u.To.Admit()
	buf := make([]byte, 100)
	for i, c := range all {
		n, answered := readUDP(t, c, buf, 20*time.Second)
		if !answered || key != l4.ByPacket && string(buf[:n]) != had[i] {
			t.Errorf("%q became %q", had[i], buf[:n])
		}
	}
	u.Finish()
	if key == l4.ByPacket {
		return // there may be more flows by now
	}
	now := listOf(t, u.To, l4.SessionFilter{})
	byID := make(map[l4.SessionID]l4.SessionInfo)
	for _, s := range now.Sessions {
		byID[s.ID] = s
	}
	for _, a := range old.Sessions {
		b := byID[a.ID]
		if a.Client != b.Client || a.Backend != b.Backend || b.DatagramsIn != 2 || b.DatagramsOut != 2 ||
			a.Retries != b.Retries || a.BytesIn+1 != b.BytesIn {
			t.Errorf("%+v became %+v", a, b)
		}
	}
	if _, err := u.To.End(t.Context(), l4.SessionFilter{}); err != nil {
		t.Error(err)
	}
	i := info(u.To)
	if i.Accepted != accepted || i.Ended[tally.EndedByOperator] != accepted || i.DatagramsIn != 2*clients ||
		i.DatagramsOut != 2*clients || len(i.Dropped) != 0 || i.Duration.Count != accepted {
		t.Errorf("%+v", i)
	}
	served := uint64(0)
	for _, b := range ls.Pool.Backends() {
		served += b.Outcomes[pool.Served]
		if b.Leases != 0 {
			t.Errorf("%d leases are left", b.Leases)
		}
	}
	if want := map[bool]uint64{true: 1, false: accepted}[key == l4.ByClientIP]; served != want {
		t.Errorf("%d were served, want %d", served, want)
	}
	if err := u.To.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	eventually(t, "descriptors are closed", func() bool { return openDescriptors(t) <= before+3+clients })
}

// TestHandOverFlowsRefused holds that flows whose backend the other process does not have stay, and that their answers
// come.
func TestHandOverFlowsRefused(t *testing.T) {
	answer := make(chan struct{})
	b := startUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, d []byte) {
		if string(d) == "late" {
			<-answer
		}
		_, _ = b.WriteToUDPAddrPort(d, from)
	})
	other := startUDP(t, naming("other"))
	ls := flowSpec(newPool(t, b.Address()))
	from := start(t, l4.Options{Loops: 2}, ls)
	c := dialUDP(t, address(from))
	if _, err := c.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is a flow", func() bool { return from.Flows() == 1 })
	ls.Pool = newPool(t, other.Address())
	u := l4test.BeginHandOver(t, from, l4.Options{Loops: 2}, ls)
	u.H.Pause()
	if moved, refused := u.Move(l4.UDP, 10); moved != 0 || refused != 1 {
		t.Errorf("%d moved, %d refused", moved, refused)
	}
	if moved, refused := u.Move(l4.UDP, 10); moved+refused != 0 {
		t.Errorf("%d moved, %d refused", moved, refused)
	}
	u.To.Admit()
	u.H.Finish()
	close(answer)
	buf := make([]byte, 100)
	if n, _ := readUDP(t, c, buf, 20*time.Second); string(buf[:n]) != "late" {
		t.Errorf("it got %q", buf[:n])
	}
	if got := askUDP(t, c, "x"); got != "other" {
		t.Errorf("it got %q", got)
	}
	if n, err := from.End(t.Context(), l4.SessionFilter{}); n != 1 || err != nil {
		t.Errorf("%d flows were left, %v", n, err)
	}
	if err := from.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
