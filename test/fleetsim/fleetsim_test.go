package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSmallFleet simulates a small fleet: nodes agree, changes move what they must, and etcd gets each key once.
func TestSmallFleet(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "figures.json")
	var stdout, stderr bytes.Buffer
	args := []string{"-nodes", "5", "-backends", "100", "-sessions", "10000", "-few", "20", "-rest", "1s", "-json", file}
	if code := run(t.Context(), args, &stdout, &stderr); code != exitDone {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r result
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Choices) != 5 {
		t.Errorf("choices of %d algorithms", len(r.Choices))
	}
	for _, c := range r.Choices {
		switch {
		case c.Algorithm == "random":
		case c.Bound > 0:
			if c.Max > 1.25*1.02 || c.Bounded == 0 { // each node rounds its own bound up
				t.Errorf("%s with a bound: %+v", c.Algorithm, c)
			}
		case c.NodeLeaves.Moved != 0 || c.NodeLeaves.Sessions < r.Sessions/2:
			t.Errorf("%s: a node that leaves moves %s", c.Algorithm, c.NodeLeaves)
		case c.BackendLeaves.Had == 0 || c.BackendComes.Had == 0 || c.Algorithm != "maglev" && c.BackendLeaves.Others != 0:
			t.Errorf("%s: %+v, %+v", c.Algorithm, c.BackendLeaves, c.BackendComes)
		}
	}
	// each node says its state, what it chooses and that it takes part in checks, and has its name
	if want := 100*2 + 5*3; r.Etcd.Keys != want || r.Etcd.Watches != 5 || len(r.Etcd.Phases) != 6 {
		t.Errorf("etcd: %+v, want %d keys and a watch for each node", r.Etcd, want)
	}
	for _, p := range r.Etcd.Phases {
		if p.Name == "a backend fails" && (p.Puts < 2 || p.Puts > 3) { // a node may just say how it is
			t.Errorf("of a backend that fails, etcd gets %v keys", p.Puts)
		}
	}
	if !strings.Contains(stdout.String(), "maglev, hash_balance 1.25") {
		t.Errorf("it prints\n%s", stdout.String())
	}
}

// TestOptions: nonsense is refused before anything begins.
func TestOptions(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"more"}, {"-nodes", "2"}, {"-backends", "9"}, {"-few", "20000"}, {"-sessions", "9"}, {"-judges", "0"},
		{"-rest", "0s"}, {"-only", "x"}, {"-unknown"},
	} {
		var stderr bytes.Buffer
		if code := run(t.Context(), args, &stderr, &stderr); code != exitUsage || stderr.Len() == 0 {
			t.Errorf("%q: exit code %d, %q", args, code, stderr.String())
		}
	}
}
