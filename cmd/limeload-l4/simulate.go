package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/daemon"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool"
)

const simulateHelp = `Sessions are made up, or with --log those of an access log of this program. They go through the pool's
own code, with its algorithm, weights, limits, queue and stickiness; only the backends and the clock are
imagined: all are healthy, and nothing is connected to.

For each backend it prints what it had open at most, its sessions, their share and the share that its
weight asks for. The maximum over the mean is how many times the mean of open sessions, by weight, the
fullest backend has: 1 is even; a thousand looks are averaged. With --change it also prints, for the
algorithms that hash, which part of the clients belongs to another backend afterwards: those who had to
move, from a backend that went or became lighter or to one that came or became heavier, and those who
moved between two that are as before.

   limeload-l4 simulate --config lb.toml --algorithm all
   limeload-l4 simulate --config lb.toml --pool redis --change 'remove b2'
   limeload-l4 simulate --config lb.toml --log access.log --algorithm p2c`

func simulateCommand() *cli.Command {
	return &cli.Command{
		Name:        "simulate",
		Usage:       "replay sessions over a pool of the configuration, and see who would get what",
		Description: simulateHelp,
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "pool", Usage: "the `NAME` of the pool; needed when there are several"},
			&cli.StringFlag{Name: "algorithm", Usage: "another `ALGORITHM` than the pool's; \"all\" compares them"},
			&cli.IntFlag{Name: "sessions", Value: 100_000, Usage: "how many, `N`, at most 10,000,000"},
			&cli.Float64Flag{Name: "rate", Value: 1000, Usage: "sessions per second, `R`, that come at random"},
			&cli.StringFlag{Name: "lifetime", Value: "1s",
				Usage: "how long a session lasts: a mean `TIME`, exponentially spread, or \"fixed TIME\""},
			&cli.IntFlag{Name: "clients", Value: 10_000,
				Usage: "how many clients, `N`, the sessions come from, all as often"},
			&cli.StringFlag{Name: "log", Usage: "replay the sessions of this access log, a `FILE` of JSON lines",
				TakesFile: true},
			&cli.StringSliceFlag{Name: "latency",
				Usage: "how long a backend takes to its first byte, `NAME=TIME`; else 1ms"},
			&cli.StringFlag{Name: "change",
				Usage: "made halfway: \"remove NAME\", \"add HOST:PORT\", \"weight NAME N\" or \"drain NAME\", the `CHANGE`"},
			&cli.Uint64Flag{Name: "seed", Value: 1,
				Usage: "the same `N` makes the same sessions; p2c, random and least_time draw their own numbers"},
			&cli.StringFlag{Name: "output", Value: "table", Usage: "`FORMAT`: table, json or csv"},
		},
		Action: func(c *cli.Context) error {
			cfg, err := readFlagged(c)
			if err != nil {
				return err
			}
			return simulate(c, cfg)
		},
	}
}

// simulate runs a simulation for each requested algorithm, and prints the results.
func simulate(c *cli.Context, cfg *conf.Config) error {
	print, known := map[string]func(io.Writer, []report) error{
		"table": printTable, "json": printJSON, "csv": printCSV,
	}[c.String("output")]
	if !known {
		return &usageError{fmt.Errorf("--output %q: needs table, json or csv", c.String("output"))}
	}
	p, err := simulatedPool(cfg, c.String("pool"))
	if err != nil {
		return err
	}
	sessions, err := simulatedSessions(c)
	if err != nil {
		return err
	}
	change, err := parseChange(c.String("change"))
	if err != nil {
		return err
	}
	specs, err := simulatedBackends(cfg, p)
	if err != nil {
		return err
	}
	latency, err := parseLatencies(c.StringSlice("latency"), specs)
	if err != nil {
		return err
	}
	kinds, err := simulatedKinds(c.String("algorithm"), p.Algorithm)
	if err != nil {
		return err
	}
	var reports []report
	for _, kind := range kinds {
		o := daemon.PoolOptions(p)
		o.Algorithm = kind.Name
		if !kind.Hash {
			o.HashBalance = 0
		}
		s, err := newSimulation(o, specs)
		if err != nil {
			return err
		}
		s.latency, s.change = latency, change
		err = s.run(sessions)
		if errors.Is(err, pool.ErrUnknownBackend) {
			return fmt.Errorf("--change %q: the pool has no such backend; %s", c.String("change"),
				thereAre(strings.Fields(c.String("change"))[1], specNames(specs)))
		}
		if err != nil {
			return err
		}
		reports = append(reports, newReport(p.Name, kind, &s.result))
	}
	return print(c.App.Writer, reports)
}

// simulatedPool returns the named pool, or the only one.
func simulatedPool(cfg *conf.Config, name string) (*conf.Pool, error) {
	var names []string
	for i := range cfg.Pools {
		p := &cfg.Pools[i]
		if p.Name == name || name == "" && len(cfg.Pools) == 1 {
			return p, nil
		}
		names = append(names, p.Name)
	}
	if name == "" {
		return nil, &usageError{fmt.Errorf("--pool: which one? There are %s", strings.Join(names, ", "))}
	}
	return nil, &usageError{
		fmt.Errorf("--pool %q: there is no such pool; %s", name, thereAre(name, names))}
}

// simulatedBackends returns the pool's backends. It looks up no host names: a simulation hashes the names of the
// backends, and does not use their addresses otherwise.
func simulatedBackends(cfg *conf.Config, p *conf.Pool) ([]pool.Spec, error) {
	found, err := daemon.DiscoveredInFile(cfg, p)
	if err != nil {
		return nil, err
	}
	backends := slices.Concat(p.Backends, found)
	if len(backends) == 0 {
		return nil, fmt.Errorf("pool %s: its backends come from the DNS; list some in the file to simulate with",
			p.Name)
	}
	specs := daemon.BackendSpecs(backends)
	for i := range specs {
		if !specs[i].Addr.IsValid() {
			address := netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})
			specs[i].Addr = pool.At(netip.AddrPortFrom(address, 1))
		}
	}
	return specs, nil
}

// simulatedKinds returns the requested algorithms.
func simulatedKinds(asked, own string) ([]algo.Kind, error) {
	if asked == "all" {
		return algo.Kinds(), nil
	}
	if asked == "" {
		asked = own
	}
	if k := algo.KindOf(asked); k.Name != "" {
		return []algo.Kind{k}, nil
	}
	_, err := algo.Build(asked, nil, algo.Options{})
	return nil, &usageError{fmt.Errorf("--algorithm: %w", err)}
}

// specNames returns the names of backends.
func specNames(specs []pool.Spec) []string {
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = s.ID
	}
	return names
}

// parseLatencies parses NAME=TIME.
func parseLatencies(texts []string, specs []pool.Spec) (map[string]time.Duration, error) {
	latency := make(map[string]time.Duration)
	for _, text := range texts {
		name, value, _ := strings.Cut(text, "=")
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 {
			return nil, &usageError{fmt.Errorf("--latency %q: needs NAME=TIME, such as b2=50ms", text)}
		}
		if !slices.ContainsFunc(specs, func(s pool.Spec) bool { return s.ID == name }) {
			return nil, &usageError{fmt.Errorf("--latency %q: the pool has no backend %q; %s", text, name,
				thereAre(name, specNames(specs)))}
		}
		latency[name] = d
	}
	return latency, nil
}

// parseChange parses the change that is made halfway; nil for none.
func parseChange(text string) (func(*pool.Pool) error, error) {
	words := strings.Fields(text)
	switch {
	case len(words) == 0:
		return nil, nil
	case len(words) == 2 && words[0] == "remove":
		return func(p *pool.Pool) error { return p.Remove(words[1]) }, nil
	case len(words) == 2 && words[0] == "drain":
		return func(p *pool.Pool) error { return p.SetMode(words[1], pool.Drain) }, nil
	case len(words) == 2 && words[0] == "add":
		if addr, err := pool.ParseAddress(words[1]); err == nil {
			return func(p *pool.Pool) error { return p.Add(pool.Spec{ID: words[1], Addr: addr, Weight: 1}) }, nil
		}
	case len(words) == 3 && words[0] == "weight":
		if w, err := strconv.ParseUint(words[2], 10, 32); err == nil {
			return func(p *pool.Pool) error { return p.SetWeight(words[1], uint32(w)) }, nil
		}
	}
	return nil, &usageError{
		errors.New(`--change: needs "remove NAME", "add HOST:PORT", "weight NAME N" or "drain NAME"`)}
}
