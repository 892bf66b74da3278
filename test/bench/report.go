package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A report has the results and the settings of a run, or of several that were merged.
type report struct {
	Runs       []runReport       `json:"runs"` // the earliest first
	Machine    machine           `json:"machine"`
	Contenders []contenderReport `json:"contenders"`
	Scenarios  map[string]string `json:"scenarios"`
	Backends   int               `json:"backends"`        // ports of one process, round robin
	Tools      map[string]string `json:"tools,omitempty"` // versions of the name server and of dnsperf
	Bars       []barResult       `json:"bars,omitempty"`
	Curves     []curveResult     `json:"curves,omitempty"`
	Summary    []summary         `json:"summary"`
	Rounds     []measurement     `json:"rounds"`
}

// A machine describes the machine of a run.
type machine struct {
	CPU         string `json:"cpu"`
	CPUs        int    `json:"cpus"`
	Kernel      string `json:"kernel"`
	Congestion  string `json:"tcp_congestion_control"`
	ULP         string `json:"tcp_available_ulp"` // "tls" among them: the kernel has TLS
	Go          string `json:"go"`
	Descriptors int    `json:"descriptors"` // RLIMIT_NOFILE of every process
}

// A contenderReport describes a contender and its configuration.
type contenderReport struct {
	Name    string `json:"name"`
	Path    string `json:"path,omitempty"`
	Version string `json:"version,omitempty"`
	Digest  string `json:"sha256,omitempty"` // of the program
	Config  string `json:"config,omitempty"` // as of its first start; the port differs from start to start

	UDPConfigs map[traffic]string `json:"udp_configs,omitempty"` // the same for each traffic by UDP
	TLSConfigs map[traffic]string `json:"tls_configs,omitempty"` // and for each with a listener that terminates TLS

	OwnConfigs map[string]string `json:"own_configs,omitempty"` // and for each scenario with settings of its own
}

func newReport(b *bench, started time.Time, all []measurement) report {
	run := runReport{Started: started, Finished: time.Now(), Flags: b.opts.flags}
	for _, s := range b.opts.scenarios {
		run.Scenarios = append(run.Scenarios, s.name)
	}
	r := report{
		Runs:      []runReport{run},
		Machine:   thisMachine(b.descriptors),
		Scenarios: map[string]string{},
		Backends:  backendCount,
		Tools:     map[string]string{},
		Summary:   summarize(b.opts.scenarios, b.contenders, all),
		Rounds:    all,
	}
	for _, s := range b.opts.scenarios {
		r.Scenarios[s.name] = s.use
	}
	for _, c := range b.contenders {
		p := b.programs[c.name]
		cr := contenderReport{Name: c.name, Path: p.path, Version: p.version, Digest: p.digest,
			UDPConfigs: map[traffic]string{}, TLSConfigs: map[traffic]string{}, OwnConfigs: b.ownConfigs[c.name]}
		for t, config := range b.configs[c.name] {
			switch {
			case t == trafficTCP:
				cr.Config = config
			case t.udp():
				cr.UDPConfigs[t] = config
			default:
				cr.TLSConfigs[t] = config
			}
		}
		r.Contenders = append(r.Contenders, cr)
	}
	for name, p := range b.tools {
		r.Tools[name] = p.version
	}
	r.conclude()
	return r
}

// conclude holds the measurements against the bars, and draws the curves' points from them.
func (r *report) conclude() {
	r.Bars, r.Curves = judge(r.Summary, r.Rounds, r.Machine), grow(r.Rounds)
}

func thisMachine(descriptors int) machine {
	return machine{
		CPU:         cpuModel(),
		CPUs:        runtime.NumCPU(),
		Kernel:      readLine("/proc/sys/kernel/osrelease"),
		Congestion:  congestionControl(),
		ULP:         readLine("/proc/sys/net/ipv4/tcp_available_ulp"),
		Go:          runtime.Version(),
		Descriptors: descriptors,
	}
}

// readLine returns the content of a file, or "unknown", for the description of the run.
func readLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// congestionControl is the system's algorithm for TCP.
func congestionControl() string { return readLine("/proc/sys/net/ipv4/tcp_congestion_control") }

func cpuModel() string {
	for line := range strings.Lines(readLine("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// failures returns the measurements that failed.
func (r report) failures() []measurement {
	var out []measurement
	for _, m := range r.Rounds {
		if m.Error != "" {
			out = append(out, m)
		}
	}
	return out
}

// writeJSON writes the whole report to a file.
func (r report) writeJSON(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// writeTables writes the report for people.
func (r report) writeTables(w io.Writer) error {
	var b strings.Builder
	r.head(&b)
	r.workTable(&b)
	r.idleTable(&b)
	for _, t := range []table{tableFlood, tableRate, tableStreams, tableCost} {
		r.limitTable(&b, t)
	}
	barSheet(r.Bars).text(&b)
	for _, c := range r.Curves {
		fmt.Fprintf(&b, "%s: CPU time per %s\n", c.Title, c.Unit)
		c.sheet().text(&b)
	}
	r.remarks(&b)
	for _, m := range r.Rounds {
		if m.CPUDoubt {
			fmt.Fprintf(&b, "doubtful: round %d, %s, %s: %.3fs of CPU by the clocks and %.2fs by /proc/PID/stat\n",
				m.Round, m.Scenario, m.Contender, m.CPU, m.CPUByStat)
		}
	}
	if n := r.disturbed(); n > 0 {
		fmt.Fprintf(&b, "disturbed: during %d of %d measurements something else on this machine used CPU time\n", n,
			len(r.Rounds))
	}
	for _, m := range r.failures() {
		fmt.Fprintf(&b, "failed: round %d, %s, %s: %s\n", m.Round, m.Scenario, m.Contender, m.Error)
	}
	for line := range strings.Lines(b.String()) { // the tables pad with spaces
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// remarks says what TLS connections negotiated, how fast a flood was, and which limits were not reached: no table has
// room for it.
func (r report) remarks(b *strings.Builder) {
	scenarios := map[string][]string{} // by contender and what it negotiated
	for _, s := range r.Summary {
		for _, n := range s.TLS {
			key := s.Contender + ": " + n
			scenarios[key] = append(scenarios[key], s.Scenario)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(scenarios)) {
		fmt.Fprintf(b, "negotiated with %s (%s)\n", key, strings.Join(scenarios[key], ", "))
	}
	for _, s := range r.Summary {
		if s.Handshakes > 0 {
			fmt.Fprintf(b, "%s, %s: the flood did %.0f handshakes/s\n", s.Scenario, s.Contender, s.Handshakes)
		}
		if s.Limits.short() {
			fmt.Fprintf(b, "%s, %s: only %.0f/s came, since this machine gives no more: they say nothing about the limit\n",
				s.Scenario, s.Contender, s.Limits.Offered)
		}
	}
}

// disturbed returns the number of disturbed measurements.
func (r report) disturbed() int {
	n := 0
	for _, m := range r.Rounds {
		if m.disturbed() {
			n++
		}
	}
	return n
}

func (r report) head(b *strings.Builder) {
	m := r.Machine
	var flags map[string]string // of the latest run
	if n := len(r.Runs); n > 0 {
		flags = r.Runs[n-1].Flags
	}
	fmt.Fprintf(b, "%s, %d CPUs, Linux %s, %s, %s\n", m.CPU, m.CPUs, m.Kernel, m.Congestion, m.Go)
	fmt.Fprintf(b, "rounds %s, duration %s, warmup %s, workers %s, backends %d, paced rate %s/s, dns-paced rate %s/s, "+
		"pgbench rate %s/s, ping rate %s/s, flood rate %s/s, refused rate %s/s, idle sessions %s, "+
		"TLS with AES-128 alone %s\n",
		flags["rounds"], flags["duration"], flags["warmup"], flags["workers"], r.Backends, flags["rate"],
		flags["dns-rate"], flags["pgbench-rate"], flags["ping-rate"],
		flags["flood-rate"], flags["refused-rate"], flags["idle"], flags["tls-aes128"])
	for _, c := range r.Contenders {
		if c.Version != "" {
			fmt.Fprintf(b, "%s: %s\n", c.Name, c.Version)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Tools)) {
		fmt.Fprintf(b, "%s: %s\n", name, r.Tools[name])
	}
	fmt.Fprint(b, "Figures are medians over the rounds; x is the median of the ratios to the best of HAProxy, nginx and dnsdist in the same round.\n\n")
}

// workTable writes the table of all scenarios except idle.
func (r report) workTable(b *strings.Builder) {
	tw := newTable(b, "scenario", "contender", "rate/s", "x", "p50", "p99", "x", "CPU/unit", "x", "unit", "rounds")
	previous := ""
	for _, s := range r.Summary {
		if s.Idle != nil || s.Table != tableWork {
			continue
		}
		if previous != "" && previous != s.Scenario {
			row(tw, make([]string, 11)...)
		}
		previous = s.Scenario
		row(tw, s.Scenario, s.Contender, formatRate(s.Rate, s.Unit), formatRatio(s.RateRatio),
			formatSeconds(s.P50), formatSeconds(s.P99), formatRatio(s.P99Ratio),
			formatSeconds(s.CPUPerUnit), formatRatio(s.CPURatio), s.Unit, s.outcome())
	}
	if previous != "" {
		tw.Flush() // into memory
		fmt.Fprintln(b)
	}
}

// idleTable writes the table of the idle scenario. The memory is the balancer's own (RssAnon), without the kernel's.
func (r report) idleTable(b *strings.Builder) {
	tw := newTable(b, "scenario", "contender", "memory/session", "x", "descriptors/session", "memory of all",
		"CPU at rest", "opened/s", "rounds")
	any := false
	for _, s := range r.Summary {
		if s.Idle == nil {
			continue
		}
		any = true
		row(tw, s.Scenario, s.Contender, formatBytes(s.Idle.Memory), formatRatio(s.Idle.MemoryRatio),
			fmt.Sprintf("%.2f", s.Idle.Descriptors), formatBytes(s.Idle.MemoryAfter), fmt.Sprintf("%.2f%%",
				100*s.Idle.CPUShare),
			formatRate(s.Rate, s.Unit), s.outcome())
	}
	if any {
		tw.Flush() // into memory
		fmt.Fprintln(b)
	}
}

// outcome says in how many rounds the contender did its work, and how many requests it lost in all of them.
func (s summary) outcome() string {
	text := fmt.Sprint(s.Rounds)
	if s.Failed > 0 {
		text += fmt.Sprintf(", %d failed", s.Failed)
	}
	if s.Lost > 0 {
		text += fmt.Sprintf(", %.0f lost", s.Lost)
	}
	return text
}

func newTable(w io.Writer, titles ...string) *tabwriter.Writer {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row(tw, titles...)
	return tw
}

// row writes one row. The first two cells are names and left-aligned, the others right-aligned.
func row(tw *tabwriter.Writer, cells ...string) {
	fmt.Fprintf(tw, "%-*s\t%-11s\t%s\t\n", scenarioWidth, cells[0], cells[1], strings.Join(cells[2:], "\t"))
}
