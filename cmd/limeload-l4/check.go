package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/daemon"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "check a configuration and print every mistake, or a summary",
		ArgsUsage: "[FILE]",
		Description: `FILE is a configuration, or - for standard input; without it, --config says which. Unless --syntax is given,
names are resolved, the files that the configuration names are read, and logins of checks are tried. The exit
code is 0 for a configuration without mistakes, and otherwise 1.`,
		Flags: []cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "syntax",
				Usage: "look at the file alone: resolve no names, read no other file, try no login"},
			&cli.BoolFlag{Name: "effective",
				Usage: "print all keys with the values in effect, instead of a summary"},
			&cli.StringFlag{Name: "output", Value: "table",
				Usage: "`FORMAT`: table, or json for a list of mistakes and warnings"},
		},
		HideHelpCommand: true,
		OnUsageError:    asUsageError,
		Action: func(c *cli.Context) error {
			args, asked, err := arguments(c)
			if asked || err != nil {
				return err
			}
			format := c.String("output")
			switch {
			case format != "table" && format != "json":
				return &usageError{fmt.Errorf("--output %q: needs table or json", format)}
			case format == "json" && c.Bool("effective"):
				return &usageError{errors.New("--effective prints TOML: needs --output table, or none")}
			}
			in, err := checkedFile(c, args)
			if err != nil {
				return err
			}
			cfg, warnings, err := in.check(c.Context, c.Bool("syntax"))
			var usage *usageError
			switch {
			case errors.As(err, &usage):
				return err
			case format == "json":
				return in.printFindings(c.App.Writer, cfg, warnings, err)
			case err != nil:
				return err
			}
			if c.Bool("effective") {
				_, err = c.App.Writer.Write(cfg.Effective())
				return err
			}
			text := summary(cfg, warnings)
			if !c.Bool("syntax") && cfg.KernelTLS() {
				text += kernelTLS(l4.DetectKernelTLS())
			}
			screen := screenOf(c.App.Writer)
			for line := range strings.Lines(text) {
				if err := screen.write(c.App.Writer, 4, strings.TrimSuffix(line, "\n")); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// A checked is the configuration that check looks at.
type checked struct {
	file string // as messages call it
	data []byte // of standard input; nil for a file
}

// checkedFile returns the configuration that the argument or --config names.
func checkedFile(c *cli.Context, args []string) (*checked, error) {
	file, err := configFile(c)
	if err != nil {
		return nil, err
	}
	if len(args) > 0 {
		for _, at := range c.Lineage() {
			if at.IsSet("config") {
				return nil, &usageError{errors.New("FILE or --config: needs one of them")}
			}
		}
		file = args[0]
	}
	in := &checked{file: file}
	if file == "-" {
		in.file, in.data, err = readArgument(file)
		if in.data == nil {
			in.data = []byte{}
		}
	}
	return in, err
}

// check reads the configuration and looks at it. It returns the warnings of what it names.
func (in *checked) check(ctx context.Context, syntax bool) (cfg *conf.Config, warnings []string, err error) {
	if in.data != nil {
		cfg, err = conf.LoadData(in.file, in.data)
	} else {
		cfg, err = daemon.Read(in.file)
	}
	if err != nil || syntax {
		return cfg, nil, err
	}
	if err := daemon.Resolve(ctx, cfg); err != nil {
		return cfg, nil, err
	}
	if unresolved := cfg.Unresolved(); len(unresolved) > 0 { // the daemon would start and try again
		return cfg, nil, unresolved
	}
	warnings, err = daemon.Check(ctx, cfg)
	return cfg, warnings, err
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
func summary(cfg *conf.Config, warnings []string) string {
	w := new(bytes.Buffer)
	fmt.Fprintf(w, "%s: good\n", cfg.File)
	if f := cfg.Fleet; f != nil {
		fmt.Fprintf(w, "  fleet %s: node %s, etcd at %s\n", f.Name, cmp.Or(f.Node, "(the host name)"),
			strings.Join(f.Endpoints, ", "))
	}
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
	return cleanLines(w.String()) // paths may contain anything
}

// kernelTLS returns the line that says what the kernel can do for TLS.
func kernelTLS(k *l4.KernelTLS) string {
	switch names := strings.Join(k.Names(), ", "); {
	case k.Err == nil:
		return fmt.Sprintf("  kernel TLS: %s\n", names)
	case names == "":
		return fmt.Sprintf("  kernel TLS: none, the program encrypts itself: %v\n", k.Err)
	default:
		return fmt.Sprintf("  kernel TLS: %s, but not all: %v\n", names, k.Err)
	}
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
	case "etcd":
		found += d.Prefix
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
