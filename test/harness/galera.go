package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A GaleraNode is a MariaDB server of a Galera cluster. Nodes get their state from each other by rsync, as those of
// Debian do by default.
type GaleraNode struct {
	*MariaDB
	Name string // n1, n2 and so on, for wsrep_sst_donor
}

// galeraTiming makes a cluster notice after 1.5 s and not after 5 s that a node is gone. Shorter times for the messages
// by which nodes agree on who belongs to them (evs.install_timeout, evs.inactive_timeout) cost the whole cluster its
// majority on a busy machine.
const galeraTiming = "evs.keepalive_period=PT0.3S;evs.inactive_check_period=PT0.2S;evs.suspect_timeout=PT1.5S;" +
	"evs.inactive_timeout=PT5S;evs.install_timeout=PT5S;pc.announce_timeout=PT0.5S;gcache.size=4M"

// NewGaleraNodes makes n nodes of one cluster. None runs: Bootstrap the first one, and then Join the others. Their
// ports ascend.
func NewGaleraNodes(t testing.TB, n int) []*GaleraNode {
	t.Helper()
	var ports, group []int
	for range n {
		ports, group = append(ports, FreePort(t)), append(group, FreePort(t))
	}
	slices.Sort(ports)
	var peers []string
	for _, port := range group {
		peers = append(peers, fmt.Sprintf("127.0.0.1:%d", port))
	}
	nodes := make([]*GaleraNode, n)
	for i := range nodes {
		dir, owner := serverFolder(t, "mysql")
		m := &MariaDB{
			Host: "127.0.0.1", Port: strconv.Itoa(ports[i]), dir: dir, data: filepath.Join(dir, "data"), owner: owner,
		}
		m.options = []string{
			"--wsrep-on=ON", "--wsrep-provider=/usr/lib/galera/libgalera_smm.so", "--binlog-format=ROW",
			"--innodb-autoinc-lock-mode=2", "--wsrep-cluster-address=gcomm://" + strings.Join(peers, ","),
			"--wsrep-node-address=127.0.0.1", fmt.Sprintf("--wsrep-node-name=n%d", i+1),
			"--wsrep-node-incoming-address=" + m.Address(), "--wsrep-sst-method=rsync",
			"--wsrep-sst-receive-address=" + FreeAddress(t),
			fmt.Sprintf("--wsrep-provider-options=base_host=127.0.0.1;base_port=%d;gmcast.listen_addr=tcp://%s;"+
				"ist.recv_addr=%s;%s", group[i], peers[i], FreeAddress(t), galeraTiming),
		}
		nodes[i] = &GaleraNode{MariaDB: m, Name: fmt.Sprintf("n%d", i+1)}
	}
	return nodes
}

// Bootstrap makes the node the first one of its cluster, with an empty database, and waits until it accepts clients.
func (g *GaleraNode) Bootstrap(t testing.TB) {
	t.Helper()
	g.install(t)
	g.begin(t, "--wsrep-new-cluster")
	g.Await(t)
}

// Join starts a node without any data, or starts it again after Kill, and does not wait for it: the cluster sends it
// its whole state, which takes a node as donor. donor is preferred if it is not nil.
func (g *GaleraNode) Join(t testing.TB, donor *GaleraNode) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(g.data, 0o700))
	if g.owner != nil {
		must(os.Chown(g.data, int(g.owner.Uid), int(g.owner.Gid)))
	}
	if donor == nil {
		g.begin(t)
		return
	}
	g.begin(t, "--wsrep-sst-donor="+donor.Name+",")
}

// begin starts the node with options that hold only for this start. It is killed at the end of the test, which is
// quicker than for each to leave its cluster.
func (g *GaleraNode) begin(t testing.TB, options ...string) {
	t.Helper()
	usual := g.options
	g.options = append(slices.Clip(usual), options...)
	g.launch(t)
	g.options = usual
}

// Await waits until the node has the state of its cluster and accepts clients.
func (g *GaleraNode) Await(t testing.TB) {
	t.Helper()
	g.WaitStderr(t, "ready for connections")
}

// Isolate cuts the node off from the others of its cluster, or connects it again.
func (g *GaleraNode) Isolate(t testing.TB, cut bool) {
	t.Helper()
	isolate := 0
	if cut {
		isolate = 1
	}
	g.Do(t, fmt.Sprintf("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=%d'", isolate))
}
