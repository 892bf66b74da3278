package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// dialTimeout bounds a connect: a machine that is down does not answer at all.
	dialTimeout = 5 * time.Second
	// maxAnswerBytes bounds an answer. 100,000 backends need less than a third of it.
	maxAnswerBytes = 256 << 20
)

// ClientOptions is the address of a daemon. Only Address is required.
type ClientOptions struct {
	Address string // unix:PATH or HOST:PORT, as in [admin]
	Token   string // "" if the daemon requires none
}

// A Client sends requests to a running daemon. Its methods are those of a Balancer and may be called from any
// goroutine. Its zero value is of no use, see NewClient.
//
// If no daemon answers, errors wrap ErrUnreachable and say what to do about it. Refusals of the daemon are a *Problem
// with the daemon's text; errors.Is finds ErrUnknownPool, ErrUnknownListener, ErrNoDNSCache, ErrUnknownAccessRule,
// ErrTooManyAccessRules, ErrNoFleet, ErrUpgrading, ErrEnding, pool.ErrUnknownBackend, pool.ErrDuplicateBackend and
// pool.ErrDuplicateAddress in it.
//
// Only connecting has a timeout. A reload may take long; contexts bound it.
type Client struct {
	address string // as it was given, for messages
	base    string // of every URL
	token   string
	silence time.Duration // without any byte, after which a stream of events is given up
	http    *http.Client
}

// NewClient makes a client, which connects at its first call. Close it after use.
func NewClient(o ClientOptions) (*Client, error) {
	c := &Client{address: o.Address, token: o.Token, silence: silenceLimit}
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		Proxy:              nil, // a proxy from the environment must not see the token
		DisableCompression: true,
		IdleConnTimeout:    idleTimeout,
	}
	path, isUnix := strings.CutPrefix(o.Address, "unix:")
	switch {
	case isUnix && path == "":
		return nil, fmt.Errorf("admin address %q: needs unix:PATH or HOST:PORT", o.Address)
	case isUnix:
		c.base = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
	default:
		host, port, err := net.SplitHostPort(o.Address)
		if err != nil || port == "" || strings.ContainsAny(host, "/@?# ") {
			return nil, fmt.Errorf("admin address %q: needs unix:PATH or HOST:PORT", o.Address)
		}
		if host == "" {
			host = "localhost"
		}
		c.base = (&url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}).String()
		transport.DialContext = dialer.DialContext
	}
	c.http = &http.Client{
		Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // the API has no redirects, so this is not the daemon
		},
	}
	return c, nil
}

// Close closes the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status returns the state of the daemon.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return answerOf[Status](ctx, c, call{method: http.MethodGet, path: "/v1/status"})
}

// Listeners returns all listeners.
func (c *Client) Listeners(ctx context.Context) ([]Listener, error) {
	list, err := answerOf[listenerList](ctx, c, call{method: http.MethodGet, path: "/v1/listeners"})
	return list.Listeners, err
}

// Pools returns all pools.
func (c *Client) Pools(ctx context.Context) ([]Pool, error) {
	list, err := answerOf[poolList](ctx, c, call{method: http.MethodGet, path: "/v1/pools"})
	return list.Pools, err
}

// Pool returns one pool.
func (c *Client) Pool(ctx context.Context, name string) (Pool, error) {
	return answerOf[Pool](ctx, c, call{method: http.MethodGet, path: "/v1/pools/" + segment(name)})
}

// Backends returns the backends of a pool; for "", those of all pools.
func (c *Client) Backends(ctx context.Context, pool string) ([]Backend, error) {
	path := "/v1/backends"
	if pool != "" {
		path = backendsPath(pool)
	}
	list, err := answerOf[backendList](ctx, c, call{method: http.MethodGet, path: path})
	return list.Backends, err
}

// Backend returns one backend.
func (c *Client) Backend(ctx context.Context, pool, name string) (Backend, error) {
	return answerOf[Backend](ctx, c, call{method: http.MethodGet, path: backendPath(pool, name)})
}

// AddBackend adds a backend to a pool and returns it.
func (c *Client) AddBackend(ctx context.Context, pool string, b NewBackend) (Backend, error) {
	return answerOf[Backend](ctx, c, call{method: http.MethodPost, path: backendsPath(pool), json: b})
}

// ChangeBackend changes a backend and returns it.
func (c *Client) ChangeBackend(ctx context.Context, pool, name string, change BackendChange) (Backend, error) {
	return answerOf[Backend](ctx, c, call{method: http.MethodPatch, path: backendPath(pool, name), json: change})
}

// RemoveBackend removes a backend from its pool, on the daemon's node alone if local is true. The result is nil if the
// daemon is in no fleet.
func (c *Client) RemoveBackend(ctx context.Context, pool, name string, local bool) (*Sharing, error) {
	return c.remove(ctx, call{method: http.MethodDelete, path: backendPath(pool, name), query: localQuery(local)})
}

// DrainBackend starts to drain a backend and returns at once. Backend.Drain is the progress.
func (c *Client) DrainBackend(ctx context.Context, pool, name string, d Drain) (Backend, error) {
	return answerOf[Backend](ctx, c, call{method: http.MethodPost, path: backendPath(pool, name) + "/drain", json: d})
}

// Sessions returns the sessions that the filter selects.
func (c *Client) Sessions(ctx context.Context, f SessionFilter) (SessionList, error) {
	return answerOf[SessionList](ctx, c, call{method: http.MethodGet, path: "/v1/sessions", query: f.values()})
}

// EndSessions ends the sessions that the filter selects, and returns how many they were. The filter must not be empty.
// Its Limit is not sent.
func (c *Client) EndSessions(ctx context.Context, f SessionFilter) (int, error) {
	f.Limit = 0
	ended, err := answerOf[endedSessions](ctx, c,
		call{method: http.MethodDelete, path: "/v1/sessions", query: f.values()})
	return ended.Ended, err
}

// EndAllSessions ends all sessions, and returns how many they were.
func (c *Client) EndAllSessions(ctx context.Context) (int, error) {
	ended, err := answerOf[endedSessions](ctx, c,
		call{method: http.MethodDelete, path: "/v1/sessions", query: url.Values{"all": {"true"}}})
	return ended.Ended, err
}

// Explain returns where a client would be sent, and why.
func (c *Client) Explain(ctx context.Context, q ExplainQuery) (Explanation, error) {
	query := url.Values{}
	set(query, "listener", q.Listener)
	set(query, "pool", q.Pool)
	set(query, "client", q.Client)
	set(query, "sni", q.SNI)
	set(query, "mqtt_client_id", q.MQTTClientID)
	if len(q.ALPN) > 0 {
		query["alpn"] = q.ALPN
	}
	return answerOf[Explanation](ctx, c, call{method: http.MethodGet, path: "/v1/explain", query: query})
}

// PurgeDNS removes answers from a listener's cache, and returns how many they were.
func (c *Client) PurgeDNS(ctx context.Context, listener string, p DNSPurge) (int, error) {
	path := "/v1/listeners/" + segment(listener) + "/dns/purge"
	purged, err := answerOf[purgedDNS](ctx, c, call{method: http.MethodPost, path: path, json: p})
	return purged.Purged, err
}

// Reload puts the daemon's file in force, and returns when that is done.
func (c *Client) Reload(ctx context.Context) (Reloaded, error) {
	return answerOf[Reloaded](ctx, c, call{method: http.MethodPost, path: "/v1/reload"})
}

// Plan returns what a reload with a configuration would do; nil stands for the daemon's own file as it is now.
func (c *Client) Plan(ctx context.Context, configuration *Configuration) (Plan, error) {
	k := call{method: http.MethodPost, path: "/v1/plan"}
	if configuration != nil {
		k.toml = bytes.NewReader(configuration.Text)
		k.query = url.Values{}
		set(k.query, "name", configuration.Name)
	}
	return answerOf[Plan](ctx, c, k)
}

// Upgrade starts a new process of the program that takes over from the daemon, and returns when it has taken over.
func (c *Client) Upgrade(ctx context.Context, u Upgrade) (Upgraded, error) {
	return answerOf[Upgraded](ctx, c, call{method: http.MethodPost, path: "/v1/upgrade", json: u})
}

// LogLevel returns the level of the daemon's log.
func (c *Client) LogLevel(ctx context.Context) (LogLevel, error) {
	return answerOf[LogLevel](ctx, c, call{method: http.MethodGet, path: "/v1/log"})
}

// SetLogLevel sets the level of the daemon's log for that time, or for 0 until the next change or reload, and returns
// it.
func (c *Client) SetLogLevel(ctx context.Context, level string, lasts time.Duration) (LogLevel, error) {
	change := logLevelChange{Level: level}
	if seconds := lasts.Seconds(); lasts != 0 {
		change.For = &seconds
	}
	return answerOf[LogLevel](ctx, c, call{method: http.MethodPut, path: "/v1/log", json: change})
}

// Ready returns nil while the daemon accepts new sessions, and else an error that says why it does not.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/ready"})
	return err
}

// Live returns nil while every loop of the daemon turns, and else an error that says what is wrong.
func (c *Client) Live(ctx context.Context) error {
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/live"})
	return err
}

// A call is one request. At most one of json and toml is set.
type call struct {
	method, path string // path is escaped
	query        url.Values
	json         any
	toml         *bytes.Reader
}

// answerOf makes a call and decodes its answer.
func answerOf[T any](ctx context.Context, c *Client, k call) (T, error) {
	var answer T
	body, err := c.do(ctx, k)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return answer, fmt.Errorf("%s %s at %s: the answer is not one of this program: %w", k.method, k.path,
			c.address, err)
	}
	return answer, nil
}

// do makes a call and returns the body of its answer, or the error in it.
func (c *Client) do(ctx context.Context, k call) ([]byte, error) {
	response, err := c.send(ctx, k)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
	switch {
	case err != nil:
		return nil, c.unreachable(ctx, k, err)
	case len(body) > maxAnswerBytes:
		return nil, fmt.Errorf("%s %s at %s: the answer has more than %d bytes", k.method, k.path, c.address,
			maxAnswerBytes)
	case response.StatusCode/100 != 2:
		return nil, c.refusal(k, response, body)
	}
	return body, nil
}

// send makes a call and returns when it has the header of the answer. The caller closes the body.
func (c *Client) send(ctx context.Context, k call) (*http.Response, error) {
	var body io.Reader
	contentType := ""
	switch {
	case k.json != nil:
		encoded, err := json.Marshal(k.json)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", k.method, k.path, err)
		}
		body, contentType = bytes.NewReader(encoded), mediaJSON
	case k.toml != nil:
		body, contentType = k.toml, mediaTOML
	}
	target := c.base + k.path
	if len(k.query) > 0 {
		target += "?" + k.query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, k.method, target, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", k.method, k.path, err)
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(ctx, k, err)
	}
	return response, nil
}

// refusal converts an answer that is an error.
func (c *Client) refusal(k call, response *http.Response, body []byte) error {
	media, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";")
	switch media {
	case mediaProblem:
		var p Problem
		if err := json.Unmarshal(body, &p); err == nil && p.Type != "" {
			return &p
		}
	case mediaText: // from /ready and /live
		if text := strings.TrimSpace(string(body)); text != "" && response.StatusCode == http.StatusServiceUnavailable {
			return errors.New(text)
		}
	}
	return fmt.Errorf("%s %s at %s: the answer is %s, and not one of this program", k.method, k.path, c.address,
		response.Status)
}

// values returns f as a query.
func (f SessionFilter) values() url.Values {
	v := url.Values{}
	set(v, "id", f.ID)
	set(v, "listener", f.Listener)
	set(v, "pool", f.Pool)
	set(v, "backend", f.Backend)
	set(v, "client", f.Client)
	if f.MinAge != 0 {
		v.Set("min_age", f.MinAge.String())
	}
	if f.MinIdle != 0 {
		v.Set("min_idle", f.MinIdle.String())
	}
	if f.Limit != 0 {
		v.Set("limit", strconv.Itoa(f.Limit))
	}
	return v
}

// set adds a parameter unless it is empty. The API refuses empty ones, so that nobody selects everything by mistake.
func set(v url.Values, name, value string) {
	if value != "" {
		v.Set(name, value)
	}
}

// segment escapes a name as a segment of a path. url.PathEscape does not escape "." and "..", which are removed from
// paths.
func segment(name string) string {
	if name == "." || name == ".." {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}

func backendsPath(pool string) string      { return "/v1/pools/" + segment(pool) + "/backends" }
func backendPath(pool, name string) string { return backendsPath(pool) + "/" + segment(name) }
