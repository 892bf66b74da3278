package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/daemon"
	"github.com/limeload/limeload-l4/conf"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "check a configuration and print every mistake, or a summary",
		UsageText: "limeload-l4 check [--syntax] [--effective] [--config lb.toml]",
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "syntax",
				Usage: "look at the file alone: resolve no names, read no other file, try no login"},
			&cli.BoolFlag{Name: "effective",
				Usage: "print all keys with the values in effect, instead of a summary"},
		},
		Action: func(c *cli.Context) error {
			cfg, err := readFlagged(c)
			if err != nil {
				return err
			}
			var missing []string
			if !c.Bool("syntax") {
				if err := daemon.Resolve(c.Context, cfg); err != nil {
					return err
				}
				if unresolved := cfg.Unresolved(); len(unresolved) > 0 { // the daemon would start and try again
					return unresolved
				}
				if missing, err = daemon.Check(c.Context, cfg); err != nil {
					return err
				}
			}
			report := summary(cfg, missing)
			if c.Bool("effective") {
				report = cfg.Effective()
			}
			_, err = c.App.Writer.Write(report)
			return err
		},
	}
}

// readFlagged reads the configuration that --config names.
func readFlagged(c *cli.Context) (*conf.Config, error) {
	file, err := configFile(c)
	if err != nil {
		return nil, err
	}
	return daemon.Read(file)
}

// summary describes a valid configuration; warnings are about the files that it names.
func summary(cfg *conf.Config, warnings []string) []byte {
	w := new(bytes.Buffer)
	fmt.Fprintf(w, "%s: good\n", cfg.File)
	for _, l := range cfg.Listeners {
		pools := l.Pools()
		fmt.Fprintf(w, "  listener %s: %s %s -> %s %s\n", l.Name, l.Protocol,
			l.AddressText(), plural(len(pools), "pool"), strings.Join(pools, ", "))
	}
	for _, p := range cfg.Pools {
		checks := "no checks"
		if h := p.Health; h != nil {
			checks = fmt.Sprintf("%s check every %s", h.Type, h.Interval)
		}
		fmt.Fprintf(w, "  pool %s: %s over %s, %s\n", p.Name, p.Algorithm, backendsOf(&p), checks)
		for _, b := range p.Backends {
			if text := conf.ResolvedText(b.Address, b.Addr); text != b.Address {
				fmt.Fprintf(w, "    backend %s: %s\n", b.Name, text)
			}
		}
	}
	for _, warning := range append(cfg.Warnings(), warnings...) {
		fmt.Fprintf(w, "  warning: %s\n", warning)
	}
	return []byte(cleanLines(w.String())) // paths may contain anything
}

// backendsOf returns the number of a pool's backends, and the kind of its discovery.
func backendsOf(p *conf.Pool) string {
	n := len(p.Backends)
	text := fmt.Sprintf("%d %s", n, plural(n, "backend"))
	d := p.Discovery
	if d == nil {
		return text
	}
	found := d.Type + " "
	switch d.Type {
	case "file":
		found += d.File
	case "patroni":
		found += d.Scope
	case "sentinel":
		found += d.Master
	default:
		found += d.Name
	}
	if n == 0 {
		return "those of " + found
	}
	return text + " and those of " + found
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}
