package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/limeload/limeload-l4/test/bench/chart"
)

// A plotter draws what a report has measured, and writes its tables into two pages.
type plotter struct {
	json, page, readme, plots string // the last one is a folder
}

// parsePlot reads the arguments of `bench plot`. It prints mistakes to stderr.
func parsePlot(args []string, stderr io.Writer) (plotter, error) {
	var p plotter
	fs := flag.NewFlagSet("bench plot", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&p.json, "json", "build/bench.json", "the `file` that a run has written with -json")
	fs.StringVar(&p.page, "page", "docs/performance.md",
		"the `file` whose tables are written anew, between its markers")
	fs.StringVar(&p.readme, "readme", "README.md", "the `file` that has the most important ones, between markers, too")
	fs.StringVar(&p.plots, "plots", "docs/plots", "the `folder` of the plots")
	err := fs.Parse(args)
	if err == nil && fs.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
		fmt.Fprintf(stderr, "bench plot: %v\n", err)
	}
	return p, err
}

// run writes the plots and the page, and says what it has written.
func (p plotter) run(stdout io.Writer) error {
	r, err := readReport(p.json)
	if err != nil {
		return err
	}
	r.conclude() // the bars may have changed since
	plots, err := relative(filepath.Dir(p.page), p.plots)
	if err != nil {
		return err
	}
	page, pageErr := filled(p.page, r.sections(filepath.ToSlash(plots)))
	readme, readmeErr := filled(p.readme, map[string]string{"summary": r.summarySection()})
	if err := errors.Join(pageErr, readmeErr); err != nil {
		return err
	}
	files := r.drawings()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file := filepath.Join(p.plots, name)
		if err := os.WriteFile(file, files[name], 0o644); err != nil {
			return err
		}
		fmt.Fprintln(stdout, file)
	}
	if err := errors.Join(os.WriteFile(p.page, page, 0o644), os.WriteFile(p.readme, readme, 0o644)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s\n%s\n", p.page, p.readme)
	return err
}

// filled returns a file with other texts between the markers of these sections.
func filled(file string, sections map[string]string) ([]byte, error) {
	page, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	text := string(page)
	var errs []error
	for name, section := range sections {
		var err error
		text, err = fill(text, name, section)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return []byte(text), nil
}

// relative returns the path of a folder as seen from another one.
func relative(from, to string) (string, error) {
	from, fromErr := filepath.Abs(from)
	to, toErr := filepath.Abs(to)
	if err := errors.Join(fromErr, toErr); err != nil {
		return "", err
	}
	return filepath.Rel(from, to)
}

// fill replaces what a page has between the markers of a section.
func fill(page, section, text string) (string, error) {
	begin, end := "<!-- bench: "+section+" -->\n", "<!-- bench: end -->\n"
	before, rest, found := strings.Cut(page, begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return page, fmt.Errorf("no lines %q and, below it, %q", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return before + begin + text + end + after, nil
}

// sections returns what the page has of the report, by the names of its sections. A section without measurements is
// one sentence.
func (r report) sections(plots string) map[string]string {
	return map[string]string{
		"bars":           r.barSection(plots),
		"growth":         r.growthSection(plots),
		"features":       orNothing(r.featureSheet()),
		"measured":       r.measuredSection(),
		"configurations": r.configurationSection(),
	}
}

const nothingMeasured = "Not measured yet.\n"

func orNothing(s sheet) string {
	if len(s.rows) == 0 {
		return nothingMeasured
	}
	return s.markdown()
}

func (r report) barSection(plots string) string {
	if len(r.Bars) == 0 {
		return nothingMeasured
	}
	met := 0
	for _, b := range r.Bars {
		if b.Met {
			met++
		}
	}
	return fmt.Sprintf("%d of %d bars are met.\n\n![Ratios and bars](%s/%s)\n\n%s", met, len(r.Bars), plots, barsFile,
		barSheet(r.Bars).markdown())
}

// summaryScenarios are the bars whose figures the README has.
var summaryScenarios = []string{
	"request64", "redis-get", "pgbench-select", "connect", "bulk1-in", "bulk1-out", "bulk8-in", "bulk8-out", "idle",
	"tls-handshake-ecdsa", "tls-bulk4-out", "tls-request64", "dns-single", "dns-cached", "trains-in", "trains-out",
}

func (r report) summarySection() string {
	return orNothing(valueSheet(slices.DeleteFunc(slices.Clone(r.Bars), func(b barResult) bool {
		return !slices.Contains(summaryScenarios, b.Scenario)
	})))
}

func (r report) growthSection(plots string) string {
	if len(r.Curves) == 0 {
		return nothingMeasured
	}
	var b strings.Builder
	for i, c := range r.Curves {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "### %s\n![CPU time](%s/%s)\n\n%s", c.Title, plots, c.file(), c.sheet().markdown())
	}
	return b.String()
}

// measuredSection says with what the figures were measured.
func (r report) measuredSection() string {
	if len(r.Runs) == 0 {
		return nothingMeasured
	}
	var b strings.Builder
	m := r.Machine
	tls := "without kernel TLS"
	if m.kernelTLS() {
		tls = "with kernel TLS"
	}
	fmt.Fprintf(&b, "- %d CPUs (%s), Linux %s, %s, TCP congestion control %s, at most %d open files for each process\n",
		m.CPUs, m.CPU, m.Kernel, tls, m.Congestion, m.Descriptors)
	for _, c := range r.Contenders {
		if c.Version != "" {
			fmt.Fprintf(&b, "- %s: %s\n", contenderTitle(c.Name), c.Version)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Tools)) {
		fmt.Fprintf(&b, "- %s: %s\n", name, r.Tools[name])
	}
	fmt.Fprintf(&b, "- clients and backends: programs of %s, unless a row names others\n\n```sh\n", m.Go)
	for _, c := range r.commands() {
		fmt.Fprintln(&b, c)
	}
	fmt.Fprint(&b, "```\n")
	if n := r.disturbed(); n > 0 {
		fmt.Fprintf(&b, "\nDuring %d of %d measurements something else on the machine used more than a twentieth of a "+
			"CPU.\n", n, len(r.Rounds))
	}
	if n := len(r.failures()); n > 0 {
		fmt.Fprintf(&b, "\n%d of %d measurements failed, and are in no figure:\n\n", n, len(r.Rounds))
		for _, f := range r.failures() {
			first, _, _ := strings.Cut(f.Error, "\n")
			fmt.Fprintf(&b, "- round %d, %s, %s: %s\n", f.Round, f.Scenario, contenderTitle(f.Contender), first)
		}
	}
	return b.String()
}

// benchFolder finds the folders of a run in configurations.
var benchFolder = regexp.MustCompile(`[^\s"']*limeload-bench-\d+(/[\w-]+-\d+)?/`)

// configurationSection has the configurations of all contenders, once for each kind of traffic.
func (r report) configurationSection() string {
	var b strings.Builder
	for _, c := range r.Contenders {
		add := func(title, text string) {
			text = strings.TrimSpace(benchFolder.ReplaceAllString(text, "DIR/"))
			fmt.Fprintf(&b, "<details><summary>%s: %s</summary>\n\n```text\n%s\n```\n\n</details>\n\n",
				contenderTitle(c.Name), title, text)
		}
		if c.Config != "" {
			add("TCP", c.Config)
		}
		for _, all := range []map[traffic]string{c.TLSConfigs, c.UDPConfigs} {
			for _, t := range slices.Sorted(maps.Keys(all)) {
				add(string(t), all[t])
			}
		}
		if text := c.OwnConfigs["refused"]; text != "" {
			add("refused", text)
		}
	}
	return cmp.Or(b.String(), nothingMeasured)
}

// barsFile is the plot of the bars.
const barsFile = "bench-bars.svg"

func (c curveResult) file() string { return "bench-" + c.Name + ".svg" }

// drawings returns the plots by the names of their files.
func (r report) drawings() map[string][]byte {
	files := map[string][]byte{}
	if len(r.Bars) > 0 {
		files[barsFile] = r.barRows().SVG()
	}
	for _, c := range r.Curves {
		files[c.file()] = c.plot().SVG()
	}
	return files
}

func (r report) barRows() chart.Rows {
	rows := chart.Rows{
		Title: "limeload-l4 and its bars", Axis: "times the better of the others; the lines are the bars", End: 1.5,
	}
	for _, b := range r.Bars {
		if b.Ratio == nil {
			continue
		}
		rows.Rows = append(rows.Rows, chart.Row{
			Label: b.Work, Note: formatRatio(b.Ratio) + ", " + b.verdict(), Value: *b.Ratio, Mark: b.AtMost,
			Good: b.Met,
		})
	}
	return rows
}

func (c curveResult) plot() chart.Plot {
	p := chart.Plot{
		Title: c.Title, X: c.Axis, Y: "CPU time per " + c.Unit, LogY: c.Unit == "byte", FormatX: formatCount,
		FormatY: func(v float64) string {
			if v == 0 {
				return "0"
			}
			return formatCost(v)
		},
	}
	for _, l := range c.Lines {
		line := chart.Line{Name: contenderTitle(l.Contender)}
		for _, at := range l.Points {
			line.Points = append(line.Points, chart.Point{X: at.X, Y: at.Cost})
		}
		p.Lines = append(p.Lines, line)
	}
	return p
}
