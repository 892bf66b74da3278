package daemon

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/l4"
)

// TestClientList merges the clients of several listeners, in each order.
func TestClientList(t *testing.T) {
	client := func(prefix string, rate float64, sessions int, in, out uint64) l4.ClientInfo {
		return l4.ClientInfo{Client: netip.MustParsePrefix(prefix), Rate: rate, Sessions: sessions, BytesIn: in,
			BytesOut: out, Refused: 3, Seen: time.Minute}
	}
	started := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	all := []l4.ListenerClients{
		{Listener: "web", Tracked: true, Known: 2, Most: 1000, Heaviest: []l4.ClientInfo{
			client("192.0.2.1/32", 9, 1, 10, 0), client("2001:db8::/64", 2, 5, 0, 30)}},
		{Listener: "dns", Protocol: l4.UDP, Tracked: true, Known: 1, Most: 2000, Heaviest: []l4.ClientInfo{
			client("192.0.2.3/32", 5, 3, 10, 10)}},
		{Listener: "dns"},
	}
	for by, want := range map[l4.ClientOrder][]string{
		l4.ByRate:     {"192.0.2.1/32", "192.0.2.3/32", "2001:db8::/64"},
		l4.BySessions: {"2001:db8::/64", "192.0.2.3/32", "192.0.2.1/32"},
		l4.ByBytes:    {"2001:db8::/64", "192.0.2.3/32", "192.0.2.1/32"},
	} {
		for limit := range 5 {
			list := clientList(all, by, limit, started)
			var got []string
			for _, c := range list.Clients {
				got = append(got, c.Client)
			}
			if !slices.Equal(got, want[:min(limit, len(want))]) {
				t.Errorf("order %d, limit %d: %q, want %q", by, limit, got, want)
			}
			tables := []admin.ClientTable{{Listener: "dns", Protocol: "tcp"},
				{Listener: "dns", Protocol: "udp", Tracked: true, Known: 1, Max: 2000},
				{Listener: "web", Protocol: "tcp", Tracked: true, Known: 2, Max: 1000}}
			if !slices.Equal(list.Tables, tables) {
				t.Errorf("the tables are %+v, want %+v", list.Tables, tables)
			}
		}
	}
	want := admin.TrackedClient{Listener: "dns", Protocol: "udp", Client: "192.0.2.3/32", Sessions: 3, Rate: 5,
		BytesIn: 10, BytesOut: 10, Refused: 3, Seen: started.Add(time.Minute)}
	if got := clientList(all, l4.ByRate, 2, started).Clients[1]; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestClientsRefused checks which queries for clients are refused.
func TestClientsRefused(t *testing.T) {
	d := testDaemon(t, parsed(t, ""))
	if _, err := d.Clients(admin.ClientQuery{Listener: "none"}); !errors.Is(err, admin.ErrUnknownListener) {
		t.Errorf("an unknown listener: %v", err)
	}
	var refused *admin.RequestError
	if _, err := d.Clients(admin.ClientQuery{Sort: "name"}); !errors.As(err, &refused) || refused.Field != "sort" {
		t.Errorf("an unknown order: %v", err)
	}
	for _, by := range append(admin.ClientOrders(), "") {
		if _, err := d.Clients(admin.ClientQuery{Listener: "web", Sort: by}); err != nil {
			t.Errorf("order %q: %v", by, err)
		}
	}
}
