package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

const accessPath = "/v1/access"

// The bounds of access rules.
const (
	MaxAccessRules   = 10_000
	MinRuleTime      = time.Second
	MaxRuleTime      = 10 * 365 * 24 * time.Hour
	MaxCommentLength = 200 // bytes
)

// The actions of access rules.
const (
	ActionAllow = "allow"
	ActionDeny  = "deny"
)

// AccessRule is an access rule that was added at run time.
type AccessRule struct {
	Prefix   string     `json:"prefix"`
	Action   string     `json:"action"`        // allow or deny
	Listener string     `json:"listener"`      // "" for every listener
	Gone     bool       `json:"listener_gone"` // the configuration in force has no such listener
	Added    time.Time  `json:"added"`
	Until    *time.Time `json:"until,omitempty"` // nil if it stays until it is removed
	Comment  string     `json:"comment"`
	Fleet    bool       `json:"fleet"` // the fleet shares it
	// only in the answer about a change, and only with a fleet
	Sharing *Sharing `json:"sharing,omitempty"`
}

// NewAccessRule is an access rule to be added. It replaces the rule for the same prefix and listener.
type NewAccessRule struct {
	Prefix   string   `json:"prefix"` // or an address
	Action   string   `json:"action"`
	Listener string   `json:"listener,omitempty"`    // "" for every listener
	For      *float64 `json:"for_seconds,omitempty"` // nil until it is removed
	Comment  string   `json:"comment,omitempty"`
	Local    bool     `json:"local,omitempty"` // see Origin
	By       string   `json:"-"`               // see Origin
}

// AccessQuery is the query of an access check.
type AccessQuery struct {
	Address  string
	Listener string // "" for every listener
}

// AccessCheck says where an address may come in.
type AccessCheck struct {
	Address   string           `json:"address"`
	Listeners []AccessDecision `json:"listeners"` // sorted by name
}

// AccessDecision says whether an address may come in at a listener, and what decides.
type AccessDecision struct {
	Listener string `json:"listener"`
	Allowed  bool   `json:"allowed"`
	// rule (added at run time), list (of the configuration), or default: no prefix contains the address
	DecidedBy string      `json:"decided_by"`
	Prefix    string      `json:"prefix"`         // that decides; "" for the default
	Rule      *AccessRule `json:"rule,omitempty"` // nil unless a rule decides
	Text      string      `json:"text"`           // all of it in one sentence
}

// Check returns a *RequestError for an invalid value. The Balancer checks the listener.
func (r NewAccessRule) Check() error {
	if _, err := ParsePrefix(r.Prefix); err != nil {
		return err
	}
	if err := oneOf("action", r.Action, []string{ActionAllow, ActionDeny}); err != nil {
		return err
	}
	if _, err := r.Time(); err != nil {
		return err
	}
	return CheckComment(r.Comment)
}

// Time returns how long the rule stays (0 until it is removed), or a *RequestError.
func (r NewAccessRule) Time() (time.Duration, error) {
	if r.For == nil {
		return 0, nil
	}
	seconds := *r.For
	if !(seconds >= MinRuleTime.Seconds() && seconds <= MaxRuleTime.Seconds()) { // also if it is no number
		return 0, invalid("for_seconds", strconv.FormatFloat(seconds, 'g', -1, 64),
			fmt.Sprintf("%.0f to %.0f", MinRuleTime.Seconds(), MaxRuleTime.Seconds()))
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// CheckComment returns a *RequestError for a comment that is too long, or not printable.
func CheckComment(text string) error {
	want := strconv.Itoa(MaxCommentLength) + " bytes at most, all printable"
	if len(text) > MaxCommentLength || !utf8.ValidString(text) {
		return invalid("comment", text, want)
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return invalid("comment", text, want)
		}
	}
	return nil
}

// ParsePrefix parses the prefix of an access rule, or an address, which is the prefix of itself only. A prefix of IPv4
// addresses mapped into IPv6 becomes one of IPv4. The error is a *RequestError.
func ParsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, invalid("prefix", text, "an address or a prefix, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32")
	}
	if p != p.Masked() {
		alone := netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		e := &RequestError{Field: "prefix", Value: clip(text),
			Wrong: fmt.Sprintf("its address has bits set after the first %d", p.Bits()),
			Want:  fmt.Sprintf("%s, or %s for the address alone", p.Masked(), alone)}
		return p, e
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, nil
}

func (s *Server) accessRules(a *asked) (any, error) {
	return accessRuleList{s.balancer.AccessRules()}, noBody(a)
}

func (s *Server) addAccessRule(a *asked) (any, error) {
	var r NewAccessRule
	if err := s.readJSON(a, &r, false); err != nil {
		return nil, err
	}
	if r.Prefix == "" {
		return nil, newProblem(problemBadRequest, "prefix: it needs to be there").of("prefix")
	}
	if r.Action == "" {
		return nil, newProblem(problemBadRequest, "action: it needs to be there: allow or deny").of("action")
	}
	if err := r.Check(); err != nil {
		return nil, err
	}
	r.By = a.by()
	return result(s.balancer.AddAccessRule(r))
}

func (s *Server) removeAccessRule(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	prefix := a.query.Get("prefix")
	if prefix == "" {
		return nil, newProblem(problemBadRequest, "prefix: it needs to be there").of("prefix")
	}
	if _, err := ParsePrefix(prefix); err != nil {
		return nil, err
	}
	from, err := originOf(a)
	if err != nil {
		return nil, err
	}
	return removed(s.balancer.RemoveAccessRule(prefix, a.query.Get("listener"), from))
}

func (s *Server) checkAccess(a *asked) (any, error) {
	if err := noBody(a); err != nil {
		return nil, err
	}
	q := AccessQuery{Address: a.query.Get("address"), Listener: a.query.Get("listener")}
	if q.Address == "" {
		return nil, newProblem(problemBadRequest, "address: it needs to be there").of("address")
	}
	if !isAddress(q.Address) {
		return nil, invalid("address", q.Address, "an IP address, such as 192.0.2.7")
	}
	return result(s.balancer.CheckAccess(q))
}

// AccessRules returns the access rules that were added at run time.
func (c *Client) AccessRules(ctx context.Context) ([]AccessRule, error) {
	list, err := answerOf[accessRuleList](ctx, c, call{method: http.MethodGet, path: accessPath})
	return list.Rules, err
}

// AddAccessRule adds an access rule, and returns it.
func (c *Client) AddAccessRule(ctx context.Context, r NewAccessRule) (AccessRule, error) {
	return answerOf[AccessRule](ctx, c, call{method: http.MethodPost, path: accessPath, json: r})
}

// RemoveAccessRule removes the access rule for a prefix and a listener; "" stands for every listener. It is local to the
// daemon's node if local is true. The result is nil if the daemon is in no fleet.
func (c *Client) RemoveAccessRule(ctx context.Context, prefix, listener string, local bool) (*Sharing, error) {
	query := localQuery(local)
	set(query, "prefix", prefix)
	set(query, "listener", listener)
	return c.remove(ctx, call{method: http.MethodDelete, path: accessPath, query: query})
}

// CheckAccess returns where an address may come in, and what decides.
func (c *Client) CheckAccess(ctx context.Context, q AccessQuery) (AccessCheck, error) {
	query := url.Values{}
	set(query, "address", q.Address)
	set(query, "listener", q.Listener)
	return answerOf[AccessCheck](ctx, c, call{method: http.MethodGet, path: accessPath + "/check", query: query})
}
