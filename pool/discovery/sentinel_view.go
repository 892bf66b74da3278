package discovery

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/pool"
)

const (
	// nameTimeout bounds the look-up of the host names that Sentinels name (resolve-hostnames and announce-hostnames).
	// Names that are known from before keep their address if it takes longer.
	nameTimeout = 500 * time.Millisecond
	// nameConcurrency is how many are looked up at the same time.
	nameConcurrency = 16
)

// A sentinelView is what one Sentinel says about a master and its replicas. It is a plain value.
type sentinelView struct {
	master  string                  // "host:port", where clients are to write
	epoch   int                     // of the configuration: each failover has a higher one
	servers map[string]serverStatus // by "host:port"; also the master
}

// A serverStatus is what one Sentinel says about a server. It is a plain value.
type serverStatus struct {
	down bool // it does not answer that Sentinel
	cut  bool // a replica whose link to its master is down
}

// askOne asks one endpoint. Its errors are *endpointError.
func (s *Sentinel) askOne(ctx context.Context, endpoint string) (sentinelView, error) {
	c, err := s.connect(ctx, ctx, endpoint)
	if err != nil {
		return sentinelView{}, err
	}
	defer c.Close()
	// get-master-addr-by-name names the promoted replica as soon as a failover has decided for it, and the other two do
	// when it is over.
	commands := appendCommand(nil, "SENTINEL", "get-master-addr-by-name", s.Master)
	commands = appendCommand(commands, "SENTINEL", "master", s.Master)
	commands = appendCommand(commands, "SENTINEL", "replicas", s.Master)
	if err := c.send(commands); err != nil {
		return sentinelView{}, err
	}
	var replies [3]redisReply
	for i := range replies {
		if replies[i], err = c.read(); err != nil {
			return sentinelView{}, err
		}
		if v := replies[i]; v.kind == '-' && !strings.HasPrefix(v.text, "ERR No such master") {
			return sentinelView{}, replyFault(v.text)
		}
	}
	if replies[0].kind == 0 || replies[1].kind == '-' || replies[2].kind == '-' {
		return sentinelView{}, &endpointError{ErrNoSuchMaster, c.masters()}
	}
	return newView(replies[0], replies[1], replies[2])
}

// masters returns in words which masters the Sentinel watches.
func (c *sentinelConn) masters() string {
	if err := c.send(appendCommand(nil, "SENTINEL", "masters")); err != nil {
		return ""
	}
	v, err := c.read()
	if err != nil || v.kind != '*' {
		return ""
	}
	var names []string
	for _, master := range v.list {
		names = append(names, quoted(master.fields()["name"]))
	}
	if len(names) == 0 {
		return "it watches none"
	}
	slices.Sort(names)
	return "it watches " + someOf(names)
}

// newView reads the replies of a Sentinel. Replicas without a usable address are left out.
func newView(address, master, replicas redisReply) (sentinelView, error) {
	where := address.texts()
	fields := master.fields()
	switch {
	case len(where) != 2 || fields == nil || replicas.kind != '*':
		return sentinelView{}, &endpointError{ErrBadAnswer, "replies of another form"}
	case len(replicas.list) > maxReplicas:
		return sentinelView{}, &endpointError{ErrBadAnswer, fmt.Sprintf("more than %d replicas", maxReplicas)}
	}
	v := sentinelView{servers: make(map[string]serverStatus, len(replicas.list)+1)}
	var usable bool
	if v.master, usable = serverAddress(where[0], where[1]); !usable {
		return sentinelView{}, &endpointError{ErrBadAnswer, "the master is at " + quoted(strings.Join(where, ":"))}
	}
	v.epoch, _ = strconv.Atoi(fields["config-epoch"]) // it only informs
	if old, usable := serverAddress(fields["ip"], fields["port"]); usable {
		v.servers[old] = serverStatus{down: isDown(fields["flags"])}
	}
	for _, replica := range replicas.list {
		fields := replica.fields()
		if addr, usable := serverAddress(fields["ip"], fields["port"]); usable {
			v.servers[addr] = serverStatus{
				down: isDown(fields["flags"]), cut: fields["master-link-status"] != "ok",
			}
		}
	}
	if _, named := v.servers[v.master]; !named {
		v.servers[v.master] = serverStatus{}
	}
	return v, nil
}

// isDown reports whether flags say that a server does not answer the Sentinel.
func isDown(flags string) bool {
	words := strings.Split(flags, ",")
	for _, word := range []string{"s_down", "o_down", "disconnected"} {
		if slices.Contains(words, word) {
			return true
		}
	}
	return false
}

// serverAddress returns "host:port" if that can be the address of a server.
func serverAddress(host, port string) (string, bool) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", false
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return net.JoinHostPort(host, port), isName(host)
	}
	addr := netip.AddrPortFrom(ip.Unmap(), uint16(n))
	// A zone may be any text, and belongs to the host that names it.
	return addr.String(), ip.Zone() == "" && checkUsable([]pool.Spec{{Addr: pool.At(addr)}}) == nil
}

// isName reports whether a text can be a host name.
func isName(host string) bool {
	const longest = 253 // RFC 1035, 2.3.4, without the last dot
	allowed := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_.", c)
	}
	return host != "" && len(host) <= longest && !strings.ContainsFunc(host, func(c rune) bool { return !allowed(c) })
}

// at returns the servers of a view by their addresses; those without one are left out.
func (v sentinelView) at(addresses map[string]netip.AddrPort) map[netip.AddrPort]serverStatus {
	servers := make(map[netip.AddrPort]serverStatus, len(v.servers))
	for name, status := range v.servers {
		addr, known := addresses[name]
		if !known {
			continue
		}
		before := servers[addr] // a Sentinel may name one server by its name and its address
		servers[addr] = serverStatus{down: status.down || before.down, cut: status.cut || before.cut}
	}
	return servers
}

// resolve returns the addresses of all servers that the endpoints name, by "host:port".
func (s *Sentinel) resolve(ctx context.Context, answers []sentinelAnswer) map[string]netip.AddrPort {
	at := make(map[string]netip.AddrPort)
	hosts := make(map[string]string) // "host:port": the host
	for _, a := range answers {
		for name := range a.view.servers {
			if addr, err := netip.ParseAddrPort(name); err == nil {
				at[name] = addr
			} else {
				hosts[name], _, _ = net.SplitHostPort(name) // serverAddress has joined it
			}
		}
	}
	if len(hosts) == 0 {
		clear(s.known)
		return at
	}
	s.known = s.lookUp(ctx, slices.Compact(slices.Sorted(maps.Values(hosts))))
	for name, host := range hosts {
		if ip, known := s.known[host]; known {
			_, port, _ := net.SplitHostPort(name)
			n, _ := strconv.ParseUint(port, 10, 16) // serverAddress has checked it
			at[name] = netip.AddrPortFrom(ip, uint16(n))
		}
	}
	return at
}

// lookUp returns the addresses of hosts: of several the lowest, so that all balancers choose the same. A host that has
// none now keeps the one that it had. At most as many are looked up as there may be replicas.
func (s *Sentinel) lookUp(ctx context.Context, hosts []string) map[string]netip.Addr {
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	found := make([]netip.Addr, min(len(hosts), maxReplicas))
	slots := make(chan struct{}, nameConcurrency)
	var looking sync.WaitGroup
	for i := range found {
		slots <- struct{}{}
		looking.Go(func() {
			defer func() { <-slots }()
			ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", hosts[i])
			if err == nil && len(ips) > 0 {
				found[i] = slices.MinFunc(ips, netip.Addr.Compare).Unmap()
			}
		})
	}
	looking.Wait()
	known := make(map[string]netip.Addr, len(found))
	for i, ip := range found {
		before := s.known[hosts[i]]
		switch addr := netip.AddrPortFrom(ip, 1); {
		case ip.IsValid() && checkUsable([]pool.Spec{{Addr: pool.At(addr)}}) == nil:
			known[hosts[i]] = ip
		case before.IsValid():
			known[hosts[i]] = before
		}
	}
	return known
}
