package discovery

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
	"github.com/limeload/limeload-l4/pool/discovery/reach"
)

const (
	// restTimeout bounds one request to Patroni's REST API, which asks its store while the client waits.
	restTimeout = 5 * time.Second
	// maxRESTBytes bounds an answer: a member has some 300 bytes in it.
	maxRESTBytes = 1 << 20
	patroniREST  = "Patroni"
)

// A PatroniREST finds the members of a Postgres cluster, and their roles, by Patroni's REST API: it asks the members in
// turn, the one that answered last first. What it finds is as of a Patroni, except that nothing is watched: a failover
// is noticed when Find is called.
//
// Find may be called from any goroutine. The zero value is of no use, see NewPatroniREST.
type PatroniREST struct {
	// set once, then read-only
	o      PatroniOptions
	client *http.Client
	hosts  hosts

	mu sync.Mutex
	// mu guards the fields below
	first int             // the endpoint that answered last
	named map[string]bool // endpoints that belong to the cluster, which their answer to /cluster need not say
}

// NewPatroniREST returns a source that connects to nothing before Find. Options.Namespace is not used.
func NewPatroniREST(o PatroniOptions) *PatroniREST {
	d := net.Dialer{Timeout: etcd.ConnectTimeout}
	secure := o.TLS
	if secure == nil {
		secure = &tls.Config{}
	}
	return &PatroniREST{o: o, named: make(map[string]bool), client: &http.Client{
		Timeout: restTimeout,
		// no proxy, and no connection is kept: the next request is some time away
		Transport: &http.Transport{DialContext: d.DialContext, TLSClientConfig: secure.Clone(), DisableKeepAlives: true,
			MaxResponseHeaderBytes: maxMemberBytes},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Find asks for the members. The error is a *ClusterError, or several, unless ctx ends.
func (p *PatroniREST) Find(ctx context.Context) (Found, error) {
	n := len(p.o.Endpoints)
	p.mu.Lock()
	first := p.first
	p.mu.Unlock()
	var failures []*ClusterError
	for i := range n {
		at := (first + i) % n
		endpoint := p.o.Endpoints[at]
		members, err := p.ask(ctx, endpoint)
		if err != nil {
			failures = append(failures, p.restMistake(ctx, endpoint, err))
			if ctx.Err() != nil {
				break
			}
			continue
		}
		p.mu.Lock()
		p.first = at
		p.mu.Unlock()
		p.hosts.look(ctx, hostsOf(members), hostsEvery)
		return foundMembers(patroniREST, p.o.Endpoints, members, p.hosts.addr)
	}
	return Found{}, joinClusterErrors(p.o.Endpoints, failures)
}

// ask asks one endpoint for the members.
func (p *PatroniREST) ask(ctx context.Context, endpoint string) ([]clusterMember, error) {
	var cluster struct {
		Scope   string         `json:"scope"` // from version 3.1 on
		Members []memberRecord `json:"members"`
	}
	if err := p.get(ctx, endpoint, "/cluster", &cluster); err != nil {
		return nil, err
	}
	if err := p.checkScope(ctx, endpoint, cluster.Scope); err != nil {
		return nil, err
	}
	switch {
	case len(cluster.Members) == 0:
		return nil, &ClusterError{Kind: ErrNoMembers, Detail: "the answer names none"}
	case len(cluster.Members) > maxClusterMembers:
		return nil, &ClusterError{Kind: ErrTooMuchData, Detail: fmt.Sprintf("more than %d members", maxClusterMembers)}
	}
	members := make([]clusterMember, len(cluster.Members))
	for i := range cluster.Members {
		members[i] = p.member(&cluster.Members[i])
	}
	return members, nil
}

// checkScope returns an error if an endpoint belongs to another cluster. said is the scope in its answer, or "".
func (p *PatroniREST) checkScope(ctx context.Context, endpoint, said string) error {
	p.mu.Lock()
	known := p.named[endpoint]
	p.mu.Unlock()
	if said == "" && known {
		return nil
	}
	if said == "" {
		var member struct {
			Patroni struct {
				Scope string `json:"scope"`
			} `json:"patroni"`
		}
		if err := p.get(ctx, endpoint, "/patroni", &member); err != nil {
			return err
		}
		said = member.Patroni.Scope
	}
	if said != p.o.Scope {
		return &ClusterError{Kind: ErrNoScope, Detail: fmt.Sprintf("this member's scope is %s, and not %q", reach.Quote(said),
			p.o.Scope)}
	}
	p.mu.Lock()
	p.named[endpoint] = true
	p.mu.Unlock()
	return nil
}

// member returns a member of the answer.
func (p *PatroniREST) member(r *memberRecord) clusterMember {
	m := clusterMember{name: r.Name, host: r.Host, port: uint16(r.Port), primary: r.Role == "leader", idle: r.rests()}
	switch {
	case !validMemberName(r.Name):
		m.err = errors.New("the name is not 1 to 64 letters, digits, '_', '-' or '.'")
	case r.Host == "":
		m.err = errors.New("it has no host: its conn_url is missing or broken")
	case r.Port < 1 || r.Port > 65535:
		m.err = fmt.Errorf("its port is %d: needs 1 to 65535", r.Port)
	default:
		m.err = checkMemberHost(r.Host)
	}
	lag, err := strconv.ParseInt(string(r.Lag), 10, 64)
	m.idle = m.idle || p.o.MaxLag > 0 && (err != nil || lag > p.o.MaxLag)
	return m
}

// A statusError is an answer with another status than is expected.
type statusError int

func (e statusError) Error() string { return "HTTP status " + strconv.Itoa(int(e)) }

// errNoPatroni is the error of an answer that Patroni does not give.
var errNoPatroni = errors.New("the answer is not Patroni's JSON")

// get decodes the answer to one request into v.
func (p *PatroniREST) get(ctx context.Context, endpoint, path string, v any) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(endpoint, "/")+path, nil)
	if err != nil {
		return err
	}
	if p.o.User != "" {
		q.SetBasicAuth(p.o.User, p.o.Password)
	}
	a, err := p.client.Do(q)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	// a member that is not well answers /patroni with 503 and says its scope all the same
	if a.StatusCode != http.StatusOK && (path != "/patroni" || a.StatusCode != http.StatusServiceUnavailable) {
		return statusError(a.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(a.Body, maxRESTBytes+1))
	if err != nil {
		return err
	}
	if len(body) > maxRESTBytes {
		return &ClusterError{Kind: ErrTooMuchData, Detail: fmt.Sprintf("the answer has more than %d MiB", maxRESTBytes>>20)}
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %w", errNoPatroni, jsonMistake(err))
	}
	return nil
}

// restMistake returns the error of one endpoint in words that say what to do about it.
func (p *PatroniREST) restMistake(ctx context.Context, endpoint string, err error) *ClusterError {
	e := &ClusterError{Kind: ErrNoAnswer, Cause: err}
	if own, is := errors.AsType[*ClusterError](err); is {
		own.What, own.Endpoints = patroniREST, []string{endpoint}
		return own
	}
	e.What, e.Endpoints = patroniREST, []string{endpoint}
	detail, ofTLS := reach.TLS(err)
	code, answered := errors.AsType[statusError](err)
	switch {
	case ofTLS:
		e.Kind, e.Detail = ErrTLS, detail
	case errors.Is(err, http.ErrSchemeMismatch):
		e.Kind, e.Detail = ErrTLS, reach.PlainEndpoint
	case answered && (code == http.StatusUnauthorized || code == http.StatusForbidden) && p.o.User == "":
		e.Kind, e.Detail = ErrLogin, code.Error()+": it needs a login: set user and password_file"
	case answered && (code == http.StatusUnauthorized || code == http.StatusForbidden):
		e.Kind, e.Detail = ErrLogin, fmt.Sprintf("%v: it refuses the user %q with this password: see user and "+
			"password_file", code, p.o.User)
	case answered && strings.HasPrefix(endpoint, "http://") && code == http.StatusBadRequest && reach.SpeaksTLS(ctx, endpoint):
		e.Kind, e.Detail = ErrTLS, reach.SecureEndpoint
	case answered && code >= 500:
		e.Kind, e.Detail = ErrBadAnswer, code.Error()+": this member does not reach its store (etcd) either"
	case answered:
		e.Kind, e.Detail = ErrBadAnswer, code.Error()+": needs the address of Patroni's REST API"
	case errors.Is(err, errNoPatroni):
		e.Kind, e.Detail = ErrBadAnswer, err.Error()
	case reach.IsTimeout(err):
		e.Detail = "timed out"
	case strings.HasPrefix(endpoint, "http://") && isCut(err) && reach.SpeaksTLS(ctx, endpoint):
		e.Kind, e.Detail = ErrTLS, reach.SecureEndpoint
	case strings.HasPrefix(endpoint, "https://") && isCut(err) && reach.SpeaksPlain(ctx, endpoint):
		e.Kind, e.Detail = ErrTLS, reach.PlainEndpoint
	case isCut(err):
		e.Detail = "it closes the connection"
	default:
		e.Detail = reach.NoAnswer(err)
	}
	return e
}

// isCut reports whether a connection was made, and ended before the answer. The library's errors for that have various
// types.
func isCut(err error) bool {
	op, is := errors.AsType[*net.OpError](err)
	return !(is && op.Op == "dial") && slices.ContainsFunc([]string{"EOF", "reset", "malformed", "broken pipe"},
		func(word string) bool { return strings.Contains(err.Error(), word) })
}
