package conf

import (
	"fmt"
	"slices"
)

// ListenerTLS says how a listener terminates TLS. Its zero value is not the default.
type ListenerTLS struct {
	// chosen by the name that a client asks for; the first one if none fits
	Certificates []Certificate `toml:"certificates" required:"at least one certificate, such as [{ cert = \"/etc/limeload/tls/db.crt\", key = \"/etc/limeload/tls/db.key\" }]" min:"1" max:"1000"`
	MinVersion   string        `toml:"min_version" default:"1.2" oneof:"1.2,1.3"`
	MaxVersion   string        `toml:"max_version" default:"1.3" oneof:"1.2,1.3"` // never below MinVersion
	// refuse clients that ask for no name, or for one that no certificate is for
	StrictSNI  bool   `toml:"strict_sni" default:"false"`
	ClientAuth string `toml:"client_auth" default:"none" oneof:"none,optional,required"`
	// paths; of the authorities of clients' certificates, and of revoked ones ("": none are)
	ClientCA  string   `toml:"client_ca" required:"the path of a PEM file with the authorities of clients' certificates" when:"client_auth=optional,required"`
	ClientCRL string   `toml:"client_crl" default:"" when:"client_auth=optional,required"`
	ALPN      []string `toml:"alpn" default:"" depends:""` // offered to clients, the preferred one first
	// how clients ask for TLS; "": they begin with it
	StartTLS string `toml:"starttls" default:"" oneof:",postgres"`
	// refuse clients that do not ask for TLS
	Required bool `toml:"required" default:"true" when:"starttls=postgres"`
	// a path; "": random keys of this process
	TicketKeyFile    string   `toml:"ticket_key_file" default:""`
	HandshakeTimeout Duration `toml:"handshake_timeout" default:"10s" min:"10ms" max:"1h"`
	// auto: the kernel encrypts what TLS 1.3 carries, where it can
	KernelTLS string `toml:"kernel_tls" default:"auto" oneof:"auto,off"`
}

// Certificate is the paths of a certificate and its key. Its zero value is of no use.
type Certificate struct {
	Cert string `toml:"cert" required:"the path of a PEM file with the certificate, and those of the authorities in between after it"`
	Key  string `toml:"key" required:"the path of a PEM file with the certificate's key"`
}

// PoolTLS says how connections to the backends of a pool are encrypted. Its zero value is not the default.
type PoolTLS struct {
	// insecure accepts any certificate; off is as if there were no table
	Mode string `toml:"mode" default:"verify" oneof:"off,insecure,verify"`
	// a path; "" is the system's
	CA string `toml:"ca" default:"" when:"mode=off,verify"`
	// "" is each backend's name as in its address, or its IP address; see NameFromClient
	ServerName string `toml:"server_name" default:""`
	Cert       string `toml:"cert" default:""` // a path; "" if Key is
	Key        string `toml:"key" default:""`  // a path; "" if Cert is
	// how backends are asked for TLS; "": connections begin with it
	StartTLS string `toml:"starttls" default:"" oneof:",postgres"`
	// as in a listener's table
	KernelTLS string `toml:"kernel_tls" default:"auto" oneof:"auto,off"`
}

// NameFromClient is the ServerName that stands for the name that the client has asked for.
const NameFromClient = "sni"

// On reports whether connections to backends are encrypted; t may be nil.
func (t *PoolTLS) On() bool { return t != nil && t.Mode != "off" }

// KernelTLS reports whether the kernel is to encrypt for any listener or pool, where it can.
func (c *Config) KernelTLS() bool {
	return slices.ContainsFunc(c.Listeners, func(l Listener) bool {
		return l.TLS != nil && l.TLS.KernelTLS == "auto" && l.TLS.MaxVersion == "1.3"
	}) || slices.ContainsFunc(c.Pools, func(p Pool) bool { return p.TLS.On() && p.TLS.KernelTLS == "auto" })
}

// postgresALPN is the protocol that Postgres clients offer from version 17 on.
const postgresALPN = "postgresql"

// validateListenerTLS reports mistakes in the table tls of the listener at path.
func validateListenerTLS(r *report, path string, l *Listener) {
	t := l.TLS
	if t == nil {
		return
	}
	path = join(path, "tls")
	first := map[string]int{} // by the path of the certificate
	for i, c := range t.Certificates {
		sub := element(join(path, "certificates"), i)
		for _, file := range [][2]string{{"cert", c.Cert}, {"key", c.Key}} {
			if file[1] == "" && !r.seen[join(sub, file[0])] {
				r.add(join(sub, file[0]), Error{Found: `""`, Allowed: "needs the path of a PEM file"})
			}
		}
		earlier, twice := first[c.Cert]
		switch {
		case twice && c.Cert != "":
			earlier := element(join(path, "certificates"), earlier)
			r.add(join(sub, "cert"), Error{Found: quote(c.Cert),
				Message: fmt.Sprintf("%s %s has this certificate already", earlier, r.where(earlier))})
		case !twice:
			first[c.Cert] = i
		}
	}
	if t.MaxVersion < t.MinVersion {
		r.add(join(path, "max_version"), Error{Found: quote(t.MaxVersion),
			Allowed: fmt.Sprintf("needs min_version, %s, or more", quote(t.MinVersion))})
	}
	if t.ClientAuth != "none" && t.ClientCA == "" && !r.seen[join(path, "client_ca")] {
		r.add(join(path, "client_ca"), Error{Found: `""`, Message: "client_auth is " + quote(t.ClientAuth),
			Allowed: "needs the path of a PEM file with the authorities of clients' certificates"})
	}
	validateALPN(r, join(path, "alpn"), t.ALPN)
	if t.StartTLS == "postgres" {
		if l.Profile != "" && l.Profile != "postgres" && !r.seen[join(Path("listener", l.Name), "profile")] {
			r.add(join(path, "starttls"), Error{Found: quote(t.StartTLS), Message: "profile is " + quote(l.Profile),
				Allowed: `needs profile = "postgres" or "" beside the table, or starttls = ""`})
		}
		preset(r, join(path, "alpn"), "starttls "+quote(t.StartTLS), &t.ALPN, []string{postgresALPN})
	}
}

// validatePoolTLS reports mistakes in the table tls of a pool, at path.
func validatePoolTLS(r *report, path string, t *PoolTLS) {
	if t == nil {
		return
	}
	if (t.Cert == "") != (t.Key == "") {
		have, missing, value := "cert", "key", t.Cert
		if t.Cert == "" {
			have, missing, value = "key", "cert", t.Key
		}
		r.add(join(path, have), Error{Found: quote(value), Message: "its " + missing + " is missing",
			Allowed: "needs both cert and key, or none"})
	}
	if t.ServerName != "" && !validHost(t.ServerName) && !isIP(t.ServerName) {
		r.add(join(path, "server_name"), Error{Found: quote(t.ServerName),
			Message: "this is neither an IP address nor a host name",
			Allowed: `needs a name, "sni" for the one that the client asks for, or "" for that of the backend's address`})
	}
}

// checkPoolTLS reports pools that encrypt, and are used by listeners that cannot.
func checkPoolTLS(r *report, c *Config) {
	for i := range c.Pools {
		p := &c.Pools[i]
		if !p.TLS.On() {
			continue
		}
		unix := slices.ContainsFunc(p.Backends, func(b Backend) bool { return b.Path != "" })
		if path := Path("pool", p.Name, "tls"); unix && p.TLS.Mode == "verify" && p.TLS.ServerName == "" {
			r.add(join(path, "server_name"), Error{Found: `""`,
				Message: "a backend is a Unix socket, and has no name that its certificate could be for",
				Allowed: "needs the name in the certificate"})
		}
		for k := range c.Listeners {
			l := &c.Listeners[k]
			if !slices.Contains(l.Pools(), p.Name) {
				continue
			}
			e := Error{Found: "a table", Allowed: `needs mode = "off", or another pool`}
			switch path := Path("listener", l.Name); {
			case l.Protocol == "udp":
				e.Message = fmt.Sprintf("%s speaks udp, and TLS is for TCP", path)
			case l.Cache != nil || l.Profile == "dns":
				e.Message = fmt.Sprintf("questions of %s go over UDP, or TCP without TLS", path)
			default:
				continue
			}
			r.add(Path("pool", p.Name, "tls"), e)
			break
		}
	}
}

// ReadsPostgres reports whether the listener reads what clients of Postgres begin with: its profile says that they are
// such, or its pools ask their backends for TLS in the way of Postgres, so that the clients' own requests must not get
// there.
func (c *Config) ReadsPostgres(l *Listener) bool {
	pools := l.Pools()
	return l.Profile == "postgres" || slices.ContainsFunc(c.Pools, func(p Pool) bool {
		return p.TLS.On() && p.TLS.StartTLS == "postgres" && slices.Contains(pools, p.Name)
	})
}

// warnOfListenerTLS reports what is allowed in the table tls of a listener, but probably not meant.
func warnOfListenerTLS(r *report, l *Listener) {
	if l.TLS == nil {
		return
	}
	path := Path("listener", l.Name, "tls")
	if l.TLS.ClientAuth == "required" && l.TLS.StartTLS != "" && !l.TLS.Required {
		r.add(join(path, "required"), Error{Found: "false",
			Message: "clients that do not ask for TLS are served without a certificate"})
	}
	if l.TLS.StartTLS == "postgres" && len(l.TLS.ALPN) > 0 && !slices.Contains(l.TLS.ALPN, postgresALPN) {
		r.add(join(path, "alpn"), Error{Message: fmt.Sprintf("without %q, clients with sslnegotiation=direct are refused",
			postgresALPN)})
	}
}

// warnOfPoolTLS reports what is allowed in the table tls of the pool at path, but probably not meant.
func warnOfPoolTLS(r *report, path string, p *Pool, listeners []Listener) {
	t := p.TLS
	if !t.On() {
		return
	}
	path = join(path, "tls")
	if t.Mode == "insecure" {
		r.add(join(path, "mode"), Error{Found: quote(t.Mode), Message: "any certificate of a backend is accepted"})
	}
	for i := range listeners {
		l := &listeners[i]
		switch listener := Path("listener", l.Name); {
		case l.TLS != nil || !slices.Contains(l.Pools(), p.Name):
		case len(l.Routes) > 0:
			r.add(path, Error{Message: fmt.Sprintf("%s passes TLS through to these backends: it is encrypted twice",
				listener)})
		case t.ServerName == NameFromClient:
			r.add(join(path, "server_name"), Error{Found: quote(t.ServerName), Message: fmt.Sprintf(
				"TLS does not end at %s: the name that its clients ask for is not known", listener)})
		}
	}
}

// Host returns the host of the backend's address as the file has it, a name or an IP address; "" if it has none.
func (b *Backend) Host() string {
	end, e := splitBackend(b.Address, "")
	switch {
	case e != nil:
		return ""
	case end.ip.IsValid():
		return end.ip.String()
	}
	return end.host
}
