package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// fixtureFleet is a fleet in which much is remarkable.
func fixtureFleet() admin.Fleet {
	at := before()
	node := func(name, state string) admin.FleetNode {
		return admin.FleetNode{Name: name, Host: name + ".internal", Version: "1.0.0 (abc)", State: state,
			Ready: state == "serving", Since: &at, Started: &at, Config: "6a0df1d9c3ab", Sessions: 120, Rate: 3.5}
	}
	f := admin.Fleet{
		Name: "edge", Node: "lb1", Endpoints: []string{"https://10.0.0.1:2379"},
		Link:    admin.FleetLink{Connected: true, Endpoint: "https://10.0.0.1:2379", Since: &at},
		Pending: 1, Records: 3,
		Nodes: []admin.FleetNode{
			node("lb1", "serving"), node("lb2", "serving"), node("lb3", "serving"), node("lb4", "draining"),
			node("lb5", "gone"), node("lb\x1b[2J", "serving"),
		},
	}
	f.Nodes[0].This = true
	f.Nodes[1].OtherConfig, f.Nodes[1].Config = true, "1c93bb07a5e2"
	f.Nodes[2].Ready, f.Nodes[2].Alone = false, "it reaches none of its backends"
	f.Nodes[5].Ready, f.Nodes[5].Reason = false, "starting: the first checks are not done"
	return f
}

// TestFleetOutput checks what people see of a fleet. Nothing in it controls the terminal.
func TestFleetOutput(t *testing.T) {
	startFake(t)
	code, stdout, stderr := command(t, "fleet")
	want := `
fleet    edge; this is node lb1
etcd     connected to https://10.0.0.1:2379 for 3d4h
changes  1 shared record not in etcd yet

node       state         since  version  config  sessions  flows   rate  host                note
lb1        ready      3d4h ago  1.0.0    same         120      0  3.5/s  lb1.internal        this node
lb2        ready      3d4h ago  1.0.0    other        120      0  3.5/s  lb2.internal        its configuration is 1c93bb07a5e2
lb3        alone      3d4h ago  1.0.0    same         120      0  3.5/s  lb3.internal        it reaches none of its backends
lb4        draining   3d4h ago  1.0.0    same         120      0  3.5/s  lb4.internal        -
lb5        gone       3d4h ago  1.0.0    -              -      -      -  lb5.internal        its lease has ended: it has died, or has no connection to etcd
lb\x1b[2J  not_ready  3d4h ago  1.0.0    same         120      0  3.5/s  lb\x1b[2J.internal  starting: the first checks are not done
`
	if code != exitDone || stdout != strings.TrimPrefix(want, "\n") || stderr != "" {
		t.Errorf("exit code %d\n%s%swant%s", code, stdout, stderr, want)
	}
	code, stdout, _ = command(t, "fleet", "list", "--output", "json")
	var answer admin.Fleet
	if err := json.Unmarshal([]byte(stdout), &answer); code != exitDone || err != nil || len(answer.Nodes) != 6 {
		t.Errorf("exit code %d, %v\n%s", code, err, stdout)
	}
	lost := fixtureFleet()
	lost.Link = admin.FleetLink{Endpoint: "https://10.0.0.1:2379", Since: lost.Link.Since, Error: "connection refused"}
	for text, link := range map[string]admin.FleetLink{
		"not connected yet to https://10.0.0.1:2379":                                    {},
		"not connected for 3d4h: connection refused; the nodes are listed as they were": lost.Link,
	} {
		if got := linkText(&link, lost.Endpoints); got != text {
			t.Errorf("%q, want %q", got, text)
		}
	}
}

// TestFleetText checks the line of status and top.
func TestFleetText(t *testing.T) {
	for want, f := range map[string]admin.FleetSummary{
		"edge, node a: 1 node":             {Connected: true, Nodes: 1, Ready: 1},
		"edge, node a: 3 nodes, all ready": {Connected: true, Nodes: 3, Ready: 3},
		"edge, node a: 3 nodes, 2 ready; most nodes run another configuration": {Connected: true, Nodes: 3, Ready: 2,
			OtherConfig: true},
		"edge, node a: 1 node; no connection to etcd: connection refused; 2 shared records not in etcd yet": {Nodes: 1,
			Ready: 1, Error: "connection refused", Pending: 2},
	} {
		f.Name, f.Node = "edge", "a"
		if got := fleetText(&f); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestFleetFits: the table of nodes fits into 80 columns, and nothing of it is cut.
func TestFleetFits(t *testing.T) {
	var b strings.Builder
	f := fixtureFleet()
	if err := printFleet(&b, &f, screen{width: 80}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := len(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, needed := range []string{"lb1", "ready", "alone", "gone", "other", "it reaches none"} {
		if !strings.Contains(b.String(), needed) {
			t.Errorf("%s is missing:\n%s", needed, b.String())
		}
	}
}

// TestWithoutFleet: a daemon without a fleet says so, and what would make it a node of one.
func TestWithoutFleet(t *testing.T) {
	refusing(t, &admin.Problem{Type: "/problems/no-fleet", Status: http.StatusConflict, Detail: admin.ErrNoFleet.Error()})
	for _, args := range []string{"fleet", "fleet verify"} {
		code, stdout, stderr := command(t, strings.Fields(args)...)
		if code != exitFailed || stdout != "" || stderr != "this node works alone; a [fleet] table in its configuration "+
			"makes it a node of a fleet\n" {
			t.Errorf("%s: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
}

// TestFleetVerify: a difference that lasts is printed, and has the exit code 1. One that does not last is none.
func TestFleetVerify(t *testing.T) {
	f := startFake(t)
	code, stdout, _ := command(t, "fleet", "verify")
	want := "pool   algorithm  eligible  nodes  choices\nredis  maglev            3      2  same\n\n2 nodes choose alike\n"
	if code != exitDone || stdout != want {
		t.Errorf("exit code %d\n%s", code, stdout)
	}
	if f.requests()[0] != "GET /v1/fleet/verify" {
		t.Errorf("it asked %q", f.requests())
	}
	v := admin.FleetComparison{
		Connected: true, Nodes: []string{"lb1", "lb2", "lb3"}, Mute: []string{"lb4"},
		Pools: []admin.FleetPool{
			{Name: "dns", Algorithm: "round_robin", Eligible: 2, Nodes: 3, Same: true},
			{Name: "redis", Algorithm: "maglev", Eligible: 3, Nodes: 3, Differences: []admin.FleetDifference{
				{Node: "lb3", Why: `2 of its 3 backends eligible, elsewhere 3; not eligible here alone: "b2"`}}},
		},
	}
	var b strings.Builder
	if err := printComparison(&b, &v, screen{}); err != nil {
		t.Fatal(err)
	}
	want = `pool   algorithm    eligible  nodes  choices
dns    round_robin         2      3  same
redis  maglev              3      3  other

pool redis on node lb3: 2 of its 3 backends eligible, elsewhere 3; not eligible here alone: "b2"
node lb4 says nothing about its pools yet
`
	if b.String() != want {
		t.Errorf("it prints\n%swant\n%s", b.String(), want)
	}
	if agree(&v) {
		t.Error("they agree")
	}
}

// TestFleetVerifyWaits: it asks again until the nodes agree, or the time has passed.
func TestFleetVerifyWaits(t *testing.T) {
	f := startFake(t)
	f.mux = http.NewServeMux()
	asked := 0
	f.handle("GET /v1/fleet/verify", func(*http.Request) any {
		asked++
		return admin.FleetComparison{Same: true, Connected: asked > 2, Nodes: []string{"a", "b"}}
	})
	began := time.Now()
	code, stdout, _ := command(t, "fleet", "verify", "--wait", "1m")
	if code != exitDone || len(f.requests()) != 3 || time.Since(began) < 2*verifyEvery {
		t.Errorf("exit code %d after %d requests and %v\n%s", code, len(f.requests()), time.Since(began), stdout)
	}
	f.mux = http.NewServeMux()
	f.handle("GET /v1/fleet/verify", func(*http.Request) any { return admin.FleetComparison{Same: true} })
	code, stdout, _ = command(t, "fleet", "verify", "--wait", "0s")
	if code != exitFailed || !strings.Contains(stdout, "this node has no connection to etcd") {
		t.Errorf("exit code %d without a connection\n%s", code, stdout)
	}
}

// TestCheckOfFleet: the summary of check names the fleet, the node and etcd.
func TestCheckOfFleet(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lb.toml")
	for node, want := range map[string]string{"": "(the host name)", `node = "lb7"`: "lb7"} {
		text := "[fleet]\nname = \"edge\"\nendpoints = [\"http://127.0.0.1:1\"]\n" + node + "\n" +
			"[listener.a]\naddress = \"127.0.0.1:1\"\npool = \"a\"\n[pool.a]\nbackends = [\"127.0.0.1:2\"]\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := command(t, "check", file)
		if line := "\n  fleet edge: node " + want + ", etcd at http://127.0.0.1:1\n"; code != exitDone ||
			!strings.Contains(stdout, line) {
			t.Errorf("exit code %d: %s%swant %s", code, stdout, stderr, line)
		}
	}
}

// TestFleetChangesOutput checks what people see of shared changes.
func TestFleetChangesOutput(t *testing.T) {
	at, later := before(), time.Now().Add(time.Hour)
	var b strings.Builder
	err := changeTable([]admin.FleetChange{
		{At: at, Node: "lb1", By: "root", Pool: "redis", Backend: "b1", What: "mode", Value: "drain", InForce: true},
		{At: at, Node: "lb2", Prefix: "192.0.2.0/24", What: "access", Value: "deny", Until: &later, InForce: true,
			Pending: true},
		{At: at, Node: "lb2", By: "root", Pool: "redis", Backend: "b2", What: "weight", Undone: true,
			Why: "there is no such backend here"},
	}).print(&b, screen{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"3d4h ago  lb1   root  redis/b1                        mode    drain          in force\n",
		"192.0.2.0/24 at every listener  access  deny for ", "here only, so far\n",
		"weight  undone         no: there is no such backend here\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, b.String())
		}
	}
}
