package conf

import (
	"slices"
	"strconv"
	"strings"
)

// Fleet says what this node shares with the other nodes of a fleet, and where: in etcd. Its zero value is not the
// default.
type Fleet struct {
	Name         string   `toml:"name" required:"the name of the fleet, the same on all of its nodes, such as \"edge\""`
	Node         string   `toml:"node" default:""` // the name of this node, unique in the fleet; "" is the host's
	Endpoints    []string `toml:"endpoints" required:"the members of etcd, such as [\"https://10.0.0.1:2379\"]" min:"1" max:"64"`
	Prefix       string   `toml:"prefix" default:"/limeload/"` // of the keys
	User         string   `toml:"user" default:""`
	PasswordFile string   `toml:"password_file" default:""`
	Verify       bool     `toml:"verify" default:"true"`
	ServerName   string   `toml:"server_name" default:""` // "" is the endpoint's host
	CA           string   `toml:"ca" default:""`
	Cert         string   `toml:"cert" default:""` // "" if Key is
	Key          string   `toml:"key" default:""`

	// how many nodes check each backend; 0: every one
	CheckShare int `toml:"check_share" default:"0" zero:"" min:"2" max:"100"`
	// how the nodes divide the rates of limits: by their number, by their traffic, or not
	ShareLimits string `toml:"share_limits" default:"nodes" oneof:"nodes,traffic,none"`
	TicketKeys  bool   `toml:"ticket_keys" default:"true"` // TLS sessions resume on every node
}

// UsesTLS reports whether the nodes connect to etcd with TLS.
func (f *Fleet) UsesTLS() bool {
	return len(f.Endpoints) > 0 && strings.HasPrefix(f.Endpoints[0], "https://")
}

// validateFleet reports mistakes in the table fleet; nil is none.
func validateFleet(r *report, f *Fleet) {
	const path = "fleet"
	if f == nil {
		return
	}
	for _, name := range [][2]string{{"name", f.Name}, {"node", f.Node}} {
		if at := join(path, name[0]); !r.seen[at] && !(name[0] == "node" && name[1] == "") && !validName(name[1]) {
			r.add(at, Error{Found: quote(name[1]), Allowed: nameNeeds})
		}
	}
	secure := validateEndpoints(r, join(path, "endpoints"), f.Endpoints)
	if !validKeyPath(f.Prefix, true) {
		r.add(join(path, "prefix"), Error{Found: quote(f.Prefix), Allowed: `needs the beginning of keys in etcd, such as "/limeload/"`})
	}
	switch {
	case f.User != "" && f.PasswordFile == "":
		r.add(join(path, "user"), Error{Found: quote(f.User), Message: "its password_file is missing",
			Allowed: "needs both user and password_file, or none"})
	case f.PasswordFile != "" && f.User == "":
		r.add(join(path, "password_file"), Error{Found: quote(f.PasswordFile), Message: "its user is missing",
			Allowed: "needs both user and password_file, or none"})
	}
	if !r.seen[join(path, "endpoints")] && len(f.Endpoints) > 0 {
		keys := clientTLS{verify: f.Verify, serverName: f.ServerName, ca: f.CA, cert: f.Cert, key: f.Key}
		if !secure {
			keys.unused(r, path, "the fleet", `needs endpoints that begin with "https://"`)
		}
		keys.validate(r, path)
	}
}

// warnOfFleet reports what is insecure in the connection to etcd, and a key without effect.
func warnOfFleet(r *report, c *Config) {
	f := c.Fleet
	if f == nil {
		return
	}
	const path = "fleet"
	if f.UsesTLS() && !f.Verify {
		r.add(join(path, "verify"), Error{Found: "false", Message: "this node accepts any certificate: whoever answers in " +
			"place of the endpoints decides where clients go"})
	}
	if f.User != "" && !f.UsesTLS() {
		r.add(join(path, "user"), Error{Found: quote(f.User), Message: "the password is sent without TLS: everybody on " +
			"the way can read it"})
	}
	checked := func(p Pool) bool { return p.Health != nil }
	if f.CheckShare > 0 && !slices.ContainsFunc(c.Pools, checked) {
		r.add(join(path, "check_share"), Error{Found: strconv.Itoa(f.CheckShare),
			Message: "no pool has a table health, so there are no checks to share"})
	}
}
