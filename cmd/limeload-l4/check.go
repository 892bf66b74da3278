package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/conf"
)

// resolveTimeout bounds the look-up of all names in a configuration.
const resolveTimeout = 10 * time.Second

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "check a configuration and print every mistake, or a summary",
		UsageText: "limeload-l4 check [--syntax] [--config lb.toml]",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "syntax", Usage: "look at the file alone: resolve no names"},
		},
		Action: func(c *cli.Context) error {
			cfg, err := readFlagged(c)
			if err != nil {
				return err
			}
			var missing []string
			if !c.Bool("syntax") {
				if err := resolve(c.Context, cfg); err != nil {
					return err
				}
				if missing, err = checkBackendFiles(cfg); err != nil {
					return err
				}
				if err := checkCheckFiles(cfg); err != nil {
					return err
				}
			}
			_, err = c.App.Writer.Write(append(summary(cfg), strings.Join(missing, "")...))
			return err
		},
	}
}

func reference() []byte { return conf.Reference }

// load reads a configuration and resolves the names in it.
func load(ctx context.Context, file string) (*conf.Config, error) {
	cfg, err := read(file)
	if err != nil {
		return nil, err
	}
	return cfg, resolve(ctx, cfg)
}

// readFlagged reads the configuration that --config names.
func readFlagged(c *cli.Context) (*conf.Config, error) {
	file, err := configFile(c)
	if err != nil {
		return nil, err
	}
	return read(file)
}

// read reads a configuration; for want of a file it says how to come by one.
func read(file string) (*conf.Config, error) {
	cfg, err := conf.Load(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; name a file with --config, or begin one with `limeload-l4 example`", err)
	}
	return cfg, err
}

// checkBackendFiles reads the files of backends that pools discover. A mistake in one is an error; one that cannot be read
// is only worth a warning, since it may be written later.
func checkBackendFiles(cfg *conf.Config) (warnings []string, err error) {
	for _, p := range cfg.Pools {
		if p.Discovery == nil || p.Discovery.Type != "file" {
			continue
		}
		data, err := os.ReadFile(p.Discovery.File)
		if err != nil {
			at := cfg.ErrorAt(conf.Path("pool", p.Name, "discovery", "file"), err)
			warnings = append(warnings, fmt.Sprintf("  warning: %v\n", at))
			continue
		}
		if _, err := conf.ParseBackends(p.Discovery.File, data); err != nil {
			return nil, err
		}
	}
	return warnings, nil
}

// checkCheckFiles reads the passwords and certificates of the checks.
func checkCheckFiles(cfg *conf.Config) error {
	var mistakes []error
	for i := range cfg.Pools {
		if cfg.Pools[i].Health == nil {
			continue
		}
		if _, _, err := buildCheck(cfg, &cfg.Pools[i], nil); err != nil {
			mistakes = append(mistakes, err)
		}
	}
	return errors.Join(mistakes...)
}

func resolve(ctx context.Context, cfg *conf.Config) error {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	return cfg.Resolve(ctx, net.DefaultResolver.LookupNetIP)
}

// summary is what a good configuration comes to.
func summary(cfg *conf.Config) []byte {
	w := new(bytes.Buffer)
	fmt.Fprintf(w, "%s: good\n", cfg.File)
	for _, l := range cfg.Listeners {
		fmt.Fprintf(w, "  listener %s: %s %s -> pool %s\n", l.Name, l.Protocol, resolved(l.Address, l.Bind), l.Pool)
	}
	for _, p := range cfg.Pools {
		checks := "no checks"
		if h := p.Health; h != nil {
			checks = fmt.Sprintf("%s check every %s", h.Type, h.Interval)
		}
		fmt.Fprintf(w, "  pool %s: %s over %s, %s\n", p.Name, p.Algorithm, backendsOf(&p), checks)
		for _, b := range p.Backends {
			if text := resolved(b.Address, b.Addr); text != b.Address {
				fmt.Fprintf(w, "    backend %s: %s\n", b.Name, text)
			}
		}
	}
	for _, warning := range cfg.Warnings() {
		fmt.Fprintf(w, "  warning: %s\n", warning)
	}
	return w.Bytes()
}

// backendsOf is how many backends a pool has, and where it finds others.
func backendsOf(p *conf.Pool) string {
	n := len(p.Backends)
	text := fmt.Sprintf("%d %s", n, plural(n, "backend"))
	d := p.Discovery
	if d == nil {
		return text
	}
	found := d.Type + " " + d.Name
	if d.Type == "file" {
		found = "file " + d.File
	}
	if n == 0 {
		return "those of " + found
	}
	return text + " and those of " + found
}

// resolved is an address as the file has it, and behind a name what it came to; none has been looked up with --syntax.
func resolved(text string, addr netip.AddrPort) string {
	host, _, err := net.SplitHostPort(text)
	if err != nil || host == "" || !addr.IsValid() {
		return text
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return text
	}
	return fmt.Sprintf("%s (%s)", text, addr)
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}
