package test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/limeload/limeload-l4/test/harness"
)

// A checkedBackend has what the API says about the checks of a backend.
type checkedBackend struct {
	Name    string `json:"name"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	Check   struct {
		Nodes []string `json:"nodes"` // that have found the reason, if it is not this one
	} `json:"check"`
}

// verdicts returns the backends of the pool all by name, as a node has them.
func (n *fleetNode) verdicts(t testing.TB) map[string]checkedBackend {
	t.Helper()
	var answer struct {
		Backends []checkedBackend `json:"backends"`
	}
	n.ask(t, "GET", "/v1/pools/all/backends", nil, &answer)
	all := make(map[string]checkedBackend)
	for _, b := range answer.Backends {
		all[b.Name] = b
	}
	return all
}

// awaitVerdicts waits until a backend has a verdict on some nodes, and returns when each of them had it.
func awaitVerdicts(t *testing.T, nodes []*fleetNode, backend, verdict string, since time.Time) []time.Duration {
	t.Helper()
	took := make([]time.Duration, len(nodes))
	var waiting sync.WaitGroup
	for i, n := range nodes {
		waiting.Go(func() {
			harness.Eventually(t, fmt.Sprintf("%s is %s on %s", backend, verdict, n.Name), func() error {
				if b := n.verdicts(t)[backend]; b.Verdict != verdict {
					return fmt.Errorf("it is %s: %s", b.Verdict, b.Reason)
				}
				return nil
			})
			took[i] = time.Since(since)
		})
	}
	waiting.Wait()
	return took
}

// shares returns how many backends a node checks for all, leaves to others, and checks for itself.
func (n *fleetNode) shares(t testing.TB) (own, others, looking int) {
	t.Helper()
	m := metrics(t, n.Balancer)
	of := func(state string) int { return int(m[fmt.Sprintf("limeload_fleet_checks{state=%q}", state)]) }
	return of("own"), of("others"), of("looking")
}

// awaitShared waits until k nodes check each backend, and nobody else.
func awaitShared(t *testing.T, nodes []*fleetNode, backends, k int) {
	t.Helper()
	harness.Eventually(t, "the checks are divided", func() error {
		all, text := 0, ""
		for _, n := range nodes {
			own, others, looking := n.shares(t)
			text += fmt.Sprintf(" %s: %d %d %d", n.Name, own, others, looking)
			if all += own; looking > 0 || own+others != backends {
				return fmt.Errorf("own, others, looking:%s", text)
			}
		}
		if want := backends * min(k, len(nodes)); all != want {
			return fmt.Errorf("%d checks, want %d:%s", all, want, text)
		}
		return nil
	})
}

// serveAll starts backends.
func serveAll(t *testing.T, n int) (all []*harness.Backend, addresses []string) {
	t.Helper()
	for range n {
		b := harness.Serve(t, harness.Echo)
		all, addresses = append(all, b), append(addresses, b.Address())
	}
	return all, addresses
}

// fleetHealth are checks that find a dead backend within a second.
var fleetHealth = []string{`interval = "500ms"`, `fast_interval = "100ms"`, `timeout = "400ms"`, `rise = 2`, `fall = 2`}

// TestFleetProbes: the number of checks of a backend does not grow with the fleet.
func TestFleetProbes(t *testing.T) {
	t.Parallel()
	const backends, window = 6, 5 * time.Second
	for _, nodes := range []int{1, 3, 9} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			servers, addresses := serveAll(t, backends)
			fleet := fleetWorld{
				world: world{Backends: addresses, Health: fleetHealth}, Nodes: nodes, Fleet: []string{"check_share = 2"},
			}.start(t)
			awaitShared(t, fleet, backends, 2)
			before := 0
			for _, s := range servers {
				before -= s.Accepted()
			}
			<-time.After(window)
			for _, s := range servers {
				before += s.Accepted()
			}
			rate := float64(before) / backends / window.Seconds()
			t.Logf("%d nodes: %.2f checks of a backend a second", nodes, rate)
			judges := float64(min(2, nodes))
			if want := judges * 2; rate > want*1.25 || rate < want/2 { // late checks are normal under load
				t.Errorf("%d nodes: %.2f checks of a backend a second, want about %.0f", nodes, rate, want)
			}
			for _, n := range fleet {
				for name, b := range n.verdicts(t) {
					if b.Verdict != "healthy" {
						t.Errorf("%s: %s is %s: %s", n.Name, name, b.Verdict, b.Reason)
					}
				}
			}
		})
	}
}

// TestFleetDeadBackend: all nodes know of a dead backend soon, and one that is checked by others says so.
func TestFleetDeadBackend(t *testing.T) {
	t.Parallel()
	const backends = 4
	servers, addresses := serveAll(t, backends)
	fleet := fleetWorld{
		world: world{Backends: addresses, Health: fleetHealth}, Nodes: 5, Fleet: []string{"check_share = 2"},
	}.start(t)
	awaitShared(t, fleet, backends, 2)
	servers[1].Close()
	took := awaitVerdicts(t, fleet, "b2", "unhealthy", time.Now())
	t.Logf("dead: known after %v", took)
	awaitShared(t, fleet, backends, 2) // the others have looked, and agree
	said := 0
	for _, n := range fleet {
		if len(n.verdicts(t)["b2"].Check.Nodes) > 0 {
			said++
		}
	}
	if want := len(fleet) - 2; said != want {
		t.Errorf("%d nodes say that others check the backend, want %d", said, want)
	}
	harness.ServeOn(t, addresses[1], harness.Echo)
	took = awaitVerdicts(t, fleet, "b2", "healthy", time.Now())
	t.Logf("back: known after %v", took)
	awaitShared(t, fleet, backends, 2)
}

// TestFleetJudgeKilled: when a node dies, its duties go to others, and no verdict changes.
func TestFleetJudgeKilled(t *testing.T) {
	t.Parallel()
	const backends = 6
	servers, addresses := serveAll(t, backends)
	fleet := fleetWorld{
		world: world{Backends: addresses, Health: fleetHealth}, Nodes: 4, Fleet: []string{"check_share = 2"},
	}.start(t)
	awaitShared(t, fleet, backends, 2)
	killed := time.Now()
	fleet[0].Signal(t, syscall.SIGKILL)
	fleet[0].Wait(t)
	fleet[0].ended = true
	rest := fleet[1:]
	servers[0].Close() // one of its judges may be gone, and nobody knows that yet
	took := awaitVerdicts(t, rest, "b1", "unhealthy", killed)
	t.Logf("a backend that died with one of its judges: known after %v", took)
	awaitShared(t, rest, backends, 2)
	t.Logf("the duties of a killed node have moved after %v", time.Since(killed).Round(time.Millisecond))
	for _, n := range rest {
		for _, l := range n.Lines() {
			if l.Event == "verdict_changed" && l.Seen.After(killed) && l.Backend != "b1" {
				t.Errorf("%s: the verdict on %s has changed to %s", n.Name, l.Backend, l.To)
			}
		}
	}
}

// TestFleetNodeStopped: a node whose process is stopped for a while changes no verdict, neither here nor elsewhere,
// and is ready afterwards.
func TestFleetNodeStopped(t *testing.T) {
	t.Parallel()
	const backends, stopped = 6, 5 * time.Second
	_, addresses := serveAll(t, backends)
	fleet := fleetWorld{
		world: world{Backends: addresses, Health: fleetHealth}, Nodes: 3, Fleet: []string{"check_share = 2"},
	}.start(t)
	awaitShared(t, fleet, backends, 2)
	began := time.Now()
	fleet[0].Signal(t, syscall.SIGSTOP)
	<-time.After(stopped)
	fleet[0].Signal(t, syscall.SIGCONT)
	<-time.After(time.Second) // the checks that ran have failed, and others have ended
	awaitShared(t, fleet, backends, 2)
	for _, n := range fleet {
		if status, answer, err := n.TryAPI(t.Context(), "GET", "/ready", nil); err != nil || status != http.StatusOK {
			t.Errorf("%s: ready: %d %s, error %v", n.Name, status, answer, err)
		}
		for _, l := range n.Lines() {
			if l.Event == "verdict_changed" && l.Seen.After(began) {
				t.Errorf("%s: the verdict on %s has changed to %s: %s", n.Name, l.Backend, l.To, l.Reason)
			}
		}
	}
}

// rolesHealth are checks that look for a primary.
var rolesHealth = append([]string{`type = "postgres"`, `user = "limeload"`, `role = "primary"`}, fleetHealth...)

// TestFleetRoles: all nodes follow a failover of Postgres, and never have two primaries.
func TestFleetRoles(t *testing.T) {
	t.Parallel()
	primary := harness.StartPostgres(t)
	do(t, primary, "CREATE TABLE written (id bigint GENERATED ALWAYS AS IDENTITY)")
	standby := primary.StartReplica(t)
	fleet := fleetWorld{
		world: world{Backends: []string{primary.Address(), standby.Address()}, Health: rolesHealth},
		Nodes: 5, Fleet: []string{"check_share = 2"},
	}.start(t)
	awaitVerdicts(t, fleet, "b1", "healthy", time.Now())
	awaitVerdicts(t, fleet, "b2", "wrong_role", time.Now())
	awaitShared(t, fleet, 2, 2)

	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	pauses := make([]time.Duration, len(fleet))
	for i, n := range fleet {
		watching.Go(func() { n.onePrimary(ctx, t) })
		url := fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable&connect_timeout=5", primary.User, n.Address(t, "main"))
		watching.Go(func() { pauses[i] = longestWritePause(ctx, url) })
	}
	began := time.Now()
	primary.Signal(t, syscall.SIGKILL)
	primary.Wait(t)
	do(t, standby, "SELECT pg_promote()")
	promoted := time.Now()
	took := awaitVerdicts(t, fleet, "b2", "healthy", promoted)
	t.Logf("the new primary is known after %v; promotion took %v", took, promoted.Sub(began).Round(time.Millisecond))
	primary.Restart(t) // it believes to be the primary still
	<-time.After(2 * time.Second)
	stop()
	watching.Wait()
	slices.Sort(pauses)
	t.Logf("clients of each node waited at most %v", pauses)
	for _, n := range fleet {
		if all := n.verdicts(t); all["b1"].Verdict == "healthy" || all["b2"].Verdict != "healthy" {
			t.Errorf("%s: in the end: %+v", n.Name, all)
		}
	}
}

// onePrimary checks all the time that a node does not have two primaries.
func (n *fleetNode) onePrimary(ctx context.Context, t *testing.T) {
	for ctx.Err() == nil {
		healthy := 0
		for _, b := range n.verdicts(t) {
			if b.Verdict == "healthy" {
				healthy++
			}
		}
		if healthy > 1 {
			t.Errorf("%s has two primaries", n.Name)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// longestWritePause writes rows again and again, and returns the longest time without one.
func longestWritePause(ctx context.Context, url string) (longest time.Duration) {
	last := time.Now()
	for ctx.Err() == nil {
		if write(ctx, url) == nil {
			longest, last = max(longest, time.Since(last)), time.Now()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return max(longest, time.Since(last)).Round(time.Millisecond)
}

// write writes a row in a session of its own.
func write(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, "INSERT INTO written DEFAULT VALUES")
	return err
}

// TestFleetChecksUpgrade: while nodes are replaced by new processes, and get another check one after the other, no
// verdict changes.
func TestFleetChecksUpgrade(t *testing.T) {
	t.Parallel()
	const backends = 6
	_, addresses := serveAll(t, backends)
	w := fleetWorld{
		world: world{Backends: addresses, Health: fleetHealth}, Nodes: 3, Fleet: []string{"check_share = 2"},
	}
	fleet := w.start(t)
	awaitShared(t, fleet, backends, 2)
	began := time.Now()
	for _, n := range fleet {
		n.do(t, "upgrade")
	}
	awaitShared(t, fleet, backends, 2)
	t.Logf("upgraded after %v", time.Since(began).Round(time.Millisecond))
	for _, n := range fleet {
		next := strings.Replace(n.config, `interval = "500ms"`, `interval = "400ms"`, 1)
		if next == n.config {
			t.Fatal("the configuration has no such interval")
		}
		n.config = next
		n.Configure(t, next)
		n.do(t, "reload")
	}
	awaitShared(t, fleet, backends, 2)
	for _, n := range fleet {
		for name, b := range n.verdicts(t) {
			if b.Verdict != "healthy" {
				t.Errorf("%s: %s is %s: %s", n.Name, name, b.Verdict, b.Reason)
			}
		}
		for _, l := range n.Lines() {
			if l.Event == "verdict_changed" && l.Seen.After(began) && l.From == "healthy" {
				t.Errorf("%s: the verdict on %s has changed to %s: %s", n.Name, l.Backend, l.To, l.Reason)
			}
		}
	}
}
