package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/conf"
)

const (
	// memberLookEvery is how often members looks whether this node has changed, also if nobody has said so.
	memberLookEvery = time.Second
	// figuresEvery is how often the other nodes get this one's figures. A fleet of 100 nodes then writes 20 times a
	// second at most.
	figuresEvery = 5 * time.Second
	// goneFor is how long a node that has gone is remembered.
	goneFor = time.Hour
	// maxGone bounds how many are.
	maxGone = 100
	// maxNodeText bounds each text that a node says, in bytes. Package fleet allows a little more.
	maxNodeText = 200
)

// The states of other nodes in addition to those of a life.
const (
	nodeLeft    = "left"    // it has ended in order
	nodeGone    = "gone"    // its lease has ended: it has died, or has no connection
	nodeUnknown = "unknown" // it says another word
)

// members tells the other nodes about this one, and notes which nodes come and go. Its methods may be called from any
// goroutine.
type members struct {
	// set once, then read-only
	membership *membership
	host       string
	look       chan struct{} // has room for one: this node has changed
	heard      chan struct{} // has room for one: something has changed about nodes in etcd
	left       chan struct{} // the same, for leave

	// run alone uses the fields below
	saidAt  time.Time // of said
	tables  saidTables
	meter   meter
	greeted bool // known holds what etcd has had once

	mu sync.Mutex
	// mu guards the fields below; only run sets said
	said  fleet.Node   // what the fleet has got last of this node
	sumOf *conf.Config // whose sum is in sum
	sum   string
	alone string                // see setAlone
	known map[string]fleet.Node // the other nodes by name, as etcd had them last
	gone  map[string]goneNode   // by name
	// keys of nodes that drained when they were heard last, until they are noted as gone
	drains map[string]bool
}

// A goneNode is a node that is not there any more.
type goneNode struct {
	fleet.Node
	at time.Time
}

func newMembers(m *membership) *members {
	p := &members{
		membership: m, look: make(chan struct{}, 1), heard: make(chan struct{}, 1), left: make(chan struct{}, 1),
		known: make(map[string]fleet.Node), gone: make(map[string]goneNode), drains: make(map[string]bool),
	}
	p.host, _ = os.Hostname() // it is shown, and nothing depends on it
	m.fleet.Observe(fleet.Nodes, p.hear)
	return p
}

// hear notes which of the nodes that have changed drain, since they may be gone when run looks. It is called by the
// fleet.
func (p *members) hear(keys []string) {
	for _, key := range keys {
		var n fleet.Node
		value := p.membership.fleet.HeardOf(key)
		if value == nil || json.Unmarshal(value, &n) != nil {
			continue
		}
		p.mu.Lock()
		if n.State == draining.String() {
			p.drains[key] = true
		} else {
			delete(p.drains, key)
		}
		p.mu.Unlock()
	}
	wake(p.heard)
	wake(p.left)
}

// wake wakes up who waits for a channel that has room for one. It never blocks.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// changed says that the state of this node, or its configuration, may have changed. It never blocks.
func (p *members) changed() { wake(p.look) }

// changed is members.changed. Nothing happens for nil.
func (m *membership) changed() {
	if m != nil {
		m.members.changed()
	}
}

// setAlone says why this node leaves the judgement of backends to the others; "" if it does not.
func (p *members) setAlone(why string) {
	p.mu.Lock()
	p.alone = why
	p.mu.Unlock()
	p.changed()
}

// isAlone reports whether this node leaves the judgement of backends to the others.
func (p *members) isAlone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.alone != ""
}

// run works until ctx is done.
func (p *members) run(ctx context.Context) {
	tick := time.NewTicker(memberLookEvery)
	defer tick.Stop()
	for {
		now := time.Now()
		p.say(now)
		select {
		case <-ctx.Done():
			return
		case <-p.look:
			continue
		case now = <-tick.C:
		}
		if p.meter.due(now) {
			p.meter.count(p.membership.daemon.accepted(), now)
		}
		p.sayTables()
		select {
		case <-p.heard: // once a second at most: each node of a large fleet says something every five
			p.greet(now)
		default:
		}
	}
}

// self returns this node as it is now, but for Since and Rate.
func (p *members) self() fleet.Node {
	d := p.membership.daemon
	n := fleet.Node{
		Name: p.membership.fleet.Node(), Instance: p.membership.instance, Host: p.host, Version: d.version,
		Started: d.began.UTC(), Config: p.configSum(), State: d.life.current().String(),
		Sessions: d.server.Sessions(), Flows: d.server.Flows(),
	}
	if err := d.Ready(); err != nil {
		n.Reason = clipText(err.Error())
	} else {
		n.Ready = true
	}
	p.mu.Lock()
	n.Alone = clipText(p.alone)
	p.mu.Unlock()
	return n
}

// configSum returns the sum of the configuration in force.
func (p *members) configSum() string {
	cfg := p.membership.daemon.config()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sumOf != cfg {
		p.sumOf, p.sum = cfg, cfg.Sum()
	}
	return p.sum
}

// say says what this node is, at once if its state has changed, and figures from time to time. A process that was
// replaced by a new one says nothing more.
func (p *members) say(now time.Time) {
	if p.membership.daemon.replaced.Load() != nil {
		return
	}
	n := p.self()
	n.Rate = p.meter.rate
	n.Since = p.said.Since
	if n.State != p.said.State || n.Ready != p.said.Ready {
		n.Since = now.UTC()
	}
	if n == p.said {
		return
	}
	figures := n
	figures.Sessions, figures.Flows, figures.Rate = p.said.Sessions, p.said.Flows, p.said.Rate
	if figures == p.said && now.Sub(p.saidAt) < figuresEvery {
		return
	}
	text, err := json.Marshal(n)
	if err != nil {
		panic("a node cannot be written as JSON: " + err.Error())
	}
	p.mu.Lock()
	p.said, p.saidAt = n, now
	p.mu.Unlock()
	p.membership.fleet.Say(fleet.Nodes+fleet.Key(n.Name), text)
}

// leave says that this node ends, so that the others do not take it for one that has died. It waits until etcd has it,
// but not long, and then a moment more: the others must hear it before the lease ends. It must be called before run ends.
func (p *members) leave() {
	const patience, moment = time.Second, 200 * time.Millisecond
	timer := time.NewTimer(patience)
	defer timer.Stop()
	p.changed()
	f := p.membership.fleet
	for f.Link().Up {
		var n fleet.Node
		if json.Unmarshal(f.HeardOf(fleet.Nodes+fleet.Key(f.Node())), &n) == nil && n.State == draining.String() {
			timer.Reset(moment)
			<-timer.C
			return
		}
		select {
		case <-p.left:
		case <-timer.C:
			return
		}
	}
}

// greet notes which nodes have come and gone since the last call, and logs it. Nodes do not go while this node has no
// connection: then it does not know.
func (p *members) greet(now time.Time) {
	if !p.membership.fleet.Link().Up {
		wake(p.heard) // later
		return
	}
	is := make(map[string]fleet.Node)
	for _, n := range p.membership.fleet.Nodes() {
		if n.Name != p.membership.fleet.Node() {
			is[n.Name] = readable(n)
		}
	}
	p.mu.Lock()
	var came, went []fleet.Node
	for name, n := range is {
		if _, was := p.known[name]; !was {
			came = append(came, n)
		}
		delete(p.gone, name)
	}
	for name, n := range p.known {
		if _, stays := is[name]; stays {
			continue
		}
		key := fleet.Nodes + fleet.Key(name)
		if n.State == draining.String() || p.drains[key] {
			n.State = nodeLeft
		} else {
			n.State = nodeGone
		}
		delete(p.drains, key)
		n.Ready, n.Sessions, n.Flows, n.Rate, n.Since = false, 0, 0, 0, now.UTC()
		p.gone[name] = goneNode{n, now}
		went = append(went, n)
	}
	p.known = is
	p.forgetLocked(now)
	p.mu.Unlock()
	if p.greeted {
		p.log(came, went)
	}
	p.greeted = true
}

// forgetLocked forgets nodes that have gone long ago, and the first ones of too many. mu is held.
func (p *members) forgetLocked(now time.Time) {
	for name, n := range p.gone {
		if now.Sub(n.at) > goneFor {
			delete(p.gone, name)
		}
	}
	for len(p.gone) > maxGone {
		first := ""
		for name, n := range p.gone {
			if first == "" || n.at.Before(p.gone[first].at) {
				first = name
			}
		}
		delete(p.gone, first)
	}
}

// log logs nodes that have come and gone.
func (p *members) log(came, went []fleet.Node) {
	d := p.membership.daemon
	for _, n := range came {
		d.log.Info().Str("node", n.Name).Str("host", n.Host).Str("version", n.Version).
			Str("event", "fleet_node_joined").Msg("a node has joined the fleet")
		d.events.publish(admin.Event{At: time.Now(), Kind: "fleet_node_joined",
			Text: "node " + n.Name + " on host " + n.Host})
	}
	for _, n := range went {
		reason := "it has ended"
		if n.State == nodeGone {
			reason = "its lease has ended: it has died, or has no connection to etcd"
		}
		d.log.Info().Str("node", n.Name).Str("host", n.Host).Str("reason", reason).
			Str("event", "fleet_node_left").Msg("a node has left the fleet")
		d.events.publish(admin.Event{At: time.Now(), Kind: "fleet_node_left", Reason: reason,
			Text: "node " + n.Name + " on host " + n.Host})
	}
}

// all returns all nodes by name: this one as it is now, the others as etcd had them last, and those that have gone.
func (p *members) all() []fleet.Node {
	self := p.self()
	p.mu.Lock()
	defer p.mu.Unlock()
	self.Since, self.Rate = p.said.Since, p.said.Rate
	nodes := []fleet.Node{self}
	for _, n := range p.known {
		nodes = append(nodes, n)
	}
	for _, n := range p.gone {
		nodes = append(nodes, n.Node)
	}
	slices.SortFunc(nodes, func(a, b fleet.Node) int { return cmp.Compare(a.Name, b.Name) })
	return nodes
}

// wanted returns the sum of the configuration that most of the nodes run which are there; of several, the first in the
// order of their texts.
func wanted(nodes []fleet.Node) (sum string) {
	count := make(map[string]int)
	for _, n := range nodes {
		if isThere(n) {
			count[n.Config]++
		}
	}
	for s, times := range count {
		if sum == "" || times > count[sum] || times == count[sum] && s < sum {
			sum = s
		}
	}
	return sum
}

// isThere reports whether a node has not gone.
func isThere(n fleet.Node) bool { return n.State != nodeLeft && n.State != nodeGone }

// readable returns what another node says of itself, with a state that this version knows. Package fleet has checked
// the rest.
func readable(n fleet.Node) fleet.Node {
	if !slices.Contains([]string{starting.String(), serving.String(), handingOver.String(), draining.String()}, n.State) {
		n.State = nodeUnknown
	}
	return n
}

// clipText returns a text without what is too much of it.
func clipText(s string) string {
	if len(s) > maxNodeText {
		return s[:maxNodeText]
	}
	return s
}

// A meter measures the rate of new sessions and flows. Its zero value is ready.
type meter struct {
	rate  float64 // a second, of about the last ten seconds
	total uint64
	at    time.Time // the zero time before the first count
}

// due reports whether it is time to count again.
func (m *meter) due(now time.Time) bool { return now.Sub(m.at) >= figuresEvery }

// count takes the number of sessions and flows so far. It may fall, when a listener was removed.
func (m *meter) count(total uint64, now time.Time) {
	if !m.at.IsZero() {
		latest := float64(total-min(m.total, total)) / now.Sub(m.at).Seconds()
		m.rate = math.Round((m.rate+latest)*5) / 10 // the mean, in tenths
		if latest == 0 && m.rate < 0.2 {
			m.rate = 0
		}
	}
	m.total, m.at = total, now
}

// accepted returns how many sessions and flows the listeners in force have had.
func (d *Daemon) accepted() (n uint64) {
	for _, l := range d.server.Listeners() {
		n += l.Accepted
	}
	return n
}
