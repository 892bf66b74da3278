package discovery

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

// The keys of a cluster, below NAMESPACE/SCOPE/.
const (
	leaderKey    = "leader"        // the name of the member that holds the leader's lease
	statusKey    = "status"        // JSON with the leader's position in "optime"
	oldStatusKey = "optime/leader" // that position alone, before Patroni 2.1
	configKey    = "config"        // JSON with "standby_cluster", if it is one
	failoverKey  = "failover"      // JSON with a switchover that was asked for: "leader", "member", "scheduled_at"
	membersKey   = "members/"      // and the name of a member
)

// maxEtcdKeys bounds the keys of one cluster: its members and a dozen others.
const maxEtcdKeys = maxClusterMembers + 100

// A Patroni finds the members of a Postgres cluster, and their roles, in the etcd that Patroni keeps them in. A
// backend's id is the member's name, and its address is that of the member's conn_url. The holder of the leader's key
// is the primary, and all others are replicas, also while nobody holds the key and in a standby cluster. Replicas that
// do not run, are tagged noloadbalance or are too far behind have weight 0, and so has a primary that was asked to hand
// over.
//
// While Watch runs, it keeps a copy of the cluster's keys up to date, and Find answers from that. Otherwise each Find
// asks. Members of etcd are asked in turn, and only an answer that a majority of etcd confirms counts.
//
// Find may run beside Watch. The zero value is of no use, see NewPatroni.
type Patroni struct {
	etcdCopy
	o     PatroniOptions // set once, then read-only
	hosts hosts

	keys map[string]string // those that matter, as last known; etcdCopy.mu guards it
}

// PatroniOptions are the settings of a Patroni or a PatroniREST. It is a plain value.
type PatroniOptions struct {
	Endpoints []string // URLs of members of etcd, or of Patroni's REST API; at least one, all http or all https
	Scope     string   // name of the cluster
	Namespace string   // where Patroni keeps its clusters; only for etcd
	User      string   // "": without a login
	Password  string
	TLS       *tls.Config // for https; nil: as Go does
	MaxLag    int64       // bytes that a replica may be behind; 0: not looked at
}

// NewPatroni returns a source that connects to nothing before Find or Watch.
func NewPatroni(o PatroniOptions) *Patroni {
	p := &Patroni{o: o}
	prefix := path.Join("/", o.Namespace, o.Scope) + "/"
	p.etcdCopy = etcdCopy{
		login: etcd.Login{User: o.User, Password: o.Password, TLS: o.TLS}, endpoints: o.Endpoints,
		prefix: prefix, probed: prefix + leaderKey, most: maxEtcdKeys,
		noEtcd: "with rest = true, endpoints are Patroni's own", keeper: p, settled: make(chan struct{}),
	}
	return p
}

// Find returns the members as they are known now. The error is a *ClusterError, or several, unless ctx ends.
func (p *Patroni) Find(ctx context.Context) (Found, error) {
	watched, err := p.ready(ctx)
	if err != nil {
		return Found{}, err
	}
	maxAge := time.Duration(math.MaxInt64) // Watch looks names up again
	if !watched {
		maxAge = hostsEvery
	}
	p.mu.Lock()
	members, err := p.membersLocked()
	p.mu.Unlock()
	if err != nil {
		return Found{}, err
	}
	p.hosts.look(ctx, hostsOf(members), maxAge)
	return foundMembers("etcd", p.o.Endpoints, members, p.hosts.addr)
}

// foundMembers returns the answer of a source that knows these members.
func foundMembers(what string, endpoints []string, members []clusterMember, addr hostAddresses) (Found, error) {
	specs, unusable := specsOf(members, addr)
	if len(specs) == 0 {
		return Found{}, &ClusterError{What: what, Endpoints: endpoints, Kind: ErrNoMembers, Detail: unusable.Error()}
	}
	return Found{Backends: specs, Unusable: unusable}, nil
}

// Watch keeps the copy of the keys up to date, and calls changed whenever Find has another answer or error, until ctx
// is done. It returns when no member of etcd answers.
func (p *Patroni) Watch(ctx context.Context, changed func()) error {
	var looking sync.WaitGroup
	defer looking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	looking.Go(func() { p.lookAgain(ctx, changed) })
	return p.watch(ctx, changed)
}

// lookAgain looks the members' hosts up again from time to time.
func (p *Patroni) lookAgain(ctx context.Context, changed func()) {
	tick := time.NewTicker(hostsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		members, _ := p.membersLocked()
		p.mu.Unlock()
		if len(members) > 0 && p.hosts.look(ctx, hostsOf(members), 0) {
			changed()
		}
	}
}

// accept returns an error if there is no key: the cluster has another name.
func (p *Patroni) accept(s *etcd.Session, keys []etcd.KeyChange) error {
	if len(keys) == 0 {
		return p.noScope(s)
	}
	return nil
}

// noScope returns the error for a prefix without any key, with the names that there are.
func (p *Patroni) noScope(s *etcd.Session) error {
	const shownScopes = 10
	namespace := path.Dir(strings.TrimSuffix(p.prefix, "/"))
	names := s.Names(strings.TrimSuffix(namespace, "/")+"/", shownScopes)
	detail := fmt.Sprintf("there is no key below %s", p.prefix)
	switch {
	case len(names) == 0:
		detail += fmt.Sprintf(", and none below %s: the namespace may be another one, and Patroni must use etcd3, not etcd,"+
			" in its configuration", namespace)
	default:
		detail += "; the scopes there are " + quotedNames(names, shownScopes)
	}
	return &ClusterError{Kind: ErrNoScope, Detail: detail}
}

// replaceLocked sets the keys, and reports whether one that matters has another value.
func (p *Patroni) replaceLocked(keys []etcd.KeyChange) bool {
	before := p.keys
	p.keys = make(map[string]string)
	for _, k := range keys {
		p.setLocked(k)
	}
	return !maps.Equal(before, p.keys)
}

// applyLocked applies changes to the keys, and reports whether one that matters has another value.
func (p *Patroni) applyLocked(changes []etcd.KeyChange) (bool, error) {
	before := maps.Clone(p.keys)
	for _, k := range changes {
		p.setLocked(k)
	}
	return !maps.Equal(before, p.keys), nil
}

// tooLarge is the value of a key whose own value is too large to be kept. It is no JSON.
const tooLarge = "too large"

// setLocked sets or deletes one key if it matters.
func (p *Patroni) setLocked(k etcd.KeyChange) {
	name, isMember := strings.CutPrefix(k.Key, membersKey)
	if isMember && (name == "" || strings.Contains(name, "/")) ||
		!isMember && !slices.Contains([]string{leaderKey, statusKey, oldStatusKey, configKey, failoverKey}, k.Key) {
		return
	}
	switch {
	case k.Value == nil:
		delete(p.keys, k.Key)
	case k.Large || len(k.Value) > maxMemberBytes:
		p.keys[k.Key] = tooLarge
	case len(p.keys) > maxEtcdKeys && p.keys[k.Key] == "":
		// more members than any cluster has: membersLocked says so
		p.keys[membersKey] = tooLarge
	default:
		p.keys[k.Key] = string(k.Value)
	}
}

// membersLocked returns the members according to the keys.
func (p *Patroni) membersLocked() ([]clusterMember, error) {
	if p.err != nil {
		return nil, p.err
	}
	leader := p.keys[leaderKey]
	standby, known := isStandbyCluster(p.keys[configKey])
	position, leaving := leaderPosition(p.keys), handsOver(p.keys[failoverKey], leader)
	var members []clusterMember
	for key, value := range p.keys {
		name, is := strings.CutPrefix(key, membersKey)
		if !is {
			continue
		}
		if name == "" || len(members) == maxClusterMembers {
			return nil, &ClusterError{What: "etcd", Endpoints: p.o.Endpoints, Kind: ErrTooMuchData,
				Detail: fmt.Sprintf("more than %d members", maxClusterMembers)}
		}
		if value == tooLarge {
			members = append(members, clusterMember{name: name,
				err: fmt.Errorf("its value has more than %d bytes", maxMemberBytes)})
			continue
		}
		r, m := readMember(name, []byte(value))
		m.primary = name == leader && !standby && (known || r.Role != "standby_leader")
		m.idle = m.idle || p.o.MaxLag > 0 && (r.Location == nil || position-*r.Location > p.o.MaxLag)
		m.leaving = m.primary && leaving
		members = append(members, m)
	}
	if len(members) == 0 {
		return nil, &ClusterError{What: "etcd", Endpoints: p.o.Endpoints, Kind: ErrNoMembers,
			Detail: fmt.Sprintf("no key below %s: does Patroni run on the members?", p.prefix+membersKey)}
	}
	return members, nil
}

// leaderPosition returns the leader's position in the log; 0 if it is not known, and then nobody is behind.
func leaderPosition(keys map[string]string) int64 {
	var status struct {
		Optime int64 `json:"optime"`
	}
	if json.Unmarshal([]byte(keys[statusKey]), &status) == nil && status.Optime > 0 {
		return status.Optime
	}
	position, _ := strconv.ParseInt(keys[oldStatusKey], 10, 64)
	return max(position, 0)
}

// handsOver reports whether the leader was asked to hand over now. Patroni then ends its server within a moment, and
// only a new leader, or Patroni's refusal, takes the request back.
func handsOver(failover, leader string) bool {
	var f struct {
		Leader, Member string
		ScheduledAt    string `json:"scheduled_at"`
	}
	if leader == "" || json.Unmarshal([]byte(failover), &f) != nil || f.ScheduledAt != "" {
		return false
	}
	return f.Leader == leader || f.Leader == "" && f.Member != "" && f.Member != leader
}

// isStandbyCluster reports whether a cluster follows another one by its configuration, as Patroni reads it, so that
// nobody in it takes writes. known is false if the configuration cannot be read.
func isStandbyCluster(config string) (is, known bool) {
	var c struct {
		Standby json.RawMessage `json:"standby_cluster"`
	}
	if json.Unmarshal([]byte(config), &c) != nil {
		return false, false
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(c.Standby, &fields) != nil {
		return false, true // it is absent, or not what Patroni takes for one
	}
	for _, field := range []string{"host", "port", "restore_command"} {
		if v := strings.Trim(string(fields[field]), `" `); v != "" && v != "null" && v != "0" && v != "false" {
			return true, true
		}
	}
	return false, true
}
