package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"errors"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/pool/discovery"
)

// buildDiscovery returns the runner that updates a pool to what its discovery finds.
func buildDiscovery(c *conf.Discovery, source discovery.Source, p *pool.Pool) *discovery.Runner {
	o := discovery.Options{Name: c.Type, Source: source, Pool: p, Refresh: c.Refresh.Std()}
	if c.OnError == "empty" {
		o.OnError = discovery.Empty
	}
	for _, b := range p.Backends() {
		if b.Source == c.Type {
			o.Known = append(o.Known, b.Given)
		}
	}
	return discovery.New(o)
}

// discoverySource returns the source of a pool's discovery; nil without discovery. It reads the files that the
// discovery names, but for a list of backends; an error has the place of the key.
func discoverySource(cfg *conf.Config, p *conf.Pool, from *files) (discovery.Source, error) {
	d := p.Discovery
	if d == nil {
		return nil, nil
	}
	path := conf.Path("pool", p.Name, "discovery")
	switch d.Type {
	case "dns":
		return discovery.DNS{
			Name: d.Name, Port: uint16(d.Port), Resolver: d.Resolver, Family: addressFamily(d.Family),
			AllowLoopback: d.AllowLoopback,
		}, nil
	case "srv":
		return discovery.SRV{
			Name: d.Name, Port: uint16(d.Port), Resolver: d.Resolver, Family: addressFamily(d.Family),
			AllowLoopback: d.AllowLoopback,
		}, nil
	case "patroni":
		return patroniSource(cfg, path, d, from)
	case "sentinel":
		return sentinelSource(cfg, path, d, from)
	case "etcd":
		return etcdSource(cfg, path, d, from)
	}
	return discovery.File{Path: cfg.FilePath(d.File), Parse: parseBackends}, nil
}

// givesRoles reports whether a source of backends says which of them is the primary.
func givesRoles(source string) bool { return (&conf.Discovery{Type: source}).GivesRoles() }

// patroniSource returns the source of a discovery of type patroni.
func patroniSource(cfg *conf.Config, path string, d *conf.Discovery, from *files) (discovery.Source, error) {
	password, secure, err := clusterLogin(cfg, path, d, from)
	if err != nil {
		return nil, err
	}
	o := discovery.PatroniOptions{
		Endpoints: d.Endpoints, Scope: d.Scope, Namespace: d.Namespace, User: d.User, Password: password, TLS: secure,
		MaxLag: int64(d.MaxLag),
	}
	if d.REST {
		return discovery.NewPatroniREST(o), nil
	}
	return discovery.NewPatroni(o), nil
}

// etcdSource returns the source of a discovery of type etcd.
func etcdSource(cfg *conf.Config, path string, d *conf.Discovery, from *files) (discovery.Source, error) {
	password, secure, err := clusterLogin(cfg, path, d, from)
	if err != nil {
		return nil, err
	}
	return discovery.NewEtcd(discovery.EtcdOptions{
		Endpoints: d.Endpoints, Prefix: d.Prefix, User: d.User, Password: password, TLS: secure,
		AllowLoopback: d.AllowLoopback, Parse: parseBackend,
	}), nil
}

// clusterLogin reads the files of a discovery that logs in: the password, and the certificates; nil if it uses no TLS.
func clusterLogin(cfg *conf.Config, path string, d *conf.Discovery, from *files) (string, *tls.Config, error) {
	password, err := readPassword(cfg, path, d.PasswordFile, from)
	if err != nil || !d.UsesTLS() {
		return password, nil, err
	}
	secure, err := clientTLS{d.ServerName, d.Verify, d.CA, d.Cert, d.Key}.read(cfg, path, from)
	return password, secure, err
}

// clientTLS has the settings of a check or a discovery that connects with TLS.
type clientTLS struct {
	serverName    string
	verify        bool
	ca, cert, key string // paths; "" for none
}

// read reads the files of the settings, whose keys are below path.
func (c clientTLS) read(cfg *conf.Config, path string, from *files) (*tls.Config, error) {
	secure := &tls.Config{ServerName: c.serverName, InsecureSkipVerify: !c.verify}
	if c.ca != "" {
		pem, err := from.read(path+".ca", c.ca, maxPEMBytes)
		secure.RootCAs = x509.NewCertPool()
		if err == nil && !secure.RootCAs.AppendCertsFromPEM(pem) {
			err = from.wrong(c.ca, errors.New("there is no certificate in it: needs a PEM file"))
		}
		if err != nil && !errors.Is(err, errNotRead) {
			return nil, cfg.ErrorAt(path+".ca", err)
		}
	}
	if c.cert == "" {
		return secure, nil
	}
	certificate, certErr := from.read(path+".cert", c.cert, maxPEMBytes)
	key, keyErr := from.read(path+".key", c.key, maxPEMBytes)
	switch {
	case errors.Is(certErr, errNotRead), errors.Is(keyErr, errNotRead):
		return secure, nil
	case certErr != nil:
		return nil, cfg.ErrorAt(path+".cert", certErr)
	case keyErr != nil:
		return nil, cfg.ErrorAt(path+".key", keyErr)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, cfg.ErrorAt(path+".cert", from.wrong(c.cert, err))
	}
	secure.Certificates = []tls.Certificate{pair}
	return secure, nil
}

// readPassword reads a password, the first line of its file; "" without a file.
func readPassword(cfg *conf.Config, path, file string, from *files) (string, error) {
	if file == "" {
		return "", nil
	}
	line, err := from.firstLine(path+".password_file", file)
	if err != nil && !errors.Is(err, errNotRead) {
		return "", cfg.ErrorAt(path+".password_file", err)
	}
	return line, nil
}
