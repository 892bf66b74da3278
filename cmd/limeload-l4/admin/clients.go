package admin

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// How long a list of clients is.
const (
	MaxClients     = 10_000 // at most
	DefaultClients = 20     // if the query does not say
)

// ClientOrders lists the orders of a list of clients, the default first.
func ClientOrders() []string { return []string{"rate", "sessions", "bytes"} }

// ClientQuery selects clients.
type ClientQuery struct {
	Listener string // "" for those of every listener
	Sort     string // see ClientOrders; "" for the default
	Limit    int    // how many are listed, up to MaxClients; 0 is 20
}

// ClientList is a list of the heaviest clients.
type ClientList struct {
	Clients []TrackedClient `json:"clients"` // the heaviest first
	Tables  []ClientTable   `json:"tables"`  // one for each listener, two for one of both protocols
}

// TrackedClient is what a listener knows of one client, which is a prefix of addresses.
type TrackedClient struct {
	Listener string    `json:"listener"`
	Protocol string    `json:"protocol"`
	Client   string    `json:"client"`          // a prefix
	Sessions int       `json:"sessions"`        // sessions and flows now
	Rate     float64   `json:"rate_per_second"` // sessions, flows and DNS questions of about the last ten seconds
	BytesIn  uint64    `json:"bytes_in"`        // these three since the listener knows the client
	BytesOut uint64    `json:"bytes_out"`
	Refused  uint64    `json:"refused"`
	Seen     time.Time `json:"seen"` // when it came last, refused or not
}

// ClientTable describes the table of clients of one listener.
type ClientTable struct {
	Listener string `json:"listener"`
	Protocol string `json:"protocol"`
	Tracked  bool   `json:"tracked"` // whether the listener has limits that need to know its clients
	Known    int    `json:"known"`   // how many clients it knows
	Max      int    `json:"max"`     // how many it may know
}

func (s *Server) clientList(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	q := ClientQuery{Listener: a.query.Get("listener"), Sort: a.query.Get("sort")}
	if q.Sort != "" {
		if err := oneOf("sort", q.Sort, ClientOrders()); err != nil {
			return nil, err
		}
	}
	var err error
	if q.Limit, err = limit(a.query, MaxClients); err != nil {
		return nil, err
	}
	if q.Limit == 0 {
		q.Limit = DefaultClients
	}
	return result(s.balancer.Clients(q))
}

// Clients returns the heaviest clients.
func (c *Client) Clients(ctx context.Context, q ClientQuery) (ClientList, error) {
	query := url.Values{}
	set(query, "listener", q.Listener)
	set(query, "sort", q.Sort)
	if q.Limit != 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	return answerOf[ClientList](ctx, c, call{method: http.MethodGet, path: "/v1/clients", query: query})
}
