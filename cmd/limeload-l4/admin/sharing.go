package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/user"
	"strconv"
	"time"
)

// An Origin says where a run-time change comes from, and for whom it is.
type Origin struct {
	By    string // who makes it: a user of this machine, or an address
	Local bool   // it is for this node alone, and not for the other nodes of its fleet
}

// Sharing says whether the other nodes of a fleet have a change.
type Sharing struct {
	Shared bool   `json:"shared"` // etcd has it; the other nodes follow at once
	Why    string `json:"why,omitempty"`
}

// FleetChange is the last run-time change of one setting, as the fleet shares it. Either Pool and Backend are set, or
// Prefix.
type FleetChange struct {
	At       time.Time  `json:"at"`
	Node     string     `json:"node"` // where it was made
	By       string     `json:"by"`   // who made it; "" if that is not known
	Pool     string     `json:"pool"`
	Backend  string     `json:"backend"`
	Prefix   string     `json:"prefix"`   // of an access rule
	Listener string     `json:"listener"` // of an access rule; "" for every listener
	What     string     `json:"what"`     // there, weight, max_sessions, max_rate, mode or access
	Value    string     `json:"value"`    // such as "5", "removed" or "deny"; "" if it was undone
	Undone   bool       `json:"undone"`   // the setting is what its source says again
	Until    *time.Time `json:"until,omitempty"`
	InForce  bool       `json:"in_force"` // on this node
	Why      string     `json:"why"`      // why it is not in force here; "" if it is
	Pending  bool       `json:"pending"`  // the other nodes do not have it yet
}

// fleetChangeList is an object around the list, see wire.go.
type fleetChangeList struct {
	Changes []FleetChange `json:"changes"`
}

func (s *Server) fleetChanges(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	changes, err := s.balancer.FleetChanges()
	if err != nil {
		return nil, err
	}
	return fleetChangeList{changes}, nil
}

// FleetChanges returns the run-time changes that the fleet shares, the latest first.
func (c *Client) FleetChanges(ctx context.Context) ([]FleetChange, error) {
	list, err := answerOf[fleetChangeList](ctx, c, call{method: http.MethodGet, path: "/v1/fleet/changes"})
	return list.Changes, err
}

// removal is the answer about something that was removed, in a fleet.
type removal struct {
	Sharing *Sharing `json:"sharing"`
}

// removed makes the answer about something that was removed: none without a fleet.
func removed(s *Sharing, err error) (any, error) {
	if s == nil || err != nil {
		return nil, err
	}
	return removal{s}, nil
}

// remove makes a call that removes something, and returns whether the fleet shares that; nil if there is no fleet.
func (c *Client) remove(ctx context.Context, k call) (*Sharing, error) {
	body, err := c.do(ctx, k)
	if err != nil || len(body) == 0 {
		return nil, err
	}
	var answer removal
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("%s %s at %s: the answer is not one of this program: %w", k.method, k.path, c.address, err)
	}
	return answer.Sharing, nil
}

// localQuery is the query of a change that may be local.
func localQuery(local bool) url.Values {
	query := url.Values{}
	if local {
		query.Set("local", "true")
	}
	return query
}

// originOf returns where a request without a body comes from.
func originOf(a *asked) (Origin, error) {
	text := a.query.Get("local")
	if text != "" && text != "true" && text != "false" {
		return Origin{}, invalid("local", text, "true or false")
	}
	return Origin{By: a.by(), Local: text == "true"}, nil
}

// by returns who sends a request: the name of the user at the other end of a Unix socket, or an address.
func (a *asked) by() string {
	var uid, pid int
	if n, err := fmt.Sscanf(a.RemoteAddr, peerFormat, &uid, &pid); n == 2 && err == nil {
		if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
			return u.Username
		}
		return "uid " + strconv.Itoa(uid)
	}
	if host, _, err := net.SplitHostPort(a.RemoteAddr); err == nil {
		return host
	}
	return ""
}
