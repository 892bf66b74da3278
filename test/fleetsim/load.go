package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
)

const (
	// stateEvery is how often a node says how it is; its sessions have changed each time.
	stateEvery = 5 * time.Second
	// batchKeys is how many keys package fleet writes in one transaction.
	batchKeys = 100
	// reachedWithin bounds how long all nodes may take to know something, on a machine that runs them all.
	reachedWithin = 5 * time.Minute
)

// An etcdLoad is what a fleet costs etcd. It is a plain value.
type etcdLoad struct {
	Keys        int     `json:"keys"`
	KeyBytes    float64 `json:"mean_bytes_of_a_key"` // with its value
	StoreBytes  float64 `json:"store_bytes"`         // in use, with all keys there
	MemoryBytes float64 `json:"memory_bytes"`        // of etcd
	Watches     float64 `json:"watches"`
	Request     int     `json:"largest_request_bytes"`
	Phases      []phase `json:"phases"`
}

// A phase is what happened to the fleet, and what it cost. It is a plain value.
type phase struct {
	Name         string  `json:"name"`
	Seconds      float64 `json:"seconds"`      // until every node knew it, or of the measurement
	Transactions float64 `json:"transactions"` // of nodes
	Puts         float64 `json:"puts"`         // keys written
	Events       float64 `json:"events"`       // changes delivered, to all nodes together
	Reads        float64 `json:"reads"`
	Renewals     float64 `json:"renewals"` // of leases
	SentBytes    float64 `json:"sent_bytes"`
	CPUSeconds   float64 `json:"cpu_seconds"` // of etcd
}

// A fleetNode is one simulated node. Its zero value is of no use.
type fleetNode struct {
	fleet    *fleet.Fleet
	name     string
	sessions int // that it last said it has

	stop    context.CancelFunc // ends running
	running sync.WaitGroup
}

// A simulatedFleet is a fleet of nodes. It has one owner.
type simulatedFleet struct {
	server   *etcdServer
	nodes    []*fleetNode
	backends int
	judges   map[int][]*fleetNode // of each backend
	load     etcdLoad
	progress io.Writer
}

// measureEtcd starts a fleet, and has things happen to it.
func measureEtcd(ctx context.Context, o options, progress io.Writer) (*etcdLoad, error) {
	server, err := startEtcd(ctx)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	f := &simulatedFleet{server: server, backends: o.backends, progress: progress}
	for i := range o.nodes {
		name := fmt.Sprintf("lb%03d", i)
		f.nodes = append(f.nodes, &fleetNode{name: name, fleet: fleet.New(fleet.Options{
			Name: "sim", Node: name, Instance: name, Endpoints: []string{server.endpoint}, Prefix: "/limeload/",
		})})
	}
	defer f.stop()
	f.divide(o.judges)
	rack := o.backends / 10
	for _, p := range []struct {
		name string
		does func(context.Context) error
	}{
		{"all nodes start at once", f.startAll},
		{"at rest", func(ctx context.Context) error { return f.rest(ctx, o.rest) }},
		{"a backend fails", func(ctx context.Context) error { return f.fail(ctx, 0, 1) }},
		{fmt.Sprintf("%d backends fail at once", rack), func(ctx context.Context) error { return f.fail(ctx, 1, rack) }},
		{"a node leaves", func(ctx context.Context) error { return f.leave(ctx, o.judges) }},
		{"etcd restarts", f.restart},
	} {
		fmt.Fprintf(progress, "etcd: %s\n", p.name)
		if err := f.measure(ctx, p.name, p.does); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		if len(f.load.Phases) == 1 {
			if err := f.size(); err != nil {
				return nil, err
			}
		}
	}
	return &f.load, nil
}

// stop ends all nodes at once, and waits for them. Their leases are left to etcd, which ends too.
func (f *simulatedFleet) stop() {
	for _, n := range f.nodes {
		if n.stop != nil {
			n.stop()
		}
	}
	for _, n := range f.nodes {
		n.running.Wait()
	}
}

// divide gives the checks of each backend to some nodes, as package daemon does.
func (f *simulatedFleet) divide(judges int) {
	byName := make(map[string]*fleetNode)
	var names []string
	for _, n := range f.nodes {
		byName[n.name] = n
		names = append(names, n.name)
	}
	f.judges = make(map[int][]*fleetNode, f.backends)
	for b := range f.backends {
		for _, name := range fleet.Duties(names, fleet.Key("all", backendName(b)), judges) {
			f.judges[b] = append(f.judges[b], byName[name])
		}
	}
}

// measure adds a phase: what etcd counts while does runs.
func (f *simulatedFleet) measure(ctx context.Context, name string, does func(context.Context) error) error {
	before, err := f.server.figures()
	if err != nil {
		return err
	}
	writes := f.transactions()
	started := time.Now()
	if err := does(ctx); err != nil {
		return err
	}
	took := time.Since(started)
	after, err := f.server.figures()
	if err != nil {
		return err
	}
	if after["process_start_time_seconds"] != before["process_start_time_seconds"] {
		before = figures{} // its counters have begun anew
	}
	grew := func(figure string) float64 { return after[figure] - before[figure] }
	f.load.Phases = append(f.load.Phases, phase{
		Name: name, Seconds: took.Seconds(), Transactions: f.transactions() - writes,
		Puts: grew("etcd_mvcc_put_total"), Events: grew("etcd_debugging_mvcc_events_total"),
		Reads: grew("grpc_server_handled_total Range"), Renewals: grew("grpc_server_msg_received_total LeaseKeepAlive"),
		SentBytes: grew("etcd_network_client_grpc_sent_bytes_total"), CPUSeconds: grew("process_cpu_seconds_total"),
	})
	return nil
}

// transactions returns how many the nodes have made.
func (f *simulatedFleet) transactions() (n float64) {
	for _, node := range f.nodes {
		n += float64(node.fleet.Stats().Writes)
	}
	return n
}

// size notes how much there is in etcd.
func (f *simulatedFleet) size() error {
	now, err := f.server.figures()
	if err != nil {
		return err
	}
	bytes, biggest := 0, 0
	all := f.nodes[0].fleet.Heard("")
	for key, value := range all {
		bytes += len(key) + len(value)
		biggest = max(biggest, len(key)+len(value))
	}
	f.load.Keys, f.load.KeyBytes = len(all), float64(bytes)/float64(len(all))
	f.load.StoreBytes = now["etcd_mvcc_db_total_size_in_use_in_bytes"]
	f.load.MemoryBytes = now["process_resident_memory_bytes"]
	f.load.Watches = now["etcd_debugging_mvcc_watcher_total"]
	f.load.Request = batchKeys * biggest
	return nil
}

// startAll starts all nodes, each with its checks done, and waits until each knows everything.
func (f *simulatedFleet) startAll(ctx context.Context) error {
	for b := range f.backends {
		for _, n := range f.judges[b] {
			n.say(b, "healthy")
		}
	}
	for _, n := range f.nodes {
		n.sayState()
		n.sayPools()
		ctx, stop := context.WithCancel(ctx)
		n.stop = stop
		n.running.Go(func() { n.fleet.Run(ctx) })
	}
	return f.awaitAll(ctx, f.nodes)
}

// awaitAll waits until each of these nodes knows all nodes and all checks.
func (f *simulatedFleet) awaitAll(ctx context.Context, nodes []*fleetNode) error {
	checks := len(nodes) // each also says that it takes part
	for _, judges := range f.judges {
		checks += len(judges)
	}
	for _, n := range nodes {
		err := await(ctx, reachedWithin, n.name+" knows all", func() error {
			if link := n.fleet.Link(); !link.Up {
				return fmt.Errorf("no connection to etcd: %w", cmp.Or(link.Err, errors.New("not yet")))
			}
			if known := len(n.fleet.Heard(fleet.Nodes)); known != len(nodes) {
				return fmt.Errorf("it knows %d nodes", known)
			}
			if known := len(n.fleet.Heard(fleet.Checks)); known != checks {
				return fmt.Errorf("it knows %d of %d checks", known, checks)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// rest lets the nodes say how they are every few seconds, one after the other.
func (f *simulatedFleet) rest(ctx context.Context, d time.Duration) error {
	tick := time.NewTicker(stateEvery / time.Duration(len(f.nodes)))
	defer tick.Stop()
	end := time.After(d)
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			return nil
		case <-tick.C:
			f.nodes[i%len(f.nodes)].sayState()
		}
	}
}

// fail has n backends from this one on fail, and waits until every node knows.
func (f *simulatedFleet) fail(ctx context.Context, from, n int) error {
	for b := from; b < from+n; b++ {
		for _, judge := range f.judges[b] {
			judge.say(b, "unhealthy")
		}
	}
	for _, node := range f.nodes {
		for b := from; b < from+n; b++ {
			for _, judge := range f.judges[b] {
				key := judge.keyOf(b)
				err := await(ctx, reachedWithin, node.name+" knows "+key, func() error {
					if v := verdictIn(node.fleet.HeardOf(key), b); v != "unhealthy" {
						return fmt.Errorf("it is %q", v)
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// leave ends the last node, whose checks the other nodes take over.
func (f *simulatedFleet) leave(ctx context.Context, judges int) error {
	gone := f.nodes[len(f.nodes)-1]
	gone.stop()
	gone.running.Wait()
	gone.fleet.Leave(ctx)
	f.nodes = slices.Clip(f.nodes[:len(f.nodes)-1])
	before := f.judges
	f.divide(judges)
	for b := range f.backends {
		for _, n := range f.judges[b] {
			if !slices.Contains(before[b], n) {
				n.say(b, "healthy")
			}
		}
	}
	return f.awaitAll(ctx, f.nodes)
}

// restart kills etcd and starts it again, with all nodes at its door.
func (f *simulatedFleet) restart(ctx context.Context) error {
	if err := f.server.kill(); err != nil {
		return err
	}
	err := await(ctx, reachedWithin, "all nodes notice", func() error {
		for _, n := range f.nodes {
			if n.fleet.Link().Up {
				return errors.New(n.name + " is connected")
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := f.server.start(ctx); err != nil {
		return err
	}
	return f.awaitAll(ctx, f.nodes)
}

// A checkReport is what a node says of a backend, as in package daemon.
type checkReport struct {
	Sum      string             `json:"sum"`
	Backends map[string]finding `json:"backends"`
}

type finding struct {
	Address string `json:"address"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason,omitempty"`
}

// keyOf returns the key of what the node finds about a backend.
func (n *fleetNode) keyOf(backend int) string {
	return fleet.Checks + fleet.Key("all", backendName(backend), n.name)
}

// say says what the node finds about a backend.
func (n *fleetNode) say(backend int, verdict string) {
	found := finding{Address: specOf(backend).Addr.String(), Verdict: verdict}
	if verdict != "healthy" {
		found.Reason = "connection refused"
	}
	n.fleet.Say(n.keyOf(backend), encode(checkReport{sum, map[string]finding{backendName(backend): found}}))
}

// verdictIn returns the verdict in what a node says of a backend; "" for none.
func verdictIn(value []byte, backend int) string {
	var r checkReport
	_ = json.Unmarshal(value, &r) // of nothing, or of what say has written
	return r.Backends[backendName(backend)].Verdict
}

// sum is as long as those of configurations, checks and tables.
const sum = "0123456789abcdef"

// sayPools says which pools the node checks, and what it chooses in them.
func (n *fleetNode) sayPools() {
	n.fleet.Say(fleet.Checks+fleet.Key(n.name), encode(map[string]map[string]string{"pools": {"all": sum}}))
	n.fleet.Say(fleet.Tables+fleet.Key(n.name, "0"), encode(map[string]string{"all": sum}))
}

// sayState says how the node is, with other figures than before.
func (n *fleetNode) sayState() {
	n.sessions++
	n.fleet.Say(fleet.Nodes+fleet.Key(n.name), encode(fleet.Node{
		Instance: n.name, Host: n.name + ".example.org", Version: "1.0.0", Started: time.Now().UTC(),
		Config: sum, State: "serving", Ready: true, Sessions: n.sessions, Rate: float64(n.sessions) / 7,
	}))
}

// encode returns a value as JSON.
func encode(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // it has plain fields only
	}
	return text
}
