package harness

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// An Etcd is a running member of etcd with an empty store in a temporary folder.
type Etcd struct {
	*Process
	Endpoint string // a URL

	client  []string // arguments of etcdctl
	command Command
}

// An EtcdTLS has the paths of PEM files for an etcd that speaks TLS with its clients.
type EtcdTLS struct {
	Cert, Key string
	ClientCA  string // "": clients need no certificate
	CA        string // of Cert, for etcdctl; clients show Cert too
}

// StartEtcd starts an etcd of one member on a free port, and waits until it serves.
func StartEtcd(t testing.TB, args ...string) *Etcd {
	t.Helper()
	e := newEtcd(t, "http", "one", loopback, FreePort(t), FreePort(t), "")
	e.command.Args = append(e.command.Args, args...)
	e.Restart(t)
	return e
}

// StartEtcdTLS is StartEtcd with TLS for clients.
func StartEtcdTLS(t testing.TB, files EtcdTLS) *Etcd {
	t.Helper()
	e := newEtcd(t, "https", "one", loopback, FreePort(t), FreePort(t), "")
	e.command.Args = append(e.command.Args, "--cert-file", files.Cert, "--key-file", files.Key)
	e.client = append(e.client, "--cacert", files.CA, "--cert", files.Cert, "--key", files.Key)
	if files.ClientCA != "" {
		e.command.Args = append(e.command.Args, "--client-cert-auth", "--trusted-ca-file", files.ClientCA)
	}
	e.Restart(t)
	return e
}

// StartEtcdCluster starts an etcd of n members, and waits until all of them serve.
func StartEtcdCluster(t testing.TB, n int) []*Etcd {
	t.Helper()
	clients, peers, cluster := make([]int, n), make([]int, n), make([]string, n)
	for i := range n {
		clients[i], peers[i] = FreePort(t), FreePort(t)
		cluster[i] = fmt.Sprintf("m%d=http://%s:%d", i, loopback, peers[i])
	}
	members := make([]*Etcd, n)
	for i := range n {
		members[i] = newEtcd(t, "http", fmt.Sprintf("m%d", i), loopback, clients[i], peers[i],
			strings.Join(cluster, ","))
		members[i].Process = Start(t, members[i].command)
	}
	for _, e := range members {
		e.WaitStderr(t, "client requests on")
	}
	return members
}

// StartEtcdOn starts an etcd with a member on each host, at these IPv4 addresses of the hosts and the usual ports, and
// waits until all of them serve.
func StartEtcdOn(t testing.TB, hosts []*Host, addresses []string, args ...string) []*Etcd {
	t.Helper()
	const clients, peers = 2379, 2380
	var cluster []string
	for i, address := range addresses {
		cluster = append(cluster, fmt.Sprintf("m%d=http://%s:%d", i, address, peers))
	}
	members := make([]*Etcd, len(hosts))
	for i, h := range hosts {
		members[i] = newEtcd(t, "http", fmt.Sprintf("m%d", i), addresses[i], clients, peers, strings.Join(cluster, ","))
		members[i].command.On = h
		members[i].command.Args = append(members[i].command.Args, args...)
		members[i].Process = Start(t, members[i].command)
	}
	for _, e := range members {
		e.WaitStderr(t, "client requests on")
	}
	return members
}

// loopback is where members of etcd listen that are not on hosts of their own.
const loopback = "127.0.0.1"

func newEtcd(t testing.TB, scheme, name, address string, port, peer int, cluster string) *Etcd {
	t.Helper()
	endpoint := fmt.Sprintf("%s://%s:%d", scheme, address, port)
	own := fmt.Sprintf("http://%s:%d", address, peer)
	if cluster == "" {
		cluster = name + "=" + own
	}
	return &Etcd{
		Endpoint: endpoint, client: []string{"--endpoints", endpoint},
		command: Command{Path: Tool(t, "etcd"), Dir: t.TempDir(), Args: []string{
			"--name", name, "--data-dir", "data", "--listen-client-urls", endpoint, "--advertise-client-urls", endpoint,
			"--listen-peer-urls", own, "--initial-advertise-peer-urls", own, "--initial-cluster", cluster,
			"--initial-cluster-state", "new", "--initial-cluster-token", t.Name(),
		}},
	}
}

// Restart starts the member again, on its port and with its data, after it was killed.
func (e *Etcd) Restart(t testing.TB) {
	t.Helper()
	e.Process = Start(t, e.command)
	e.WaitStderr(t, "client requests on")
}

// Do runs a command with etcd's own client, and returns its output.
func (e *Etcd) Do(t testing.TB, args ...string) string {
	t.Helper()
	return MustRun(t, e.ctl(t, args))
}

// Try is Do for a command that may fail, such as while etcd elects a leader.
func (e *Etcd) Try(t testing.TB, args ...string) error {
	t.Helper()
	if _, stderr, code := Run(t, e.ctl(t, args)); code != 0 {
		return fmt.Errorf("etcdctl: exit code %d: %s", code, stderr)
	}
	return nil
}

func (e *Etcd) ctl(t testing.TB, args []string) Command {
	t.Helper()
	return Command{Path: Tool(t, "etcdctl"), Env: []string{"ETCDCTL_API=3"}, On: e.command.On,
		Args: slices.Concat(e.client, []string{"--command-timeout", "30s"}, args)}
}
