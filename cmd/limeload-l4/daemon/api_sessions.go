package daemon

import (
	"context"
	"net/netip"
	"strconv"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/l4"
)

// defaultSessions is the limit of a list of sessions that has none.
const defaultSessions = 1000

// Sessions returns a list of sessions.
func (d *Daemon) Sessions(ctx context.Context, f admin.SessionFilter) (admin.SessionList, error) {
	filter, err := sessionFilter(f)
	if err != nil {
		return admin.SessionList{}, err
	}
	if filter.Limit = f.Limit; f.Limit == 0 {
		filter.Limit = defaultSessions
	}
	found, err := d.server.List(ctx, filter)
	if err != nil {
		return admin.SessionList{}, err
	}
	list := admin.SessionList{Sessions: make([]admin.Session, len(found.Sessions)), Total: found.Total}
	for i, s := range found.Sessions {
		list.Sessions[i] = admin.Session{
			ID: s.ID.String(), Listener: s.Listener, Client: s.Client.String(), Pool: s.Pool, Backend: s.Backend,
			Phase: s.Phase, Age: s.Age.Seconds(), Idle: s.Idle.Seconds(), BytesIn: s.BytesIn, BytesOut: s.BytesOut,
			Retries: s.Retries,
		}
		if s.Via.IsValid() {
			list.Sessions[i].Via = s.Via.String()
		}
		if s.BackendAddress.IsValid() {
			list.Sessions[i].Address = s.BackendAddress.String()
		}
	}
	return list, nil
}

// EndSessions ends sessions and returns how many they were.
func (d *Daemon) EndSessions(ctx context.Context, f admin.SessionFilter) (int, error) {
	filter, err := sessionFilter(f)
	if err != nil {
		return 0, err
	}
	return d.server.End(ctx, filter)
}

// endSessions ends the sessions of a backend.
func (d *Daemon) endSessions(ctx context.Context, pool, backend string) (int, error) {
	return d.server.End(ctx, l4.SessionFilter{Pool: pool, Backend: backend})
}

// sessionFilter parses a filter. Unknown names match nothing: they may belong to something that was removed.
func sessionFilter(f admin.SessionFilter) (l4.SessionFilter, error) {
	filter := l4.SessionFilter{Listener: f.Listener, Pool: f.Pool, Backend: f.Backend, MinAge: f.MinAge,
		MinIdle: f.MinIdle}
	if f.ID != "" {
		id, err := l4.ParseSessionID(f.ID)
		if err != nil {
			return filter, &admin.RequestError{Field: "id", Value: f.ID,
				Want: "sixteen hexadecimal digits, as an access line has them"}
		}
		filter.ID = id
	}
	if f.Client != "" {
		prefix, err := netip.ParsePrefix(f.Client)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(f.Client); err == nil {
				prefix, err = addr.Unmap().Prefix(addr.Unmap().BitLen())
			}
		}
		if err != nil {
			return filter, &admin.RequestError{Field: "client", Value: f.Client,
				Want: `an address or a prefix, such as "10.0.0.7" or "10.0.0.0/8"`}
		}
		filter.Client = prefix.Masked()
	}
	switch {
	case f.MinAge < 0:
		return filter, &admin.RequestError{Field: "min_age", Value: f.MinAge.String(), Want: "0s or more"}
	case f.MinIdle < 0:
		return filter, &admin.RequestError{Field: "min_idle", Value: f.MinIdle.String(), Want: "0s or more"}
	case f.Limit < 0:
		return filter, &admin.RequestError{Field: "limit", Value: strconv.Itoa(f.Limit), Want: "0 or more"}
	}
	return filter, nil
}
