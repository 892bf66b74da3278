package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// measuredReport returns a report of one run of these scenarios, in which nginx and limeload-l4 take that long.
func measuredReport(t *testing.T, only string, cpu float64) report {
	t.Helper()
	ss, err := selectScenarios(only)
	if err != nil {
		t.Fatal(err)
	}
	r := report{
		Machine:   machine{CPU: "a CPU", CPUs: 2},
		Scenarios: map[string]string{}, Tools: map[string]string{"nsd": "NSD 4"},
		Contenders: []contenderReport{
			{Name: "limeload-l4", Version: "1.0", Digest: "aa", Config: "of " + only},
			{Name: "nginx", Version: "1.22", Digest: "bb"},
		},
	}
	run := runReport{Flags: map[string]string{
		"only": only, "rounds": "1", "tls-aes128": "true", "contenders": "limeload-l4, nginx",
	}}
	for _, s := range ss {
		run.Scenarios = append(run.Scenarios, s.name)
		r.Scenarios[s.name] = s.use
		ours := cpuRound(1, s.name, "limeload-l4", cpu)
		if s.table == tableCost {
			ours.Limits = &limitFigures{}
		}
		r.Rounds = append(r.Rounds, ours, cpuRound(1, s.name, "nginx", 2*cpu))
	}
	r.Runs = []runReport{run}
	r.Summary = summarize(ss, contenders(), r.Rounds)
	r.conclude()
	return r
}

func TestMerge(t *testing.T) {
	earlier := measuredReport(t, "connect,request64,dns-single", 1)
	now := measuredReport(t, "connect,growth-loops-1", 3)
	now.Tools = map[string]string{"etcd": "etcd 3"}
	got := now.merge(earlier)

	cost := map[string]float64{}
	var order []string
	for _, s := range got.Summary {
		if s.Contender == "limeload-l4" {
			cost[s.Scenario], order = s.CPUPerUnit, append(order, s.Scenario)
		}
	}
	want := map[string]float64{"request64": 1, "connect": 3, "dns-single": 1, "growth-loops-1": 3}
	if diff := cmp.Diff(want, cost); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !slices.Equal(order, []string{"request64", "connect", "dns-single", "growth-loops-1"}) {
		t.Errorf("the scenarios are in the order %q", order)
	}
	if n := len(got.Rounds); n != 8 {
		t.Errorf("%d measurements, want 8", n)
	}
	if n := len(got.Bars); n != 3 {
		t.Errorf("%d bars, want 3", n)
	}
	if len(got.Curves) != 1 || len(got.Scenarios) != 4 {
		t.Errorf("%d curves and %d scenarios, want 1 and 4", len(got.Curves), len(got.Scenarios))
	}
	if len(got.Runs) != 2 || !slices.Equal(got.Runs[0].Scenarios, []string{"request64", "dns-single"}) {
		t.Errorf("runs %+v", got.Runs)
	}
	if got.Tools["nsd"] == "" || got.Tools["etcd"] == "" || got.Contenders[0].Config != "of connect,growth-loops-1" {
		t.Errorf("tools %v, contenders %+v", got.Tools, got.Contenders)
	}
	if c := got.commands(); len(c) != 2 ||
		c[1] != "go run ./test/bench -contenders limeload-l4,nginx -only connect,growth-loops-1 -rounds 1 -tls-aes128" {
		t.Errorf("commands %q", c)
	}
	// all of the earlier run again: nothing is left of it
	again := measuredReport(t, "connect,request64,dns-single,growth-loops-1", 5).merge(got)
	if len(again.Runs) != 1 || len(again.Rounds) != 8 {
		t.Errorf("%d runs and %d measurements, want 1 and 8", len(again.Runs), len(again.Rounds))
	}
}

func TestEarlierReport(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bench.json")
	now := measuredReport(t, "connect", 1)
	var progress strings.Builder
	if r, err := earlierReport(file, now, &progress); r != nil || err != nil {
		t.Errorf("without a file: %v, %v", r, err)
	}
	for _, c := range []struct {
		what   string
		change func(*report)
	}{
		{"", func(*report) {}},
		{"", func(r *report) { r.Contenders = r.Contenders[:1] }},
		{"", func(r *report) { r.Tools = nil }},
		{"limeload-l4", func(r *report) { r.Contenders[0].Digest = "cc" }},
		{"nginx", func(r *report) { r.Contenders[1].Version = "1.24" }},
		{"nsd", func(r *report) { r.Tools["nsd"] = "NSD 5" }},
		{"machine or kernel", func(r *report) { r.Machine.Kernel = "7.0" }},
	} {
		earlier := measuredReport(t, "request64", 1)
		c.change(&earlier)
		if err := earlier.writeJSON(file); err != nil {
			t.Fatal(err)
		}
		progress.Reset()
		got, err := earlierReport(file, now, &progress)
		if err != nil {
			t.Fatal(err)
		}
		if (got == nil) != (c.what != "") || !strings.Contains(progress.String(), c.what) ||
			c.what == "" && progress.Len() > 0 {
			t.Errorf("another %q: report %v, said %q", c.what, got != nil, progress.String())
		}
		_, err = os.Stat(file)
		if moved := errors.Is(err, fs.ErrNotExist); moved != (c.what != "") {
			t.Errorf("another %q: the file has another name: %t", c.what, moved)
		}
	}
	if _, err := os.Stat(file + ".old"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := earlierReport(file, now, &progress); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a broken file: error %v", err)
	}
}

func TestDigest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := digest(file)
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-2, B.1
	if got != want || err != nil {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}
