package discovery

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/pool/discovery/reach"
)

// Bounds of what Patroni may say. A member's value has some 300 bytes, and no cluster has a hundred members.
const (
	maxClusterMembers  = 1000
	maxMemberBytes     = 64 << 10
	maxMemberNameBytes = 64 // as of a backend in the configuration
)

// A clusterMember is what a source says about one member of a database cluster.
type clusterMember struct {
	name    string
	host    string // an IP address or a host name
	port    uint16
	primary bool  // it takes writes
	idle    bool  // as long as it is no primary it gets no new sessions
	leaving bool  // as the primary it gets no new sessions: it was asked to hand over
	err     error // why it is of no use; then only its name counts
}

// A memberRecord is a member's value in etcd, or one of the members in an answer of the REST API. Its other fields are
// of no interest.
type memberRecord struct {
	// in etcd only
	ConnURL  string `json:"conn_url"`
	Location *int64 `json:"xlog_location"` // what it has received and replayed

	// in the REST API only
	Name string          `json:"name"`
	Host string          `json:"host"`
	Port int             `json:"port"`
	Lag  json.RawMessage `json:"lag"` // a number of bytes, or a text

	State string                     `json:"state"`
	Role  string                     `json:"role"`
	Tags  map[string]json.RawMessage `json:"tags"`
}

// readMember reads a member's value in etcd. Only the role and the lag are left to the caller.
func readMember(name string, value []byte) (memberRecord, clusterMember) {
	m := clusterMember{name: name}
	var r memberRecord
	switch err := json.Unmarshal(value, &r); {
	case !validMemberName(name):
		m.err = errors.New("the name is not 1 to 64 letters, digits, '_', '-' or '.'")
	case err != nil:
		m.err = fmt.Errorf("its value is not the JSON of a member: %w", jsonMistake(err))
	default:
		m.host, m.port, m.err = readConnURL(r.ConnURL)
	}
	m.idle = r.rests()
	return r, m
}

// rests reports whether a replica gets no new sessions: it does not run, or it is tagged noloadbalance.
func (r *memberRecord) rests() bool {
	return !slices.Contains([]string{"running", "streaming", "in archive recovery"}, r.State) ||
		isTrue(r.Tags["noloadbalance"])
}

// isTrue reports whether a tag is set. People also write them as texts and numbers.
func isTrue(tag json.RawMessage) bool {
	text := strings.ToLower(strings.Trim(string(tag), `"`))
	switch text {
	case "true", "yes", "on", "t", "y":
		return true
	}
	n, err := strconv.ParseFloat(text, 64)
	return err == nil && n != 0
}

// jsonMistake returns the error of a JSON text without its Go types, whose names say nothing to an operator.
func jsonMistake(err error) error {
	if wrong, is := errors.AsType[*json.UnmarshalTypeError](err); is {
		return fmt.Errorf("the field %q has a %s", wrong.Field, wrong.Value)
	}
	return err
}

// validMemberName reports whether a name can be that of a backend: it becomes a label of metrics and part of paths.
func validMemberName(name string) bool {
	if name == "" || len(name) > maxMemberNameBytes {
		return false
	}
	return !strings.ContainsFunc(name, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && !strings.ContainsRune("_-.", c)
	})
}

// defaultPostgresPort is the port of a conn_url without one.
const defaultPostgresPort = 5432

// readConnURL returns the host and the port of a member's conn_url, such as "postgres://10.0.0.1:5432/postgres".
func readConnURL(text string) (host string, port uint16, err error) {
	if text == "" {
		return "", 0, errors.New("it has no conn_url")
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		// The error would contain the text, which may have a password.
		return "", 0, errors.New("its conn_url is not a URL")
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		return "", 0, fmt.Errorf("its conn_url begins with %s: needs \"postgres://HOST:PORT/...\"", reach.Quote(u.Scheme+":"))
	}
	port = defaultPostgresPort
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", 0, fmt.Errorf("its conn_url has the port %s: needs 1 to 65535", reach.Quote(p))
		}
		port = uint16(n)
	}
	host = u.Hostname()
	return host, port, checkMemberHost(host)
}

// checkMemberHost returns an error unless host is a usable IP address, or could be a host name.
func checkMemberHost(host string) error {
	if ip, err := netip.ParseAddr(host); err == nil {
		return checkMemberIP(ip)
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	last := labels[len(labels)-1]
	valid := len(host) <= 253 && strings.Trim(last, "0123456789") != "" // a number at the end: a mistyped address
	for _, l := range labels {
		valid = valid && len(l) <= 63 && !strings.HasPrefix(l, "-") && validMemberName(l)
	}
	if !valid {
		return fmt.Errorf("its host is %s: needs an IP address or a host name", reach.Quote(host))
	}
	return nil
}

// checkMemberIP returns an error if nothing can be connected to at ip.
func checkMemberIP(ip netip.Addr) error {
	ip = ip.Unmap()
	spec := pool.At(netip.AddrPortFrom(ip, 1))
	if ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) ||
		ip.Is6() && ip.IsLinkLocalUnicast() && ip.Zone() == "" || ip.Zone() != "" && !pool.ValidZone(ip.Zone()) {
		return fmt.Errorf("its address is %s: needs one that can be connected to", spec.Addr())
	}
	return nil
}

// hostAddresses returns the address of a host.
type hostAddresses func(host string) (netip.Addr, error)

// specsOf returns the backends of a cluster, ordered by name, and an error that says which members are of no use and
// why; nil if all are.
//
// Of two members at one address, the primary is the right one, otherwise the first by name: the record of the other may
// be left from before a member got a new name.
func specsOf(members []clusterMember, addr hostAddresses) ([]pool.Spec, error) {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b clusterMember) int {
		if a.primary != b.primary {
			if a.primary {
				return -1
			}
			return 1
		}
		return strings.Compare(a.name, b.name)
	})
	var specs []pool.Spec
	var wrong []string
	at := make(map[netip.AddrPort]string)
	for _, m := range members {
		ip, err := netip.Addr{}, m.err
		if err == nil {
			ip, err = addr(m.host)
		}
		if err == nil {
			err = checkMemberIP(ip)
		}
		where := netip.AddrPortFrom(ip.Unmap(), m.port)
		if other, taken := at[where]; err == nil && taken {
			err = fmt.Errorf("%s has the same address, %s", other, where)
		}
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", shownName(m.name), err))
			continue
		}
		at[where] = m.name
		s := pool.Spec{ID: m.name, Addr: pool.At(where), Weight: 1, Role: pool.RoleReplica}
		switch {
		case m.primary:
			s.Role = pool.RolePrimary
			if m.leaving {
				s.Weight = 0
			}
		case m.idle:
			s.Weight = 0
		}
		specs = append(specs, s)
	}
	slices.SortFunc(specs, func(a, b pool.Spec) int { return cmp.Compare(a.ID, b.ID) })
	slices.Sort(wrong)
	if len(wrong) == 0 {
		return specs, nil
	}
	return specs, errors.New(someOf(wrong))
}

// shownName returns the name of a member for an error: quoted only if it needs to be.
func shownName(name string) string {
	if validMemberName(name) {
		return name
	}
	return reach.Quote(name)
}
