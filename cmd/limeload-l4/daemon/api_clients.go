package daemon

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/l4"
)

// Clients returns the heaviest clients of a listener, or of all.
func (d *Daemon) Clients(q admin.ClientQuery) (admin.ClientList, error) {
	by, err := clientOrder(q.Sort)
	if err != nil {
		return admin.ClientList{}, err
	}
	if q.Listener != "" {
		if err := knownListener(q.Listener, listenerNames(d.config())); err != nil {
			return admin.ClientList{}, err
		}
	}
	limit := min(cmp.Or(max(q.Limit, 0), admin.DefaultClients), admin.MaxClients)
	return clientList(d.server.Clients(q.Listener, by, limit), by, limit, d.server.Started()), nil
}

// clientOrder parses the order of a list of clients; "" is the default.
func clientOrder(name string) (l4.ClientOrder, error) {
	switch name {
	case "", "rate":
		return l4.ByRate, nil
	case "sessions":
		return l4.BySessions, nil
	case "bytes":
		return l4.ByBytes, nil
	}
	return 0, &admin.RequestError{Field: "sort", Value: name, Want: "rate, sessions or bytes"}
}

// clientList merges the heaviest clients of several listeners, limit at most. Moments of the data plane count from
// started.
func clientList(all []l4.ListenerClients, by l4.ClientOrder, limit int, started time.Time) admin.ClientList {
	list := admin.ClientList{Clients: []admin.TrackedClient{}, Tables: []admin.ClientTable{}}
	for _, l := range all {
		protocol := l.Protocol.String()
		list.Tables = append(list.Tables, admin.ClientTable{
			Listener: l.Listener, Protocol: protocol, Tracked: l.Tracked, Known: l.Known, Max: l.Most,
		})
		for _, c := range l.Heaviest {
			list.Clients = append(list.Clients, admin.TrackedClient{
				Listener: l.Listener, Protocol: protocol, Client: c.Client.String(), Sessions: c.Sessions, Rate: c.Rate,
				BytesIn: c.BytesIn, BytesOut: c.BytesOut, Refused: c.Refused, Seen: started.Add(c.Seen),
			})
		}
	}
	slices.SortStableFunc(list.Tables, func(a, b admin.ClientTable) int {
		return cmp.Or(strings.Compare(a.Listener, b.Listener), strings.Compare(a.Protocol, b.Protocol))
	})
	slices.SortStableFunc(list.Clients, func(a, b admin.TrackedClient) int { return heavierFirst(a, b, by) })
	list.Clients = list.Clients[:min(limit, len(list.Clients))]
	return list
}

// heavierFirst compares two clients by an order.
func heavierFirst(a, b admin.TrackedClient, by l4.ClientOrder) int {
	switch by {
	case l4.BySessions:
		return cmp.Compare(b.Sessions, a.Sessions)
	case l4.ByBytes:
		return cmp.Compare(b.BytesIn+b.BytesOut, a.BytesIn+a.BytesOut)
	}
	return cmp.Compare(b.Rate, a.Rate)
}
