package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// options are the flags of a run. The zero value is of no use, see parseOptions.
type options struct {
	limeload, haproxy, nginx string // programs
	before                   string // an earlier limeload; "" for none
	dnsdist, dnsperf, nsd    string // programs, of scenarios about DNS alone
	contenders               []string
	scenarios                []scenario
	rounds                   int
	duration, warmup         time.Duration
	rate, idle, workers      int
	dnsRate, pgbenchRate     int
	pingRate, floodRate      int
	refusedRate              int
	redisServer              string // programs, of scenarios about Redis and a fleet alone
	redisBenchmark, etcd     string
	aes128                   bool // of TLS, AES-128-GCM alone
	jsonFile                 string
	flags                    map[string]string // every flag as it was, for the report
}

// parseOptions reads the command line. It prints mistakes to stderr before it returns an error; flag.ErrHelp needs no
// further message.
func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	var contenders, only string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.limeload, "limeload", "build/limeload-l4", "the `program` to measure")
	fs.StringVar(&o.before, "before", "",
		"an earlier limeload-l4, a `program`: unless -contenders says otherwise, it alone is held against the one to measure")
	fs.StringVar(&o.haproxy, "haproxy", "haproxy", "the HAProxy `program`")
	fs.StringVar(&o.nginx, "nginx", "nginx", "the nginx `program`")
	fs.StringVar(&o.dnsdist, "dnsdist", "dnsdist", "the dnsdist `program`")
	fs.StringVar(&o.dnsperf, "dnsperf", "dnsperf", "the `program` that asks name servers")
	fs.StringVar(&o.nsd, "nsd", "nsd", "the `program` that is the name server")
	fs.StringVar(&o.redisServer, "redis-server", "redis-server", "the Redis `program`")
	fs.StringVar(&o.redisBenchmark, "redis-benchmark", "redis-benchmark", "the `program` that asks Redis")
	fs.StringVar(&o.etcd, "etcd", "etcd", "the `program` that a fleet shares its state in")
	fs.StringVar(&contenders, "contenders", strings.Join(peerNames(), ","), "`names` of who takes part")
	fs.StringVar(&only, "only", "", "`names` of scenarios, or what several begin with, or bars: all that have\n"+
		"a bar; those without a * when empty:\n"+scenarioUses())
	fs.IntVar(&o.rounds, "rounds", 5, "how often each contender does each scenario")
	fs.DurationVar(&o.duration, "duration", 3*time.Second, "of one measurement")
	fs.DurationVar(&o.warmup, "warmup", time.Second, "of the same work before each measurement")
	fs.IntVar(&o.rate, "rate", 10_000, "requests per second in paced; one that every contender sustains")
	fs.IntVar(&o.dnsRate, "dns-rate", 20_000, "questions per second in dns-paced; one that every contender sustains")
	fs.IntVar(&o.pgbenchRate, "pgbench-rate", 300,
		"transactions per second in pgbench-*; one that leaves half of the CPU time to others")
	fs.IntVar(&o.pingRate, "ping-rate", 1000, "datagrams or questions per second of the client in floodudp-*")
	fs.IntVar(&o.floodRate, "flood-rate", 0, "connects or datagrams per second of the flood in flood-* and floodudp-*;\n"+
		"0: as many as the machine gives")
	fs.IntVar(&o.refusedRate, "refused-rate", 3000,
		"connects per second in refused; a rate that every contender sustains")
	fs.IntVar(&o.idle, "idle", 9000, "sessions in idle and tls-idle")
	fs.BoolVar(&o.aes128, "tls-aes128", false, "HAProxy and nginx get AES-128-GCM as their only cipher, which is what\n"+
		"limeload-l4 chooses; otherwise each chooses by its defaults")
	fs.IntVar(&o.workers, "workers", 2, "loops, threads or worker processes of each balancer")
	fs.StringVar(&o.jsonFile, "json", "", "`file` for everything that was measured, as JSON. Scenarios that an\n"+
		"earlier run of the same programs has written into it, and that are not measured now, stay")
	if err := fs.Parse(args); err != nil {
		return options{}, err
	}
	chosen := false
	fs.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "contenders" })
	if o.before != "" && !chosen {
		contenders = "limeload-l4," + nameBefore
	}
	o.flags = map[string]string{}
	fs.VisitAll(func(f *flag.Flag) { o.flags[f.Name] = f.Value.String() })
	err := o.check(fs.Args(), contenders, only)
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
	}
	return o, err
}

func (o *options) check(rest []string, contenders, only string) error {
	if len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q", rest[0])
	}
	for _, f := range []struct {
		name string
		ok   bool
		want string
	}{
		{"rounds", o.rounds >= 1, "at least 1"},
		{"duration", o.duration >= 10*time.Millisecond, "at least 10ms"},
		{"warmup", o.warmup >= 10*time.Millisecond, "at least 10ms"},
		{"rate", o.rate >= 1 && o.rate <= 1_000_000, "1 to 1000000"},
		{"dns-rate", o.dnsRate >= 1 && o.dnsRate <= 1_000_000, "1 to 1000000"},
		{"pgbench-rate", o.pgbenchRate >= 1 && o.pgbenchRate <= 1_000_000, "1 to 1000000"},
		{"ping-rate", o.pingRate >= 1 && o.pingRate <= 50_000, "1 to 50000"},
		{"flood-rate", o.floodRate >= 0 && o.floodRate <= 1_000_000, "0 to 1000000"},
		{"refused-rate", o.refusedRate >= 1 && o.refusedRate <= 1_000_000, "1 to 1000000"},
		{"idle", o.idle >= 1, "at least 1"},
		{"workers", o.workers >= 1 && o.workers <= 256, "1 to 256"},
	} {
		if !f.ok {
			return fmt.Errorf("-%s %s: want %s", f.name, o.flags[f.name], f.want)
		}
	}
	var err error
	if o.contenders, err = selectContenders(contenders); err != nil {
		return err
	}
	if o.before == "" && slices.Contains(o.contenders, nameBefore) {
		return fmt.Errorf("-contenders: %s needs a program, -%s", nameBefore, nameBefore)
	}
	o.scenarios, err = selectScenarios(only)
	return err
}

// splitNames splits a comma-separated list; spaces and empty names do not count.
func splitNames(list string) []string {
	names := strings.Split(list, ",")
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == "" })
}

// peerNames returns all contenders except the earlier version.
func peerNames() []string {
	return slices.DeleteFunc(contenderNames(), func(n string) bool { return n == nameBefore })
}

func selectContenders(list string) ([]string, error) {
	names := splitNames(list)
	if len(names) == 0 {
		return nil, fmt.Errorf("-contenders names nobody; known are %s", strings.Join(contenderNames(), ", "))
	}
	for i, n := range names {
		if !slices.Contains(contenderNames(), n) {
			return nil, fmt.Errorf("-contenders: no contender %q; known are %s",
				n, strings.Join(contenderNames(), ", "))
		}
		if slices.Contains(names[:i], n) {
			return nil, fmt.Errorf("-contenders names %s twice", n)
		}
	}
	return names, nil
}

// selectScenarios returns the scenarios in the list, in their fixed order. A common prefix ("bulk") selects all
// scenarios with it, unless it is itself a name. Those that a chosen one is compared with, or paced by, are chosen too.
func selectScenarios(list string) ([]scenario, error) {
	all := scenarios()
	if list == "" {
		return slices.DeleteFunc(all, func(s scenario) bool { return s.named }), nil
	}
	chosen := map[string]bool{}
	for _, name := range splitNames(list) {
		if name == "bars" {
			for _, b := range bars() {
				chosen[b.scenario] = true
			}
			continue
		}
		if slices.ContainsFunc(all, func(s scenario) bool { return s.name == name }) {
			chosen[name] = true
			continue
		}
		found := false
		for _, s := range all {
			if strings.HasPrefix(s.name, name) {
				chosen[s.name], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("-only: no scenario %q; there are\n%s", name, scenarioUses())
		}
	}
	for _, s := range all {
		for _, needed := range []string{s.baseline, s.half} {
			if chosen[s.name] && needed != "" {
				chosen[needed] = true
			}
		}
	}
	all = slices.DeleteFunc(all, func(s scenario) bool { return !chosen[s.name] })
	if len(all) == 0 {
		return nil, fmt.Errorf("-only %q names no scenario; there are\n%s", list, scenarioUses())
	}
	return all, nil
}
