package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/limeload/limeload-l4/conf"
)

// resolveTimeout bounds the look-up of all names in a configuration.
const resolveTimeout = 10 * time.Second

// Read reads a configuration; for want of a file it says how to come by one. The names in it are not resolved.
func Read(file string) (*conf.Config, error) {
	cfg, err := conf.Load(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; name a file with --config, or begin one with `limeload-l4 example`", err)
	}
	return cfg, err
}

// Resolve looks up the names in a configuration; see conf.Config.Unresolved for those that have no address.
func Resolve(ctx context.Context, cfg *conf.Config) error {
	return resolve(ctx, cfg, systemLookup(), nil)
}

// systemLookup asks the hosts file and the DNS servers of this machine.
func systemLookup() conf.Lookup { return net.DefaultResolver.LookupNetIP }

// resolve looks up the names in a configuration. A name that has no address now keeps the one that it has in before, which may
// be nil.
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

// readAgain reads the daemon's own file as it is now, and resolves the names in it.
func (d *Daemon) readAgain(ctx context.Context) (*conf.Config, error) {
	before := d.config()
	cfg, err := Read(before.File)
	if err != nil {
		return nil, err
	}
	return cfg, resolve(ctx, cfg, d.lookup, before)
}

// CheckFiles reads the files that a configuration names: lists of backends, and passwords and certificates of checks. A mistake
// in one is an error; a list of backends that cannot be read is only worth a warning, since it may be written later.
func CheckFiles(cfg *conf.Config) (warnings []string, err error) {
	var mistakes []error
	for i := range cfg.Pools {
		p := &cfg.Pools[i]
		if d := p.Discovery; d != nil && d.Type == "file" {
			warning, err := checkBackendFile(cfg, p)
			if warning != "" {
				warnings = append(warnings, warning)
			}
			mistakes = append(mistakes, err)
		}
		if p.Health != nil {
			_, _, err := buildCheck(cfg, p, nil)
			mistakes = append(mistakes, err)
		}
	}
	return warnings, errors.Join(mistakes...)
}

// checkBackendFile reads the backends that a pool discovers in a file.
func checkBackendFile(cfg *conf.Config, p *conf.Pool) (warning string, err error) {
	data, err := os.ReadFile(p.Discovery.File)
	if err != nil {
		return cfg.ErrorAt(conf.Path("pool", p.Name, "discovery", "file"), err).Error(), nil
	}
	_, err = conf.ParseBackends(p.Discovery.File, data)
	return "", err
}
