package test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// A churn makes configurations in which two listeners never change, "redis" and "postgres", and everything else does
// each time.
type churn struct {
	redis, postgres string   // addresses of the listeners
	servers         []string // Redis
	database        string   // Postgres
	extra           []string // addresses for listeners that come and go
	random          *rand.Rand
}

// config returns the next configuration; extra says whether it may have more listeners.
func (c *churn) config(extra bool) string {
	pick := func(words ...string) string { return words[c.random.IntN(len(words))] }
	var b strings.Builder
	fmt.Fprintf(&b, "[listener.redis]\naddress = %q\npool = \"redis\"\n", c.redis)
	fmt.Fprintf(&b, "[listener.postgres]\naddress = %q\npool = \"postgres\"\n", c.postgres)
	for i, address := range c.extra {
		if extra && c.random.IntN(2) == 0 {
			fmt.Fprintf(&b, "[listener.extra%d]\naddress = %q\npool = %q\nbacklog = %d\n", i, address,
				pick("redis", "spare"), 1+c.random.IntN(100))
		}
	}
	servers := c.servers
	if n := c.random.IntN(len(servers) + 1); n < len(servers) {
		servers = servers[n : n+1]
	}
	keys := make([]string, len(servers))
	for i := range keys {
		keys[i] = fmt.Sprintf("weight = %d", 1+c.random.IntN(5))
	}
	fmt.Fprintf(&b, "[pool.redis]\nalgorithm = %q\nbackends = %s\n",
		pick("round_robin", "random", "least_conn", "p2c", "least_time", "first", "client_hash", "ring_hash", "maglev"),
		harness.BackendListWith(keys, servers...))
	fmt.Fprintf(&b, "[pool.redis.health]\ninterval = \"%dms\"\nfast_interval = \"10ms\"\nrise = 1\ntype = %q\n",
		100+c.random.IntN(400), pick("tcp", "redis"))
	fmt.Fprintf(&b, "[pool.postgres]\nbackends = %s\n", harness.BackendList(c.database))
	fmt.Fprintf(&b, "[pool.spare]\nbackends = %s\n", harness.BackendList(c.servers...))
	return b.String()
}

// goroutines counts those of the balancer.
func goroutines(t testing.TB, b *harness.Balancer) int {
	t.Helper()
	_, answer := b.API(t, "GET", "/debug/pprof/goroutine?debug=1", nil)
	match := regexp.MustCompile(`^goroutine profile: total (\d+)`).FindSubmatch(answer)
	if match == nil {
		t.Fatalf("no number of goroutines in %.100s", answer)
	}
	n, err := strconv.Atoi(string(match[1]))
	check(t, err)
	return n
}

// TestReload applies 200 configurations in about twenty seconds, with clients of the unchanged listeners that connect,
// close and stay: no client notices, and nothing leaks. Sometimes the file is broken, and nothing changes.
func TestReload(t *testing.T) {
	t.Parallel()
	one, two, database := harness.StartRedis(t), harness.StartRedis(t), harness.StartPostgres(t)
	c := &churn{
		redis: harness.FreeAddress(t), postgres: harness.FreeAddress(t), servers: []string{one.Address, two.Address},
		database: database.Address(), extra: []string{harness.FreeAddress(t), harness.FreeAddress(t)},
		random: rand.New(rand.NewPCG(1, 2)),
	}
	first := c.config(false)
	b := harness.StartBalancer(t, first)
	host, port, err := net.SplitHostPort(c.postgres)
	check(t, err)
	bench := func(args ...string) harness.Command {
		return harness.Command{
			Path: harness.Tool(t, "pgbench"), Args: append([]string{"-h", host, "-p", port, "-U", database.User},
				append(args, database.Database)...),
		}
	}
	harness.MustRun(t, bench("--initialize", "--quiet", "--scale=1"))
	before := goroutines(t, b)

	staying := harness.Start(t, bench("--no-vacuum", "-c", "4", "-j", "2", "-T", "20"))
	passing := harness.Start(t, bench("--no-vacuum", "-S", "-C", "-c", "2", "-T", "20"))
	load := startRedisLoad(t, c.redis, 8, 4)
	redisPort := strings.Split(c.redis, ":")[1]
	stop := make(chan struct{})
	benchmarked := make(chan error, 1)
	go func() { benchmarked <- redisBenchmarks(t, redisPort, stop) }()

	pace := time.NewTicker(100 * time.Millisecond)
	defer pace.Stop()
	for i := range 200 {
		<-pace.C
		if i%20 == 7 {
			brokenReload(t, b)
		}
		b.Reload(t, c.config(true))
	}
	close(stop)
	if err := harness.Receive(t, "end of redis-benchmark", benchmarked); err != nil {
		t.Error(err)
	}
	for _, p := range []*harness.Process{staying, passing} {
		if code := p.Wait(t); code != 0 || !strings.Contains(p.Stdout(), "number of failed transactions: 0 ") {
			t.Errorf("pgbench: exit code %d\n%s\n%s", code, p.Stdout(), p.Stderr())
		}
	}
	load.stop()
	if len(load.refused) > 0 {
		t.Errorf("%d clients could not connect, the first: %v", len(load.refused), load.refused[0])
	}
	for _, s := range load.sessions {
		if s.err != nil {
			t.Errorf("client %s: %v", s.client, s.err)
		}
	}
	// the last two by redis-benchmark, see TestRedisBenchmark
	oneOf(t, b.Sessions(), "client_closed", "backend_closed", "client_reset", "probe")

	b.Reload(t, first)
	harness.Eventually(t, "there are as many goroutines as before", func() error {
		if n := goroutines(t, b); n > before {
			return fmt.Errorf("there are %d, and were %d", n, before)
		}
		return nil
	})
	t.Logf("%d sessions of redis clients", len(load.sessions))
}

// redisBenchmarks runs redis-benchmark with a connection for each request again and again until stop is closed.
func redisBenchmarks(t *testing.T, port string, stop <-chan struct{}) error {
	tool := harness.Tool(t, "redis-benchmark")
	for {
		stdout, stderr, code := harness.Run(t, harness.Command{
			Path: tool, Args: []string{"-p", port, "-k", "0", "-c", "10", "-n", "1000", "-t", "get", "--csv"},
		})
		if code != 0 || strings.Contains(strings.ToLower(stdout+stderr), "error") {
			return fmt.Errorf("redis-benchmark: exit code %d\n%s\n%s", code, stdout, stderr)
		}
		select {
		case <-stop:
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// brokenReload reloads a file with mistakes: the answer is that of `check`, and nothing changes.
func brokenReload(t *testing.T, b *harness.Balancer) {
	t.Helper()
	var before, after any
	b.Ask(t, "GET", "/v1/pools/redis", nil, &before)
	b.Configure(t, "[listener.redis]\naddress = \"127.0.0.1\"\npool = \"rediss\"\n[pool.redis]\nbackends = []\n")
	_, said, code := b.Command(t, "check", "--config", b.File())
	if code != 1 {
		t.Fatalf("check: exit code %d", code)
	}
	status, answer := b.API(t, "POST", "/v1/reload", nil)
	if status != http.StatusUnprocessableEntity {
		t.Fatalf("reload of a broken file: %d %s", status, answer)
	}
	var problem struct {
		Detail string `json:"detail"`
	}
	decode(t, answer, &problem)
	if problem.Detail != strings.TrimSuffix(said, "\n") {
		t.Errorf("reload says\n%s\nand check says\n%s", problem.Detail, said)
	}
	b.Ask(t, "GET", "/v1/pools/redis", nil, &after)
	if a, z := keep(before, "algorithm", "backends", "check"), keep(after, "algorithm", "backends", "check"); a != z {
		t.Errorf("the pool was %s and is %s", a, z)
	}
}

// keep writes some members of a JSON object.
func keep(object any, names ...string) string {
	var kept []string
	for _, name := range names {
		kept = append(kept, fmt.Sprintf("%s %v", name, object.(map[string]any)[name]))
	}
	return strings.Join(kept, ", ")
}

// TestReloadBySignal reloads with SIGHUP, and by the file alone.
func TestReloadBySignal(t *testing.T) {
	t.Parallel()
	one, two := harness.Serve(t, harness.Name("one")), harness.Serve(t, harness.Name("two"))
	w := world{Listen: harness.FreeAddress(t), Backends: []string{one.Address()}}
	b := w.start(t)
	reached := func(name string) {
		t.Helper()
		harness.Eventually(t, "clients reach "+name, func() error {
			if got := readAll(t, b.Dial(t, "main")); got != name {
				return fmt.Errorf("they reach %s", got)
			}
			return nil
		})
	}
	reached("one")
	w.Backends = []string{two.Address()}
	b.Configure(t, w.config(t))
	b.Signal(t, syscall.SIGHUP)
	reached("two")

	w.Global = []string{"watch = true"}
	b.Reload(t, w.config(t))
	w.Backends = []string{one.Address()}
	b.Configure(t, w.config(t))
	reached("one")
	b.Configure(t, "[global]\nwatch = 1\n") // said, and nothing changes
	b.WaitLine(t, "the broken file is logged", func(l harness.Line) bool {
		return l.Level == "error" && strings.Contains(l.Err, "global.watch")
	})
	reached("one")
	w.Backends = []string{two.Address()}
	b.Configure(t, w.config(t))
	reached("two")
	w.Global = nil
	b.Reload(t, w.config(t))
}

// TestReloadListeners adds, moves and removes listeners: sessions stay, counters continue, and an address that cannot
// be bound changes nothing.
func TestReloadListeners(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.Echo)
	w := world{Listen: harness.FreeAddress(t), Backends: []string{backend.Address()}}
	b := w.start(t)
	staying := harness.Dial(t, w.Listen)
	check(t, harness.PingPong(staying, 1, 100))

	taken := harness.Serve(t, harness.Echo)
	old := w.Listen
	w.Listen = taken.Address()
	b.Configure(t, w.config(t))
	status, answer := b.API(t, "POST", "/v1/reload", nil)
	if status != http.StatusUnprocessableEntity || !strings.Contains(string(answer), "address already in use") {
		t.Errorf("an address in use: %d %s", status, answer)
	}
	check(t, harness.PingPong(harness.Dial(t, old), 1, 100))

	w.Listen = harness.FreeAddress(t)
	b.Reload(t, w.config(t))
	b.ListenersMoved()
	check(t, harness.PingPong(harness.Dial(t, w.Listen), 1, 100))
	check(t, harness.PingPong(staying, 1, 100))
	if c, err := net.Dial("tcp", old); err == nil {
		c.Close()
		t.Errorf("somebody still listens on %s", old)
	}
	var all struct {
		Listeners []struct {
			Name     string
			Accepted int
		}
	}
	b.Ask(t, "GET", "/v1/listeners", nil, &all)
	if len(all.Listeners) != 1 || all.Listeners[0].Accepted != 3 {
		t.Errorf("the listeners are %+v, want one that accepted 3", all.Listeners)
	}
	check(t, staying.CloseWrite())
	if line := b.WaitSession(t, staying.LocalAddr()); line.Reason != "client_closed" {
		t.Errorf("the session from before ended with %s", line.Text)
	}
}

// TestReloadAllBackends changes every backend of a pool whose checks have not seen the new ones: no client is refused.
func TestReloadAllBackends(t *testing.T) {
	t.Parallel()
	servers := []*harness.Redis{harness.StartRedis(t), harness.StartRedis(t)}
	w := world{Listen: harness.FreeAddress(t), Backends: []string{servers[0].Address},
		Health: []string{`type = "redis"`, `fast_interval = "50ms"`}}
	b := w.start(t)
	load := startRedisLoad(t, w.Listen, 4, 2)
	for i := range 10 {
		w.Backends = []string{servers[(i+1)%2].Address}
		b.Reload(t, w.config(t))
	}
	load.stop()
	if len(load.refused) > 0 {
		t.Errorf("%d clients were refused, the first: %v", len(load.refused), load.refused[0])
	}
	for _, s := range load.sessions {
		if s.err != nil {
			t.Errorf("client %s: %v", s.client, s.err)
		}
	}
}
