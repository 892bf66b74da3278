package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os/exec"
	"slices"
	"time"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/conf/file"
	"github.com/limeload/limeload-l4/pool/discovery"
)

// resolveTimeout bounds the look-up of all names of a configuration.
const resolveTimeout = 10 * time.Second

// Read reads a configuration. If the file does not exist, the error says how to get one. The names in it are not
// resolved.
func Read(file string) (*conf.Config, error) {
	cfg, err := conf.Load(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; name a file with --config, or begin one with `limeload-l4 example`", err)
	}
	return cfg, err
}

// Resolve looks up the names in a configuration. See conf.Config.Unresolved for those that have no address.
func Resolve(ctx context.Context, cfg *conf.Config) error {
	return resolve(ctx, cfg, systemLookup(), nil)
}

// systemLookup uses the hosts file and the DNS servers of this machine.
func systemLookup() conf.Lookup { return net.DefaultResolver.LookupNetIP }

// resolve looks up the names in a configuration. A name that has no address now keeps the address that it has in
// before, which may be nil.
func resolve(ctx context.Context, cfg *conf.Config, lookup conf.Lookup, before *conf.Config) error {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	return cfg.Resolve(ctx, lookup, before)
}

// Load reads a configuration and resolves the names in it.
func Load(ctx context.Context, file string) (*conf.Config, error) {
	cfg, err := Read(file)
	if err != nil {
		return nil, err
	}
	return cfg, Resolve(ctx, cfg)
}

// readAgain reads the daemon's own file as it is now, and resolves the names in it. It does not wait for the writer of
// a pipe.
func (d *Daemon) readAgain(ctx context.Context) (*conf.Config, error) {
	before := d.config()
	cfg, err := conf.LoadRegular(before.File)
	if err != nil {
		return nil, err
	}
	return cfg, resolve(ctx, cfg, d.lookup, before)
}

// Check reads the files that a configuration names: lists of backends and of prefixes, passwords, certificates and the
// token. It also tries the logins of checks at the configured backends. Every mistake is an error, but a list of
// backends that cannot be read is only a warning, since it may be written later.
func Check(ctx context.Context, cfg *conf.Config) (warnings []string, err error) {
	from := newFiles(cfg.File)
	_, tokenErr := readToken(cfg, from)
	mistakes := []error{tokenErr, checkHost(cfg)}
	warnings = hostWarnings(cfg)
	secure, err := proposeTLS(cfg, &secured{}, from)
	mistakes, warnings = append(mistakes, err), append(warnings, secure.warnings...)
	_, listWarnings, err := proposeAccess(cfg, nil, from)
	mistakes, warnings = append(mistakes, err), append(warnings, listWarnings...)
	var trials []trial
	for i := range cfg.Pools {
		p := &cfg.Pools[i]
		var found []conf.Backend
		if d := p.Discovery; d != nil && d.Type == "file" {
			var warning string
			var err error
			if found, warning, err = checkBackendFile(cfg, p); warning != "" {
				warnings = append(warnings, warning)
			}
			mistakes = append(mistakes, err)
		}
		_, err := discoverySource(cfg, p, from)
		mistakes = append(mistakes, err)
		if p.Health == nil {
			continue
		}
		check, err := buildCheck(cfg, p, from, nil)
		mistakes = append(mistakes, err, findPrograms(cfg, p))
		if err == nil {
			trials = append(trials, newTrial(p, check, BackendSpecs(slices.Concat(p.Backends, found))))
		}
	}
	return warnings, errors.Join(append(mistakes, tryLogins(ctx, cfg, trials))...)
}

// findPrograms looks for the programs that a pool's checks run. A running balancer does not require them: the check
// then finds nothing out.
func findPrograms(cfg *conf.Config, p *conf.Pool) error {
	var missing []error
	look := func(path string, c *conf.Check) {
		if c.Type != "exec" {
			return
		}
		_, err := exec.LookPath(c.Command[0])
		if e, is := errors.AsType[*exec.Error](err); is {
			missing = append(missing, cfg.ErrorAt(path+".command", fmt.Errorf("program %s: %w", e.Name, e.Err)))
		}
	}
	path := conf.Path("pool", p.Name, "health")
	look(path, &p.Health.Check)
	for i := range p.Health.Checks {
		look(fmt.Sprintf("%s.checks[%d]", path, i), &p.Health.Checks[i])
	}
	return errors.Join(missing...)
}

// checkBackendFile reads the file in which a pool discovers backends.
func checkBackendFile(cfg *conf.Config, p *conf.Pool) (found []conf.Backend, warning string, err error) {
	found, err = DiscoveredInFile(cfg, p)
	if _, unreadable := errors.AsType[*fs.PathError](err); unreadable {
		return nil, cfg.ErrorAt(conf.Path("pool", p.Name, "discovery", "file"), err).Error(), nil
	}
	return found, "", err
}

// DiscoveredInFile returns the backends that a pool discovers in a file; none if it has no such discovery.
func DiscoveredInFile(cfg *conf.Config, p *conf.Pool) ([]conf.Backend, error) {
	if p.Discovery == nil || p.Discovery.Type != "file" {
		return nil, nil
	}
	path := cfg.FilePath(p.Discovery.File)
	data, err := file.Read(path, discovery.MaxFileBytes)
	if err != nil {
		return nil, err
	}
	return conf.ParseBackends(path, data)
}
