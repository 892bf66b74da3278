package test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/limeload/limeload-l4/test/harness"
)

// A shownNode has some of the fields of a node in the API.
type shownNode struct {
	Name        string `json:"name"`
	State       string `json:"state"`
	Ready       bool   `json:"ready"`
	Config      string `json:"config"`
	OtherConfig bool   `json:"other_config"`
}

// A shownFleet has some of the fields of a fleet in the API.
type shownFleet struct {
	Link struct {
		Connected bool   `json:"connected"`
		Endpoint  string `json:"endpoint"`
		Error     string `json:"error"`
	} `json:"link"`
	Nodes []shownNode `json:"nodes"`
}

// A membersFleet is a fleet whose nodes listen at the same port of different addresses, so that their configurations are
// the same but for what belongs to each node.
type membersFleet struct {
	port     int
	backends []string
	fleet    []string // lines of the table fleet
}

// configOf returns the configuration of a node.
func (f *membersFleet) configOf(t *testing.T, i int, fleet []string, pool ...string) string {
	t.Helper()
	w := world{
		Listen: fmt.Sprintf("127.0.0.%d:%d", i, f.port), Backends: f.backends,
		Global: []string{fmt.Sprintf("state_file = %q", filepath.Join(t.TempDir(), "state.json"))},
		Pool:   append([]string{`algorithm = "maglev"`}, pool...),
	}
	lines := append([]string{`name = "edge"`, fmt.Sprintf("node = \"n%d\"", i)}, fleet...)
	return w.config(t) + "[fleet]\n" + strings.Join(lines, "\n") + "\n"
}

// newMembersFleet returns a fleet of no nodes yet, at this endpoint of etcd.
func newMembersFleet(t *testing.T, endpoint string, more ...string) *membersFleet {
	t.Helper()
	return &membersFleet{
		port:     harness.FreePort(t),
		backends: echoAddresses(t, 3),
		fleet:    append([]string{fmt.Sprintf("endpoints = [%q]", endpoint)}, more...),
	}
}

// start starts the node of this number.
func (f *membersFleet) start(t *testing.T, i int) *fleetNode {
	t.Helper()
	return f.startWith(t, i, f.fleet)
}

// startWith is start with other lines of the table fleet.
func (f *membersFleet) startWith(t *testing.T, i int, fleet []string) *fleetNode {
	t.Helper()
	n := &fleetNode{Name: fmt.Sprintf("n%d", i), config: f.configOf(t, i, fleet)}
	n.run(t)
	t.Cleanup(func() {
		if !n.ended {
			n.stop(t)
		}
	})
	return n
}

// awaitFleet waits until what a node knows of its fleet is as it should be, and returns it.
func (n *fleetNode) awaitFleet(t *testing.T, what string, is func(f *shownFleet) bool) (f shownFleet) {
	t.Helper()
	harness.Eventually(t, n.Name+" knows that "+what, func() error {
		f = shownFleet{}
		n.Ask(t, "GET", "/v1/fleet", nil, &f)
		if !is(&f) {
			return fmt.Errorf("it knows %+v", f)
		}
		return nil
	})
	return f
}

// node returns the node of this name; the zero value if there is none.
func (f *shownFleet) node(name string) shownNode {
	i := slices.IndexFunc(f.Nodes, func(n shownNode) bool { return n.Name == name })
	if i < 0 {
		return shownNode{}
	}
	return f.Nodes[i]
}

// allReady reports whether these nodes are there and ready, with the same configuration.
func (f *shownFleet) allReady(names ...string) bool {
	for _, name := range names {
		if n := f.node(name); !n.Ready || n.OtherConfig {
			return false
		}
	}
	return f.Link.Connected
}

// TestFleetMembers: nodes see each other come, change their configuration, and go.
func TestFleetMembers(t *testing.T) {
	t.Parallel()
	etcd := harness.StartEtcd(t, "--unsafe-no-fsync")
	world := newMembersFleet(t, etcd.Endpoint)
	nodes := []*fleetNode{world.start(t, 1), world.start(t, 2), world.start(t, 3)}
	one, two, three := nodes[0], nodes[1], nodes[2]
	for _, n := range nodes {
		n.awaitFleet(t, "all three are ready, with one configuration",
			func(f *shownFleet) bool { return f.allReady("n1", "n2", "n3") })
	}
	out := one.do(t, "fleet")
	for _, want := range []string{"fleet    edge; this is node n1", "connected to " + etcd.Endpoint, "n3", "ready", "same"} {
		if !strings.Contains(out, want) {
			t.Errorf("`fleet` does not print %q:\n%s", want, out)
		}
	}
	if out := one.do(t, "fleet", "verify", "--wait", "30s"); !strings.Contains(out, "3 nodes choose alike") {
		t.Errorf("`fleet verify` prints\n%s", out)
	}
	if out := one.do(t, "status"); !strings.Contains(out, "edge, node n1: 3 nodes, all ready") {
		t.Errorf("`status` prints\n%s", out)
	}

	two.Configure(t, world.configOf(t, 2, world.fleet, "retries = 1"))
	two.do(t, "reload")
	for _, n := range nodes {
		n.awaitFleet(t, "n2 alone runs another file", func(f *shownFleet) bool {
			return f.node("n2").OtherConfig && !f.node("n1").OtherConfig && !f.node("n3").OtherConfig
		})
	}
	if out := one.do(t, "fleet"); !strings.Contains(out, "other") {
		t.Errorf("`fleet` prints\n%s", out)
	} else {
		t.Logf("`fleet` prints\n%s", out)
	}
	measured(t, two.Balancer, map[string]float64{"limeload_fleet_config_differs": 1, "limeload_fleet_connected": 1,
		`limeload_fleet_nodes{state="ready"}`: 3, `limeload_fleet_nodes{state="not_ready"}`: 0})
	measured(t, one.Balancer, map[string]float64{"limeload_fleet_config_differs": 0,
		`limeload_fleet_info{fleet="edge",node="n1"}`: 1})

	began := time.Now()
	three.Kill(t)
	three.ended = true
	one.awaitFleet(t, "n3 is gone", func(f *shownFleet) bool { return f.node("n3").State == "gone" })
	t.Logf("a killed node is gone for the others after %.1f s", time.Since(began).Seconds())
	left := one.WaitLine(t, "n3 has left", func(l harness.Line) bool { return l.Event == "fleet_node_left" })
	if !strings.Contains(left.Reason, "its lease has ended") {
		t.Errorf("the reason in the log is %q", left.Reason)
	}

	began = time.Now()
	two.stop(t)
	one.awaitFleet(t, "n2 has left", func(f *shownFleet) bool { return f.node("n2").State == "left" })
	t.Logf("a stopped node has left for the others after %.1f s, its end included", time.Since(began).Seconds())
	if out := one.do(t, "status"); !strings.Contains(out, "edge, node n1: 1 node") {
		t.Errorf("`status` prints\n%s", out)
	}
	again := world.start(t, 3)
	for _, n := range []*fleetNode{one, again} {
		n.awaitFleet(t, "n3 is back", func(f *shownFleet) bool { return f.allReady("n1", "n3") })
	}
}

// TestFleetVerify: nodes whose pools differ are named, with the reason, until they agree again.
func TestFleetVerify(t *testing.T) {
	t.Parallel()
	etcd := harness.StartEtcd(t, "--unsafe-no-fsync")
	world := newMembersFleet(t, etcd.Endpoint)
	nodes := []*fleetNode{world.start(t, 1), world.start(t, 2), world.start(t, 3)}
	nodes[0].awaitFleet(t, "all three are ready", func(f *shownFleet) bool { return f.allReady("n1", "n2", "n3") })
	nodes[0].do(t, "fleet", "verify", "--wait", "30s")
	for _, tc := range []struct {
		change string // of the file of n2
		want   string
	}{
		{`algorithm = "ring_hash"`, "pool all on node n2: its algorithm is ring_hash, elsewhere maglev"},
		{`hash_key = "client"`, "pool all on node n2: the same backends, and other choices"},
	} {
		config := world.configOf(t, 2, world.fleet, tc.change)
		if key, _, _ := strings.Cut(tc.change, " "); key == "algorithm" {
			config = strings.Replace(config, `algorithm = "maglev"`, "", 1)
		}
		nodes[1].Configure(t, config)
		nodes[1].do(t, "reload")
		for _, n := range nodes {
			harness.Eventually(t, n.Name+" finds the difference", func() error {
				stdout, stderr, code := n.Command(t, "fleet", "verify", "--wait", "0s")
				if code != 1 || !strings.Contains(stdout, tc.want) || stderr != "" {
					return fmt.Errorf("exit code %d\n%s%s", code, stdout, stderr)
				}
				t.Logf("`fleet verify` on %s prints\n%s", n.Name, stdout)
				return nil
			})
		}
	}
	nodes[1].Configure(t, world.configOf(t, 2, world.fleet))
	nodes[1].do(t, "reload")
	for _, n := range nodes {
		n.do(t, "fleet", "verify", "--wait", "1m")
	}
}

// TestFleetLogin: nodes log in with a user who may write below the fleet's prefix only, and one with a wrong password
// serves alone and says why.
func TestFleetLogin(t *testing.T) {
	t.Parallel()
	etcd := harness.StartEtcd(t, "--unsafe-no-fsync")
	for _, command := range []string{
		"user add root:secret", "user grant-role root root", "role add fleet",
		"role grant-permission fleet readwrite /limeload/edge/ --prefix", "user add lb:hunter2", "user grant-role lb fleet",
		"auth enable",
	} {
		etcd.Do(t, strings.Fields(command)...)
	}
	login := func(password string) []string {
		file := filepath.Join(t.TempDir(), "password")
		check(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
		return []string{`user = "lb"`, fmt.Sprintf("password_file = %q", file)}
	}
	world := newMembersFleet(t, etcd.Endpoint, login("hunter2")...)
	one, two := world.start(t, 1), world.start(t, 2)
	for _, n := range []*fleetNode{one, two} {
		n.awaitFleet(t, "both are ready", func(f *shownFleet) bool { return f.allReady("n1", "n2") })
	}
	wrong := world.startWith(t, 3, append([]string{world.fleet[0]}, login("wrong")...))
	f := wrong.awaitFleet(t, "it may not join", func(f *shownFleet) bool { return f.Link.Error != "" })
	if f.Link.Connected || !strings.Contains(f.Link.Error, "see user and password_file") || len(f.Nodes) != 1 {
		t.Errorf("with a wrong password: %+v", f)
	}
	lost := wrong.WaitLine(t, "it may not join", func(l harness.Line) bool { return l.Event == "fleet_lost" })
	if !strings.Contains(lost.Err, "see user and password_file") {
		t.Errorf("the log says %q", lost.Err)
	}
	if out := wrong.do(t, "fleet"); !strings.Contains(out, "not connected for") || !strings.Contains(out, "n3") {
		t.Errorf("`fleet` prints\n%s", out)
	}
	serves(t, wrong)
}

// TestFleetTLS: nodes reach etcd over TLS with client certificates, and one without a certificate serves alone and says
// why.
func TestFleetTLS(t *testing.T) {
	t.Parallel()
	c := makeCertificate(t, time.Now().Add(time.Hour), "127.0.0.1")
	secret, err := x509.MarshalPKCS8PrivateKey(c.pair.PrivateKey)
	check(t, err)
	key := filepath.Join(t.TempDir(), "key.pem")
	check(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	etcd := harness.StartEtcdTLS(t, harness.EtcdTLS{Cert: c.file, Key: key, CA: c.file, ClientCA: c.file})
	world := newMembersFleet(t, etcd.Endpoint, fmt.Sprintf("ca = %q", c.file), fmt.Sprintf("cert = %q", c.file),
		fmt.Sprintf("key = %q", key))
	one, two := world.start(t, 1), world.start(t, 2)
	for _, n := range []*fleetNode{one, two} {
		n.awaitFleet(t, "both are ready", func(f *shownFleet) bool { return f.allReady("n1", "n2") })
	}
	without := world.startWith(t, 3, world.fleet[:2])
	f := without.awaitFleet(t, "it may not join", func(f *shownFleet) bool { return f.Link.Error != "" })
	if f.Link.Connected || len(f.Nodes) != 1 {
		t.Errorf("without a client certificate: %+v", f)
	}
	t.Logf("without a client certificate: %s", f.Link.Error)
	serves(t, without)
}

// TestFleetNameTaken: of two processes of one name the first stays in the fleet. The second one serves alone, says what
// to do, and joins once the name is free.
func TestFleetNameTaken(t *testing.T) {
	t.Parallel()
	etcd := harness.StartEtcd(t, "--unsafe-no-fsync")
	world := newMembersFleet(t, etcd.Endpoint)
	first := world.start(t, 1)
	first.awaitFleet(t, "it is ready", func(f *shownFleet) bool { return f.allReady("n1") })
	second := &fleetNode{Name: "n1", config: strings.Replace(world.configOf(t, 2, world.fleet), `node = "n2"`, `node = "n1"`, 1)}
	second.run(t)
	t.Cleanup(func() { second.stop(t) })
	f := second.awaitFleet(t, "its name is taken", func(f *shownFleet) bool { return f.Link.Error != "" })
	if f.Link.Connected || !strings.Contains(f.Link.Error, "give each node its own name with fleet.node") {
		t.Errorf("the second node knows %+v", f)
	}
	serves(t, second)
	first.awaitFleet(t, "it stays", func(f *shownFleet) bool { return f.allReady("n1") && len(f.Nodes) == 1 })
	check(t, syscall.Kill(first.PID(), syscall.SIGINT))
	first.Wait(t)
	first.ended = true
	second.awaitFleet(t, "the name is free", func(f *shownFleet) bool { return f.allReady("n1") })
}

// serves checks that a node serves clients.
func serves(t *testing.T, n *fleetNode) {
	t.Helper()
	c := n.Dial(t, "main")
	defer c.Close()
	check(t, echoes(c))
}

// echoAddresses starts echo servers, and returns their addresses.
func echoAddresses(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for range n {
		addresses = append(addresses, harness.Serve(t, harness.Echo).Address())
	}
	return addresses
}

// TestFleetPage: a node of a fleet has the view of it, in which the nodes and the connection to etcd are.
func TestFleetPage(t *testing.T) {
	t.Parallel()
	browser := startChromium(t)
	etcd := harness.StartEtcd(t, "--unsafe-no-fsync")
	world := newMembersFleet(t, etcd.Endpoint)
	one := world.start(t, 1)
	two := world.start(t, 2)
	one.awaitFleet(t, "both are ready", func(f *shownFleet) bool { return f.allReady("n1", "n2") })
	b := browser.open(t, forward(t, one.AdminSocket()), 1280, 800)
	b.await(t, `!document.querySelector("#nav-fleet").hidden`)
	b.eval(t, `location.hash = "#fleet"`)
	row := func(name, text string) string {
		return fmt.Sprintf(`[...document.querySelectorAll(".fleet tbody tr")].some((r) =>
			r.innerText.startsWith(%q) && r.innerText.includes(%q))`, name, text)
	}
	b.await(t, row("n1", "this node"))
	b.await(t, row("n2", "Ready"))
	b.expect(t, "the connection", `document.querySelector("#view").innerText.includes("connected to etcd at `+etcd.Endpoint+`")`)
	b.expect(t, "fleet not wider than the page", narrow)
	b.expect(t, "rows of equal cells",
		`[...document.querySelectorAll(".fleet td.note")].every((c) => getComputedStyle(c).display === "table-cell")`)
	b.shot(t, "fleet", false)
	b.accessible(t)
	b.contrasts(t)
	two.share(t, "backends", "set", "all", "b1", "--weight", "3")
	b.eval(t, `location.hash = "#configuration"`)
	b.await(t, `[...document.querySelectorAll("tbody tr")].some((r) => r.innerText.includes("the fleet"))`)
	b.eval(t, `location.hash = "#overview"`)
	b.await(t, `document.querySelector("tbody th.name button")`)
	b.eval(t, `document.querySelector("tbody th.name button").click()`)
	b.await(t, `document.querySelector("dialog.panel .controls button")`)
	b.eval(t, `[...document.querySelectorAll("dialog.panel button")].find((x) => x.innerText === "Drain…").click()`)
	b.await(t, `document.querySelector("dialog.confirm").innerText.includes("on all nodes of the fleet edge")`)
	b.press(t, kb.Escape)
	b.press(t, kb.Escape)
	b.eval(t, `location.hash = "#fleet"`)
	two.Kill(t)
	two.ended = true
	b.await(t, row("n2", "its lease has ended"))
	etcd.Kill(t)
	b.await(t, `document.querySelector("#view").innerText.includes("no connection to etcd for ")`)
	b.expect(t, "the lost connection stands out", `getComputedStyle(document.querySelector("#view .count-line")).color !==
		getComputedStyle(document.querySelector(".fleet td.note")).color`)
	b.silent(t)
}
