package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// PatroniOptions says how to start a cluster. The zero value lacks only Etcd.
type PatroniOptions struct {
	Etcd    []*Etcd
	Scope   string        // the cluster's name; "": main
	Members int           // 0: 3
	TTL     time.Duration // how long a lost primary is waited for, in full seconds; 0: 10 s
}

// A Patroni is a cluster of Postgres servers that Patroni runs, with synchronous replication to one standby. The
// superuser is "postgres", of which the servers want no password from this machine.
type Patroni struct {
	// set once, then read-only
	Scope   string
	Members []*PatroniMember
}

// A PatroniMember is one Patroni with its Postgres: what is on one machine elsewhere. Each has its own PID namespace,
// so that all of its processes end together.
type PatroniMember struct {
	*Process        // all processes of the machine end with it
	Name     string // pg1, pg2 and so on
	Postgres string // the address of its server
	REST     string // the address of Patroni's API

	dir  string
	user *syscall.Credential
}

// StartPatroni makes an empty cluster and waits until all its members are in it, one of them as the synchronous
// standby.
func StartPatroni(t testing.TB, o PatroniOptions) *Patroni {
	t.Helper()
	if o.Scope == "" {
		o.Scope = "main"
	}
	if o.Members == 0 {
		o.Members = 3
	}
	if o.TTL == 0 {
		o.TTL = 10 * time.Second
	}
	p := &Patroni{Scope: o.Scope}
	// Patroni needs the folder of all programs, and not one with links to some
	initdb, err := filepath.EvalSymlinks(Tool(t, "initdb"))
	if err != nil {
		t.Fatal(err)
	}
	hosts := make([]string, len(o.Etcd))
	for i, e := range o.Etcd {
		_, hosts[i], _ = strings.Cut(e.Endpoint, "://")
	}
	for i := range o.Members {
		dir, user := serverFolder(t, "postgres")
		m := &PatroniMember{
			Name: fmt.Sprintf("pg%d", i+1), Postgres: FreeAddress(t), REST: FreeAddress(t), dir: dir, user: user,
		}
		text := strings.NewReplacer(
			"SCOPE", o.Scope, "NAME", m.Name, "REST", m.REST, "ETCD", strings.Join(hosts, ","), "DIR", dir,
			"TTL", strconv.Itoa(int(o.TTL.Seconds())), "POSTGRES", m.Postgres,
			"PROGRAMS", filepath.Dir(initdb),
		).Replace(patroniConf)
		if err := os.WriteFile(m.config(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		p.Members = append(p.Members, m)
	}
	for i, m := range p.Members {
		m.Launch(t)
		if i == 0 { // it makes the cluster: the others need not all try to
			Eventually(t, "the first member is the primary", func() error {
				_, err := p.find("leader", "running")
				return err
			})
		}
	}
	p.WaitWhole(t)
	return p
}

// Launch starts the member again after Kill. It ends with the test t, and not with the cluster.
func (m *PatroniMember) Launch(t testing.TB) {
	t.Helper()
	m.Process = Start(t, Command{
		Path: Tool(t, "unshare"), Dir: m.dir, User: m.user, Env: []string{"LC_ALL=C", "TZ=UTC"},
		Args: []string{
			"--user", "--map-current-user", "--pid", "--ipc", "--mount-proc", "--fork", "--kill-child",
			Tool(t, "patroni"), m.config(),
		},
	})
}

func (m *PatroniMember) config() string { return filepath.Join(m.dir, "patroni.yml") }

// Freeze stops all processes of the member until Thaw, as a machine without a working network or disk does: connections
// to it stay, and nothing answers.
func (m *PatroniMember) Freeze(t testing.TB) { m.signalAll(t, syscall.SIGSTOP) }

// Thaw lets the processes of the member go on.
func (m *PatroniMember) Thaw(t testing.TB) { m.signalAll(t, syscall.SIGCONT) }

func (m *PatroniMember) signalAll(t testing.TB, s syscall.Signal) {
	t.Helper()
	for seen := map[int]bool{}; ; { // until there are no new ones: they may start others meanwhile
		more := false
		for _, pid := range descendants(m.PID()) {
			if !seen[pid] {
				seen[pid], more = true, true
				_ = syscall.Kill(pid, s) // it may have ended
			}
		}
		if !more {
			return
		}
	}
}

// descendants returns the ids of all processes that this one has started, and of those that they have.
func descendants(pid int) (all []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		text, _ := os.ReadFile(file) // a thread may have ended
		for _, word := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}

// viewPatience bounds a question to a member that may be frozen.
const viewPatience = 2 * time.Second

// ask sends a request to the member's REST API.
func (m *PatroniMember) ask(patience time.Duration, method, path string, request any) (status int, answer []byte, err error) {
	text, err := json.Marshal(request)
	if err != nil {
		return 0, nil, err
	}
	r, err := http.NewRequest(method, "http://"+m.REST+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	got, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer got.Body.Close()
	answer, err = io.ReadAll(got.Body)
	return got.StatusCode, answer, err
}

// A patroniView is one member in Patroni's own account of the cluster.
type patroniView struct {
	Name, Role, State string
	Timeline          int
	Lag               any // a number of bytes, or "unknown"
}

// view returns how the members see the cluster: the account of the first that gives one.
func (p *Patroni) view() (views []patroniView, err error) {
	err = fmt.Errorf("no member runs")
	for _, m := range p.Members {
		if m.Process == nil {
			continue
		}
		select {
		case <-m.Done():
			continue
		default:
		}
		var answer struct{ Members []patroniView }
		var text []byte
		if _, text, err = m.ask(viewPatience, http.MethodGet, "/cluster", nil); err != nil {
			continue
		}
		if err = json.Unmarshal(text, &answer); err == nil {
			return answer.Members, nil
		}
	}
	return nil, err
}

// find returns the member that has the role and the state.
func (p *Patroni) find(role, state string) (*PatroniMember, error) {
	views, err := p.view()
	for _, v := range views {
		if v.Role == role && v.State == state {
			return p.Member(v.Name), nil
		}
	}
	if err == nil {
		err = fmt.Errorf("no %s is %s: %v", role, state, views)
	}
	return nil, err
}

// Member returns the member of that name, nil if there is none.
func (p *Patroni) Member(name string) *PatroniMember {
	for _, m := range p.Members {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// WaitWhole waits until all members run and follow the primary, and one is the synchronous standby, so that no commit
// that was acknowledged is lost with the primary. It returns the primary and that standby.
func (p *Patroni) WaitWhole(t testing.TB) (leader, standby *PatroniMember) {
	t.Helper()
	Eventually(t, "the cluster is whole", func() error {
		views, err := p.view()
		if err != nil {
			return err
		}
		leader, standby = nil, nil
		timeline := 0
		for _, v := range views {
			if v.State != "running" && v.State != "streaming" {
				return fmt.Errorf("%v", views)
			}
			timeline = max(timeline, v.Timeline)
			switch v.Role {
			case "leader":
				leader = p.Member(v.Name)
			case "sync_standby":
				standby = p.Member(v.Name)
			}
		}
		for _, v := range views {
			if v.Timeline != timeline {
				return fmt.Errorf("%v", views)
			}
		}
		if leader == nil || standby == nil || len(views) != len(p.Members) {
			return fmt.Errorf("%v", views)
		}
		return nil
	})
	return leader, standby
}

// Switchover has Patroni make one member the primary in place of another, and waits until it says that this is done.
func (p *Patroni) Switchover(t testing.TB, from, to *PatroniMember) {
	t.Helper()
	status, answer, err := to.ask(Patience, http.MethodPost, "/switchover", map[string]string{
		"leader": from.Name, "candidate": to.Name,
	})
	if err != nil || status != http.StatusOK {
		t.Fatalf("switchover from %s to %s: %d %s %v", from.Name, to.Name, status, answer, err)
	}
}

// patroniConf is the configuration of a member. The servers need not survive a crash of the machine, and hold little:
// apart from that it is what production has. Each member follows within half a second when there is a new primary, and
// comes back by pg_rewind or as a new copy.
const patroniConf = `scope: SCOPE
namespace: /service/
name: NAME
restapi:
  listen: REST
  connect_address: REST
etcd3:
  hosts: ETCD
bootstrap:
  dcs:
    ttl: TTL
    loop_wait: 1
    retry_timeout: 3
    maximum_lag_on_failover: 1048576
    synchronous_mode: true
    failsafe_mode: true
    postgresql:
      use_pg_rewind: true
      use_slots: true
      remove_data_directory_on_rewind_failure: true
      remove_data_directory_on_diverged_timelines: true
      parameters:
        autovacuum: "off"
        checkpoint_timeout: 30min
        dynamic_shared_memory_type: mmap
        fsync: "off"
        hot_standby: "on"
        max_connections: 100
        max_replication_slots: 8
        max_wal_senders: 8
        min_wal_size: 32MB
        shared_buffers: 16MB
        wal_keep_size: 128MB
        wal_level: replica
        wal_log_hints: "on"
        wal_retrieve_retry_interval: 200ms
  initdb:
    - encoding: "UTF8"
    - no-locale
    - no-sync
    - wal-segsize: "1"
postgresql:
  listen: POSTGRES
  connect_address: POSTGRES
  data_dir: DIR/data
  bin_dir: PROGRAMS
  pgpass: DIR/pgpass
  authentication:
    superuser: {username: postgres, password: secret}
    replication: {username: replicator, password: secret}
    rewind: {username: rewinder, password: secret}
  basebackup:
    - checkpoint: fast
    - no-sync
  pg_hba:
    - local all all trust
    - host all all 127.0.0.1/32 trust
    - host replication all 127.0.0.1/32 trust
  parameters:
    unix_socket_directories: DIR
`
