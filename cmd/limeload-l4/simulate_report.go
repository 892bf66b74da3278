package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/limeload/limeload-l4/algo"
)

// A report is the result of a simulation as it is printed. Its fields are those of the JSON output.
type report struct {
	Pool        string          `json:"pool"`
	Algorithm   string          `json:"algorithm"`
	Sessions    int             `json:"sessions"`
	NoBackend   int             `json:"no_backend"`
	Full        int             `json:"full"`
	TimedOut    int             `json:"queue_timeout"`
	Waited      int             `json:"waited"`
	MaxOverMean float64         `json:"max_over_mean"`
	Worst       float64         `json:"max_over_mean_worst"`
	Backends    []reportBackend `json:"backends"`
	Keys        *reportKeys     `json:"keys_moved,omitempty"`
}

type reportBackend struct {
	Name    string        `json:"name"`
	Tier    int           `json:"tier"`
	Phases  []reportPhase `json:"phases"` // before and after the change, if there is one
	MaxOpen int           `json:"open_max"`
}

// A reportPhase is what a backend got before or after a change.
type reportPhase struct {
	Weight   uint32  `json:"weight"`
	Sessions int     `json:"sessions"`
	Share    float64 `json:"share"`
	ByWeight float64 `json:"share_by_weight"`
}

type reportKeys struct {
	Clients int     `json:"clients"`
	Had     float64 `json:"had_to"`
	More    float64 `json:"more"`
}

func newReport(poolName string, kind algo.Kind, r *simulationResult) report {
	out := report{
		Pool: poolName, Algorithm: kind.Name, Sessions: r.sessions,
		NoBackend: r.noBackend, Full: r.full, TimedOut: r.timedOut, Waited: r.waited,
		MaxOverMean: r.excess / float64(max(r.samples, 1)), Worst: r.worst,
	}
	served, weights := make([]float64, r.phases), make([]float64, r.phases)
	for _, b := range r.backends {
		for i, p := range b.phases {
			served[i] += float64(p.sessions)
			weights[i] += float64(p.weight)
		}
	}
	for _, b := range r.backends {
		backend := reportBackend{Name: b.id, Tier: b.tier, MaxOpen: b.most}
		for i, p := range b.phases {
			backend.Phases = append(backend.Phases, reportPhase{
				Weight: p.weight, Sessions: p.sessions,
				Share: float64(p.sessions) / max(served[i], 1), ByWeight: float64(p.weight) / max(weights[i], 1),
			})
		}
		out.Backends = append(out.Backends, backend)
	}
	if n := r.keys.clients; n > 0 && kind.Hash {
		out.Keys = &reportKeys{Clients: n, Had: float64(r.keys.had) / float64(n),
			More: float64(r.keys.more) / float64(n)}
	}
	return out
}

// maxShown is how many backends the table shows, the busiest first.
const maxShown = 20

// printTable prints a single report in full, and one line for each of several.
func printTable(out io.Writer, reports []report) error {
	if len(reports) == 1 {
		return printOne(out, reports[0])
	}
	t := newTable(column{name: "algorithm"}, column{name: "maximum over mean", right: true},
		column{name: "at worst", right: true}, column{name: "refused", right: true, usual: "0"},
		column{name: "waited", right: true, usual: "0"}, column{name: "keys had to move", right: true},
		column{name: "moved besides", right: true})
	for _, r := range reports {
		had, more := "-", "-"
		if r.Keys != nil {
			had, more = percent(r.Keys.Had), percent(r.Keys.More)
		}
		t.add(r.Algorithm, fmt.Sprintf("%.2f", r.MaxOverMean), fmt.Sprintf("%.2f", r.Worst),
			strconv.Itoa(r.NoBackend+r.Full+r.TimedOut), strconv.Itoa(r.Waited), had, more)
	}
	return t.print(out, screenOf(out))
}

func printOne(out io.Writer, r report) error {
	fmt.Fprintf(out, "pool %s, %s, %d sessions\n\n", r.Pool, r.Algorithm, r.Sessions)
	shown := slices.Clone(r.Backends)
	if len(shown) > maxShown {
		slices.SortStableFunc(shown, func(a, b reportBackend) int { return b.MaxOpen - a.MaxOpen })
		shown = shown[:maxShown]
	}
	phase := func(weight string) []column {
		return []column{{name: weight, right: true}, {name: "sessions", right: true}, {name: "share", right: true},
			{name: "by weight", right: true}}
	}
	columns := append([]column{{name: "backend"}, {name: "tier", right: true, usual: "0"},
		{name: "at most open", right: true}}, phase("weight")...)
	if len(shown) > 0 && len(shown[0].Phases) > 1 {
		columns = append(columns, phase("then: weight")...)
	}
	t := newTable(columns...)
	for _, b := range shown {
		cells := []string{b.Name, strconv.Itoa(b.Tier), strconv.Itoa(b.MaxOpen)}
		for _, p := range b.Phases {
			cells = append(cells, strconv.Itoa(int(p.Weight)), strconv.Itoa(p.Sessions), percent(p.Share),
				percent(p.ByWeight))
		}
		t.add(cells...)
	}
	if err := t.print(out, screenOf(out)); err != nil {
		return err
	}
	if more := len(r.Backends) - len(shown); more > 0 {
		fmt.Fprintf(out, "and %d more\n", more)
	}
	fmt.Fprintf(out, "\nmaximum over mean of the open sessions, by weight: %.2f, at worst %.2f\n",
		r.MaxOverMean, r.Worst)
	for _, n := range []struct {
		what  string
		count int
	}{
		{"waited in the queue and were served", r.Waited}, {"refused, no backend is eligible", r.NoBackend},
		{"refused, all backends and the queue are full", r.Full}, {"left the queue after its timeout", r.TimedOut},
	} {
		if n.count > 0 {
			fmt.Fprintf(out, "%s: %d\n", n.what, n.count)
		}
	}
	if k := r.Keys; k != nil {
		fmt.Fprintf(out, "clients that belong to another backend after the change: %s had to move, %s moved besides\n",
			percent(k.Had), percent(k.More))
	}
	return nil
}

func percent(share float64) string { return fmt.Sprintf("%.2f%%", 100*share) }

func printJSON(out io.Writer, reports []report) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(reports)
}

// printCSV prints one line for each algorithm, for plots.
func printCSV(out io.Writer, reports []report) error {
	w := csv.NewWriter(out)
	rows := [][]string{{"algorithm", "max_over_mean", "max_over_mean_worst", "keys_had_to_move", "keys_moved_besides"}}
	for _, r := range reports {
		keys := reportKeys{}
		if r.Keys != nil {
			keys = *r.Keys
		}
		row := []string{r.Algorithm}
		for _, v := range []float64{r.MaxOverMean, r.Worst, keys.Had, keys.More} {
			row = append(row, strconv.FormatFloat(v, 'f', 4, 64))
		}
		rows = append(rows, row)
	}
	return w.WriteAll(rows)
}
