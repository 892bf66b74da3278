package daemon

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
)

// ocspSuffix is added to the path of a certificate for that of an OCSP answer about it, as HAProxy does.
const ocspSuffix = ".ocsp"

// A secured has what listeners terminate TLS with, and what pools encrypt with. It is immutable, but for the servers
// and clients themselves, which take other files while they are in use.
type secured struct {
	servers map[string]*l4.TLSServer // by listener
	clients map[string]*l4.TLSClient // by pool
}

// A proposedTLS is the TLS of a proposal. Servers and clients whose settings stay are those in force.
type proposedTLS struct {
	secured
	updates  []func() error // give those in force the files that were read; they have been checked
	warnings []string
}

// proposeTLS reads the files that the tables tls name, and checks them. in is what is in force. An error has the places
// of the keys.
func proposeTLS(cfg *conf.Config, in *secured, from *files) (*proposedTLS, error) {
	p := &proposedTLS{secured: secured{map[string]*l4.TLSServer{}, map[string]*l4.TLSClient{}}}
	var mistakes []error
	for i := range cfg.Listeners {
		if l := &cfg.Listeners[i]; l.TLS != nil {
			mistakes = append(mistakes, p.addServer(cfg, l, in.servers[l.Name], from))
		}
	}
	for i := range cfg.Pools {
		if c := &cfg.Pools[i]; c.TLS.On() {
			mistakes = append(mistakes, p.addClient(cfg, c, in.clients[c.Name], from))
		}
	}
	return p, errors.Join(mistakes...)
}

// addServer adds a listener's server: the one of before, which may be nil, if its settings are the same.
func (p *proposedTLS) addServer(cfg *conf.Config, l *conf.Listener, before *l4.TLSServer, from *files) error {
	settings := serverSettings(l)
	r := &materialReader{cfg: cfg, from: from, path: conf.Path("listener", l.Name, "tls")}
	m := r.server(l.TLS)
	keeps := before != nil && before.Settings().Equal(&settings)
	var err error
	switch {
	case len(r.mistakes) > 0:
		return errors.Join(r.mistakes...)
	case r.unread && keeps: // a plan, which is never put in force
		p.servers[l.Name] = before
	case r.unread:
		p.servers[l.Name] = new(l4.TLSServer)
	case keeps:
		var warnings []*l4.TLSFault
		if warnings, err = before.Check(m); err == nil {
			p.servers[l.Name] = before
			p.updates = append(p.updates, func() error { return before.Update(m) })
			p.warn(r, warnings)
		}
	default:
		var s *l4.TLSServer
		if s, err = l4.NewTLSServer(settings, m); err == nil {
			p.servers[l.Name] = s
			p.warn(r, s.Warnings())
		}
	}
	return r.located(err)
}

// addClient adds a pool's client: the one of before, which may be nil, if its settings are the same.
func (p *proposedTLS) addClient(cfg *conf.Config, c *conf.Pool, before *l4.TLSClient, from *files) error {
	settings := clientSettings(c)
	r := &materialReader{cfg: cfg, from: from, path: conf.Path("pool", c.Name, "tls")}
	m := r.client(c)
	keeps := before != nil && *before.Settings() == settings
	var err error
	switch {
	case len(r.mistakes) > 0:
		return errors.Join(r.mistakes...)
	case r.unread && keeps:
		p.clients[c.Name] = before
	case r.unread:
		p.clients[c.Name] = new(l4.TLSClient)
	case keeps:
		var warnings []*l4.TLSFault
		if warnings, err = before.Check(m); err == nil {
			p.clients[c.Name] = before
			p.updates = append(p.updates, func() error { return before.Update(m) })
			p.warn(r, warnings)
		}
	default:
		var made *l4.TLSClient
		if made, err = l4.NewTLSClient(settings, m); err == nil {
			p.clients[c.Name] = made
			p.warn(r, made.Warnings())
		}
	}
	return r.located(err)
}

func (p *proposedTLS) warn(r *materialReader, faults []*l4.TLSFault) {
	for _, f := range faults {
		p.warnings = append(p.warnings, r.locate(f).Error())
	}
}

// update gives the servers and clients in force the files that were read.
func (p *proposedTLS) update() error {
	var failures []error
	for _, update := range p.updates {
		failures = append(failures, update())
	}
	return errors.Join(failures...)
}

// secure returns a pool's client for pool.Options; nil if the pool does not encrypt.
func (s *secured) secure(pool string) any {
	if c := s.clients[pool]; c != nil {
		return c
	}
	return nil
}

// serverSettings converts the settings of a listener's table tls for the data plane.
func serverSettings(l *conf.Listener) l4.TLSServerSettings {
	t := l.TLS
	auth := map[string]l4.TLSClientAuth{"none": l4.TLSClientAuthNone, "optional": l4.TLSClientAuthOptional,
		"required": l4.TLSClientAuthRequired}
	return l4.TLSServerSettings{
		MinVersion: tlsVersion(t.MinVersion), MaxVersion: tlsVersion(t.MaxVersion), StrictNames: t.StrictSNI,
		ClientAuth: auth[t.ClientAuth], ALPN: t.ALPN, StartTLS: t.StartTLS == "postgres",
		Required: t.StartTLS == "postgres" && t.Required, HandshakeTimeout: t.HandshakeTimeout.Std(),
		KernelTLS: t.KernelTLS == "auto",
	}
}

// noteKernelTLS logs, once, whether the kernel encrypts, if the configuration in force lets it.
func (d *Daemon) noteKernelTLS() {
	if d.saidKernelTLS || !d.config().KernelTLS() {
		return
	}
	d.saidKernelTLS = true
	kernel := l4.DetectKernelTLS()
	d.log.Info().Strs("suites", kernel.Names()).AnErr("err", kernel.Err).
		Str("event", "kernel_tls").Msg("TLS 1.3 is encrypted by the kernel with these cipher suites, and otherwise by the program")
}

func tlsVersion(text string) uint16 {
	if text == "1.3" {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

// clientSettings converts the settings of a pool's table tls for the data plane.
func clientSettings(c *conf.Pool) l4.TLSClientSettings {
	s := l4.TLSClientSettings{
		Verify: c.TLS.Mode == "verify", StartTLS: c.TLS.StartTLS == "postgres", KernelTLS: c.TLS.KernelTLS == "auto",
	}
	switch c.TLS.ServerName {
	case conf.NameFromClient:
		s.FromClient = true
	default:
		s.ServerName = c.TLS.ServerName
	}
	if d := c.Discovery; d != nil && d.Type == "dns" {
		s.DefaultName = d.Name
	}
	return s
}

// backendNames returns the hosts of a pool's configured backends, by their addresses: names, or IP addresses.
func backendNames(c *conf.Pool) map[netip.AddrPort]string {
	names := make(map[netip.AddrPort]string, len(c.Backends))
	for i := range c.Backends {
		if b := &c.Backends[i]; b.Addr.IsValid() {
			names[b.Addr] = b.Host()
		}
	}
	return names
}

// A materialReader reads the files of one table tls.
type materialReader struct {
	// set once, then read-only
	cfg  *conf.Config
	from *files
	path string // of the table

	at       map[filePlace]fileKey
	mistakes []error // of reading
	unread   bool    // a file may not be read
}

// A filePlace is where the data plane finds a mistake, and a fileKey where that is from.
type (
	filePlace struct {
		part  l4.TLSPart
		index int
	}
	fileKey struct{ key, name string }
)

// file reads the file name, the value of key; nil if the name is "". A file without contents is not nil.
func (r *materialReader) file(part l4.TLSPart, index int, key, name string) []byte {
	if name == "" {
		return nil
	}
	r.note(part, index, key, name)
	limit := maxPEMBytes
	if part == l4.TLSRevocationFile {
		limit = maxRevocationBytes
	}
	data, err := r.from.read(r.path+"."+key, name, limit)
	switch {
	case errors.Is(err, errNotRead):
		r.unread = true
	case err != nil:
		r.mistakes = append(r.mistakes, r.cfg.ErrorAt(r.path+"."+key, err))
	}
	if data == nil {
		data = []byte{}
	}
	return data
}

func (r *materialReader) note(part l4.TLSPart, index int, key, name string) {
	if r.at == nil {
		r.at = make(map[filePlace]fileKey)
	}
	r.at[filePlace{part, index}] = fileKey{key, name}
}

// pair reads a certificate with its key, and an OCSP answer if there is one. key is the path of the table that names
// them, with a dot at its end, or "".
func (r *materialReader) pair(index int, key, cert, private string) l4.TLSKeyPair {
	p := l4.TLSKeyPair{Name: conf.FilePath(r.from.config, cert)}
	p.CertPEM = r.file(l4.TLSCertificateFile, index, key+"cert", cert)
	p.KeyPEM = r.file(l4.TLSKeyFile, index, key+"key", private)
	return p
}

// server reads the files of a listener.
func (r *materialReader) server(t *conf.ListenerTLS) (m l4.TLSMaterial) {
	for i, c := range t.Certificates {
		key := fmt.Sprintf("certificates[%d].", i)
		p := r.pair(i, key, c.Cert, c.Key)
		// Errors have the place of the certificate's key, since the answer has none.
		r.note(l4.TLSOCSPFile, i, key+"cert", c.Cert+ocspSuffix)
		answer, err := r.from.readIfThere(r.path+"."+key+"ocsp", c.Cert+ocspSuffix, maxPEMBytes)
		if err != nil {
			r.mistakes = append(r.mistakes, r.cfg.ErrorAt(r.path+"."+key+"cert", err))
		}
		p.OCSP = answer
		m.Certificates = append(m.Certificates, p)
	}
	m.ClientCAs = r.file(l4.TLSAuthorityFile, 0, "client_ca", t.ClientCA)
	m.ClientCRL = r.file(l4.TLSRevocationFile, 0, "client_crl", t.ClientCRL)
	m.TicketKeys = r.file(l4.TLSTicketKeyFile, 0, "ticket_key_file", t.TicketKeyFile)
	return m
}

// client reads the files of a pool.
func (r *materialReader) client(c *conf.Pool) l4.TLSClientMaterial {
	m := l4.TLSClientMaterial{Names: backendNames(c), CA: r.file(l4.TLSAuthorityFile, 0, "ca", c.TLS.CA)}
	if c.TLS.Cert != "" {
		p := r.pair(0, "", c.TLS.Cert, c.TLS.Key)
		m.Certificate = &p
	}
	return m
}

// located adds the places of keys to an error about files.
func (r *materialReader) located(err error) error {
	faults := l4.TLSFaults(err)
	if faults == nil {
		if err != nil {
			return r.cfg.ErrorAt(r.path, err)
		}
		return nil
	}
	var all []error
	for _, f := range faults {
		all = append(all, r.locate(f))
	}
	return errors.Join(all...)
}

func (r *materialReader) locate(f *l4.TLSFault) *conf.Error {
	at, known := r.at[filePlace{f.Part, f.Index}]
	if !known {
		return r.cfg.ErrorAt(r.path, f.Err)
	}
	return r.cfg.ErrorAt(r.path+"."+at.key, r.from.wrong(at.name, f.Err))
}

// readIfThere reads a file that need not exist; nil if it does not, or may not be read.
func (f *files) readIfThere(key, name string, limit int) ([]byte, error) {
	if f.only != nil && !f.only[conf.FilePath(f.config, name)] {
		return nil, nil
	}
	data, err := f.read(key, name, limit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if data == nil {
		data = []byte{}
	}
	return data, err
}

// take takes over what next has read below a key.
func (f *files) take(next *files, below string) {
	maps.DeleteFunc(f.seen, func(key string, _ content) bool { return isBelow(key, below) })
	for key, c := range next.seen {
		if isBelow(key, below) {
			f.seen[key] = c
		}
	}
}

func isBelow(key, prefix string) bool {
	return len(key) > len(prefix) && key[:len(prefix)+1] == prefix+"."
}

// logCertificates logs the warnings about the files of a proposal, and certificates that clients refuse.
func (d *Daemon) logCertificates(warnings []string, s *secured) {
	for _, warning := range warnings {
		d.log.Warn().Str("configuration", warning).
			Str("event", "configuration_warning").Msg("allowed, but perhaps not meant")
	}
	for name, server := range s.servers {
		for _, c := range server.Certificates() {
			if time.Now().After(c.NotAfter) {
				d.log.Error().Str("listener", name).Str("certificate", c.Name).Time("not_after", c.NotAfter).
					Str("event", "certificate_expired").Msg("certificate has expired: clients refuse it")
			}
		}
	}
}

// nameBackends gives the clients of pools the names of backends that have an address now. The caller has the turn.
func (d *Daemon) nameBackends(cfg *conf.Config) {
	in := d.securedNow()
	for i := range cfg.Pools {
		c := &cfg.Pools[i]
		if client := in.clients[c.Name]; client != nil {
			client.Rename(backendNames(c))
		}
	}
}
