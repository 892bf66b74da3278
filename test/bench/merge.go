package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// A runReport describes one run of the bench: a report may have the scenarios of several.
type runReport struct {
	Started   time.Time         `json:"started"`
	Finished  time.Time         `json:"finished"`
	Flags     map[string]string `json:"flags"`
	Scenarios []string          `json:"scenarios"` // those whose measurements are this run's
}

// readReport reads a report that writeJSON has written.
func readReport(file string) (report, error) {
	var r report
	b, err := os.ReadFile(file)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w (remove it, or name another file)", file, err)
	}
	return r, nil
}

// earlierReport returns what file has of an earlier run with which this one can be merged; nil if there is none. A
// report of other programs or of another machine is kept under another name, which progress is told.
func earlierReport(file string, now report, progress io.Writer) (*report, error) {
	earlier, err := readReport(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	differs := now.differs(earlier)
	if differs == "" {
		return &earlier, nil
	}
	old := file + ".old"
	fmt.Fprintf(progress, "%s is of another %s: it is now %s\n", file, differs, old)
	return nil, os.Rename(file, old)
}

// differs says what the two reports do not have in common, so that their figures cannot stand in one table; "" for
// nothing. Programs that only one of them has do not count.
func (r report) differs(o report) string {
	if r.Machine != o.Machine {
		return "machine or kernel"
	}
	for _, c := range r.Contenders {
		for _, d := range o.Contenders {
			if c.Name == d.Name && (c.Version != d.Version || c.Digest != d.Digest) {
				return c.Name
			}
		}
	}
	for name, version := range r.Tools {
		if v, ok := o.Tools[name]; ok && v != version {
			return name
		}
	}
	return ""
}

// merge returns the report with the scenarios of an earlier one that it does not have.
func (r report) merge(earlier report) report {
	kept := maps.Clone(earlier.Scenarios)
	maps.DeleteFunc(kept, func(name, _ string) bool { _, again := r.Scenarios[name]; return again })
	all := maps.Clone(kept)
	maps.Copy(all, r.Scenarios)

	var runs []runReport
	for _, run := range earlier.Runs {
		run.Scenarios = slices.DeleteFunc(slices.Clone(run.Scenarios), func(name string) bool {
			_, ok := kept[name]
			return !ok
		})
		if len(run.Scenarios) > 0 {
			runs = append(runs, run)
		}
	}
	var rounds []measurement
	for _, m := range earlier.Rounds {
		if _, ok := kept[m.Scenario]; ok {
			rounds = append(rounds, m)
		}
	}
	var summaries []summary
	for _, s := range earlier.Summary {
		if _, ok := kept[s.Scenario]; ok {
			summaries = append(summaries, s)
		}
	}
	out := r
	out.Scenarios = all
	out.Runs = append(runs, r.Runs...)
	out.Rounds = append(rounds, r.Rounds...)
	out.Summary = inOrder(append(summaries, r.Summary...))
	out.Contenders = mergeContenders(earlier.Contenders, r.Contenders)
	out.Tools = maps.Clone(earlier.Tools)
	if out.Tools == nil {
		out.Tools = map[string]string{}
	}
	maps.Copy(out.Tools, r.Tools)
	out.conclude()
	return out
}

// inOrder sorts summaries by scenario; those of one keep their order.
func inOrder(summaries []summary) []summary {
	place := map[string]int{}
	for i, s := range scenarios() {
		place[s.name] = i
	}
	slices.SortStableFunc(summaries, func(a, b summary) int { return place[a.Scenario] - place[b.Scenario] })
	return summaries
}

// mergeContenders returns the contenders of both, with the configurations of both: the later one's count.
func mergeContenders(earlier, now []contenderReport) []contenderReport {
	var out []contenderReport
	for _, name := range contenderNames() {
		var found *contenderReport
		for _, c := range slices.Concat(earlier, now) {
			switch {
			case c.Name != name:
			case found == nil:
				found = &c
			default:
				found.Path = c.Path
				if c.Config != "" {
					found.Config = c.Config
				}
				found.UDPConfigs = joined(found.UDPConfigs, c.UDPConfigs)
				found.TLSConfigs = joined(found.TLSConfigs, c.TLSConfigs)
				found.OwnConfigs = joined(found.OwnConfigs, c.OwnConfigs)
			}
		}
		if found != nil {
			out = append(out, *found)
		}
	}
	return out
}

// joined returns the entries of both maps; those of b count.
func joined[K comparable](a, b map[K]string) map[K]string {
	if a == nil {
		return b
	}
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// digest returns the SHA-256 of a file, so that two builds of one version are told apart.
func digest(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// commands returns the command of each run, without the names of files.
func (r report) commands() []string {
	var out []string
	for _, run := range r.Runs {
		text := "go run ./test/bench"
		for _, name := range []string{"contenders", "only", "rounds", "duration", "warmup", "workers", "tls-aes128"} {
			if v := run.Flags[name]; v != "" && v != "false" {
				text += " -" + name + " " + strings.ReplaceAll(v, " ", "")
				if v == "true" {
					text = strings.TrimSuffix(text, " true")
				}
			}
		}
		out = append(out, text)
	}
	return out
}
