package daemon

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/pool"
)

const (
	// partBytes is how much text about pools a key has: a change of one pool must not write those of thousands.
	partBytes = 16 << 10
	// maxParts bounds how much a node says of its pools: enough for some 10,000.
	maxParts = 64
	// maxPoolsCompared bounds how many pools of another node are read.
	maxPoolsCompared = 20_000
)

// A poolDigest is a pool.Digest as the nodes say it. Its keys are short, since there may be many.
type poolDigest struct {
	Algorithm  string   `json:"a"`
	Zone       string   `json:"z,omitempty"`
	Backends   int      `json:"n"`
	Eligible   int      `json:"e"`
	Members    string   `json:"m"`
	Weights    string   `json:"w"`
	Choices    string   `json:"c,omitempty"` // "" for an algorithm that does not hash
	Ineligible []string `json:"i,omitempty"`
}

func digestOf(d pool.Digest) poolDigest {
	hex := func(n uint64) string { return strconv.FormatUint(n, 16) }
	p := poolDigest{
		Algorithm: d.Algorithm, Zone: d.Zone, Backends: d.Backends, Eligible: d.Eligible,
		Members: hex(d.Members), Weights: hex(d.Weights), Ineligible: d.Ineligible,
	}
	if d.Choices != 0 {
		p.Choices = hex(d.Choices)
	}
	return p
}

// choice returns what must be alike on all nodes.
func (p poolDigest) choice() string {
	return strings.Join([]string{p.Algorithm, p.Members, p.Weights, p.Choices}, " ")
}

// digests returns the digests of this node's pools.
func (d *Daemon) digests() map[string]poolDigest {
	all := make(map[string]poolDigest)
	for name, p := range d.poolsByName() {
		all[name] = digestOf(p.Digest())
	}
	return all
}

// saidTables is what a node has said of its pools, by key.
type saidTables map[string]string

// sayTables says the digests of this node's pools where they have changed.
func (p *members) sayTables() {
	f := p.membership.fleet
	now := make(saidTables)
	for i, text := range partsOf(p.membership.daemon.digests()) {
		key := fleet.Tables + fleet.Key(f.Node(), strconv.Itoa(i))
		if now[key] = text; p.tables[key] != text {
			f.Say(key, []byte(text))
		}
	}
	for key := range p.tables {
		if _, still := now[key]; !still {
			f.Unsay(key)
		}
	}
	p.tables = now
}

// partsOf writes digests as several JSON objects, each of pools that follow each other by name.
func partsOf(digests map[string]poolDigest) []string {
	var parts []string
	var part strings.Builder
	end := func() {
		if part.Len() > 0 {
			parts = append(parts, part.String()+"}")
			part.Reset()
		}
	}
	for _, name := range slices.Sorted(maps.Keys(digests)) {
		text, err := json.Marshal(digests[name])
		if err != nil {
			panic("a digest cannot be written as JSON: " + err.Error())
		}
		if part.Len() > 0 && part.Len()+len(name)+len(text) > partBytes {
			end()
		}
		separator := ","
		if part.Len() == 0 {
			separator = "{"
		}
		fmt.Fprintf(&part, "%s%q:%s", separator, name, text)
	}
	end()
	return parts[:min(len(parts), maxParts)]
}

// digestsOf returns what a node says of its pools; nil if it says nothing.
func digestsOf(heard map[string][]byte) map[string]poolDigest {
	var all map[string]poolDigest
	for _, value := range heard {
		var part map[string]poolDigest
		if json.Unmarshal(value, &part) != nil {
			continue // it is no value of a node
		}
		if all == nil {
			all = make(map[string]poolDigest)
		}
		for name, d := range part {
			if len(all) < maxPoolsCompared && len(name) <= maxNodeText {
				all[name] = d.readable()
			}
		}
	}
	return all
}

// readable returns a digest of another node with bounded texts.
func (p poolDigest) readable() poolDigest {
	for _, text := range []*string{&p.Algorithm, &p.Zone, &p.Members, &p.Weights, &p.Choices} {
		*text = clipText(*text)
	}
	p.Ineligible = p.Ineligible[:min(len(p.Ineligible), 8)]
	for i := range p.Ineligible {
		p.Ineligible[i] = clipText(p.Ineligible[i])
	}
	return p
}

// CompareFleet compares what the nodes choose, as they say it themselves.
func (d *Daemon) CompareFleet() (admin.FleetComparison, error) {
	m := d.fleet
	if m == nil {
		return admin.FleetComparison{}, admin.ErrNoFleet
	}
	c := admin.FleetComparison{Nodes: []string{}, Mute: []string{}, Connected: m.fleet.Link().Up}
	said := make(map[string]map[string]poolDigest) // by node, then by pool
	for _, n := range m.members.all() {
		if !isThere(n) {
			continue
		}
		var digests map[string]poolDigest
		if n.Name == m.fleet.Node() {
			digests = d.digests()
		} else {
			digests = digestsOf(m.fleet.Heard(fleet.Tables + fleet.Key(n.Name) + "/"))
		}
		if digests == nil {
			c.Mute = append(c.Mute, n.Name)
			continue
		}
		c.Nodes = append(c.Nodes, n.Name)
		said[n.Name] = digests
	}
	c.Pools = comparePools(c.Nodes, said)
	c.Same = !slices.ContainsFunc(c.Pools, func(p admin.FleetPool) bool { return !p.Same })
	return c, nil
}

// comparePools compares all pools of all nodes.
func comparePools(nodes []string, said map[string]map[string]poolDigest) []admin.FleetPool {
	names := make(map[string]bool)
	for _, digests := range said {
		for name := range digests {
			names[name] = true
		}
	}
	pools := []admin.FleetPool{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		has := make(map[string]poolDigest)
		for _, node := range nodes {
			if digest, is := said[node][name]; is {
				has[node] = digest
			}
		}
		pools = append(pools, comparePool(name, nodes, has))
	}
	return pools
}

// comparePool compares one pool of the nodes that have it with what most of them say, of the same zone.
func comparePool(name string, nodes []string, has map[string]poolDigest) admin.FleetPool {
	usual := make(map[string]poolDigest) // by zone
	for zone, choices := range choicesByZone(nodes, has) {
		usual[zone] = most(choices)
	}
	all := make([]poolDigest, 0, len(has))
	for _, node := range nodes {
		if digest, is := has[node]; is {
			all = append(all, digest)
		}
	}
	p := admin.FleetPool{Name: name, Nodes: len(has), Differences: []admin.FleetDifference{}}
	if len(all) > 0 {
		of := most(all)
		p.Algorithm, p.Eligible = of.Algorithm, of.Eligible
	}
	for _, node := range nodes {
		digest, is := has[node]
		switch {
		case !is && 2*len(has) > len(nodes):
			p.Differences = append(p.Differences, admin.FleetDifference{Node: node, Why: "it does not have this pool"})
		case is && 2*len(has) <= len(nodes):
			p.Differences = append(p.Differences, admin.FleetDifference{Node: node,
				Why: fmt.Sprintf("it has this pool, and only %d of %d nodes have it", len(has), len(nodes))})
		case is && digest.choice() != usual[digest.Zone].choice():
			p.Differences = append(p.Differences, admin.FleetDifference{Node: node,
				Why: digest.differsFrom(usual[digest.Zone])})
		}
	}
	p.Same = len(p.Differences) == 0
	return p
}

// choicesByZone returns the digests of a pool by the zone that it prefers, in the order of the nodes.
func choicesByZone(nodes []string, has map[string]poolDigest) map[string][]poolDigest {
	all := make(map[string][]poolDigest)
	for _, node := range nodes {
		if d, is := has[node]; is {
			all[d.Zone] = append(all[d.Zone], d)
		}
	}
	return all
}

// most returns the digest that most nodes have; of several, the one with more eligible backends.
func most(digests []poolDigest) poolDigest {
	count := make(map[string]int)
	for i := range digests {
		count[digests[i].choice()]++
	}
	return slices.MaxFunc(digests, func(a, b poolDigest) int {
		return cmp.Or(cmp.Compare(count[a.choice()], count[b.choice()]), cmp.Compare(a.Eligible, b.Eligible),
			cmp.Compare(a.choice(), b.choice()))
	})
}

// differsFrom says in words why a node does not choose as most others do.
func (p poolDigest) differsFrom(usual poolDigest) string {
	switch {
	case p.Algorithm != usual.Algorithm:
		return fmt.Sprintf("its algorithm is %s, elsewhere %s", p.Algorithm, usual.Algorithm)
	case p.Backends != usual.Backends:
		return fmt.Sprintf("it has %d %s, elsewhere %d", p.Backends, plural(p.Backends, "backend"), usual.Backends)
	case p.Eligible != usual.Eligible:
		return fmt.Sprintf("%d of its %d %s eligible, elsewhere %d%s", p.Eligible, p.Backends,
			plural(p.Backends, "backend"), usual.Eligible, p.others(usual))
	case p.Members != usual.Members:
		return "other backends are eligible, or have other addresses or tiers" + p.others(usual)
	case p.Weights != usual.Weights:
		return "its backends have other weights"
	}
	return "the same backends, and other choices: its keys of the hash or its version of the program differ"
}

// others names backends that are not eligible on this node and are elsewhere, and the other way round.
func (p poolDigest) others(usual poolDigest) string {
	var text string
	not := func(who string, these, those []string) {
		var names []string
		for _, name := range these {
			if !slices.Contains(those, name) {
				names = append(names, strconv.Quote(name))
			}
		}
		if len(names) > 0 {
			text += fmt.Sprintf("; not eligible %s: %s", who, strings.Join(names, ", "))
		}
	}
	not("here alone", p.Ineligible, usual.Ineligible)
	not("elsewhere", usual.Ineligible, p.Ineligible)
	return text
}
