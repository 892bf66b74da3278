package main

import (
	"context"
	"fmt"
	"io"
	"net"
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
			cfg, err := conf.Load(c.String("config"))
			if err != nil {
				return err
			}
			if !c.Bool("syntax") {
				if err := resolve(c.Context, cfg); err != nil {
					return err
				}
			}
			summarize(c.App.Writer, cfg)
			return nil
		},
	}
}

func reference() []byte { return conf.Reference }

// load reads a configuration and resolves the names in it.
func load(ctx context.Context, file string) (*conf.Config, error) {
	cfg, err := conf.Load(file)
	if err != nil {
		return nil, err
	}
	return cfg, resolve(ctx, cfg)
}

func resolve(ctx context.Context, cfg *conf.Config) error {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	return cfg.Resolve(ctx, net.DefaultResolver.LookupNetIP)
}

// summarize prints what a good configuration comes to.
func summarize(w io.Writer, cfg *conf.Config) {
	fmt.Fprintf(w, "%s: good\n", cfg.File)
	for _, l := range cfg.Listeners {
		fmt.Fprintf(w, "  listener %s: %s %s -> pool %s\n", l.Name, l.Protocol, l.Address, l.Pool)
	}
	for _, p := range cfg.Pools {
		checks := "no checks"
		if h := p.Health; h != nil {
			checks = fmt.Sprintf("%s check every %s", h.Type, h.Interval)
		}
		fmt.Fprintf(w, "  pool %s: %s over %d %s, %s\n", p.Name, p.Algorithm, len(p.Backends), plural(len(p.Backends), "backend"), checks)
	}
	for _, warning := range cfg.Warnings() {
		fmt.Fprintf(w, "  warning: %s\n", warning)
	}
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}
