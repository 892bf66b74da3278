package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// demoRate is how many requests the demo's client sends in a second.
	demoRate = 20
	// demoAgent tells the demo's client from others.
	demoAgent = "limeload-l4-demo"
)

// A demoClient sends requests through the balancer, and counts what becomes of them. Its zero value is of no use, see
// newDemoClient.
type demoClient struct {
	// set once, then read-only
	url  string
	say  *narrator
	http *http.Client

	mu sync.Mutex
	// mu guards the fields below
	began            time.Time
	requests, errors int
	answers          map[string]int // by backend
	slowest          time.Duration
}

func newDemoClient(url string, say *narrator) *demoClient {
	return &demoClient{url: url, say: say, answers: map[string]int{},
		http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// run sends requests until ctx ends. The last one is completed.
func (c *demoClient) run(ctx context.Context) {
	c.mu.Lock()
	c.began = time.Now()
	c.mu.Unlock()
	tick := time.NewTicker(time.Second / demoRate)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.ask(context.WithoutCancel(ctx))
		}
	}
}

func (c *demoClient) ask(ctx context.Context) {
	start := time.Now()
	answer, err := c.get(ctx)
	took := time.Since(start)
	if err != nil {
		c.say.line("a request failed: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	c.slowest = max(c.slowest, took)
	if err != nil {
		c.errors++
		return
	}
	name, _, _ := strings.Cut(answer, " ")
	c.answers[name]++
}

func (c *demoClient) get(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("User-Agent", demoAgent)
	answer, err := c.http.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1024))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("the answer is %s", answer.Status)
	}
	return string(body), err
}

// line returns how the client fares, as one line.
func (c *demoClient) line() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("client: %s, %s, slowest %s", counted(c.requests, "request"), counted(c.errors, "error"),
		duration(c.slowest))
}

// summary returns what the client has seen, as several lines.
func (c *demoClient) summary() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.requests == 0 {
		return "The demo has ended.\n"
	}
	text := fmt.Sprintf("The demo has ended. In %s its client has sent\n%s: %d failed. The slowest took %s.\n",
		duration(time.Since(c.began)), counted(c.requests, "request"), c.errors, duration(c.slowest))
	for _, name := range slices.Sorted(maps.Keys(c.answers)) {
		text += fmt.Sprintf("%s answered %d\n", name, c.answers[name])
	}
	return text
}
