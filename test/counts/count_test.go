package counts

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// countsFile has the committed counts.
const countsFile = "testdata/counts.json"

// howToUpdate is the command that writes the counts.
const howToUpdate = "go test -count=1 ./test/counts -update"

// How much work is done. Every fifth connect that comes alone makes limeload-l4 look for another one in vain, so the
// numbers are multiples of five.
const (
	warmUpUnits    = 25
	tracedUnits    = 100
	allocatedUnits = 1000
)

// Tolerances of a count per unit.
const (
	callTolerance   = 0.1  // ten calls in all may be for something that happened meanwhile, such as a timer
	waitTolerance   = 0.75 // two events that mostly come by themselves may come together
	mallocTolerance = 0.25 // the runtime, and the profile that tells the number, allocate too
	mallocShare     = 0.02 // of the allocations of a handshake
	bulkShare       = 2    // of a count of bulk: the pieces are as large as the sender has them ready; copies take 30 calls
)

// A cost is what one unit of work costs a program.
type cost struct {
	Calls map[string]float64 `json:"calls"` // by name

	// Mallocs is the number of objects on the heap; only limeload-l4 tells it.
	Mallocs float64 `json:"mallocs,omitempty"`
}

// total returns the number of calls.
func (c cost) total() float64 {
	var n float64
	for _, calls := range c.Calls {
		n += calls
	}
	return n
}

// A book has the costs of all work by the name of the work and the program.
type book struct {
	Versions map[string]string          `json:"versions"` // of the other programs
	Works    map[string]map[string]cost `json:"works"`
}

func readBook(t testing.TB) book {
	t.Helper()
	text, err := os.ReadFile(countsFile)
	check(t, err)
	var b book
	check(t, json.Unmarshal(text, &b))
	return b
}

func (b book) write(t testing.TB) {
	t.Helper()
	text, err := json.MarshalIndent(b, "", "\t")
	check(t, err)
	check(t, os.WriteFile(countsFile, append(text, '\n'), 0o644))
}

// A difference is a count that is not the committed one.
type difference struct {
	what        string // the name of a call, or "mallocs"
	before, now float64
}

func (d difference) more() bool { return d.now > d.before }

func (d difference) String() string {
	return fmt.Sprintf("%s: %.2f for each, and %.2f in %s", d.what, d.now, d.before, countsFile)
}

// compare returns the counts in which two costs differ by more than they may.
func compare(before, now cost, share float64) []difference {
	names := slices.Collect(maps.Keys(before.Calls))
	for name := range now.Calls {
		if _, has := before.Calls[name]; !has {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var all []difference
	add := func(what string, before, now, tolerance float64) {
		if math.Abs(now-before) > tolerance+share*before+1e-9 {
			all = append(all, difference{what, before, now})
		}
	}
	for _, name := range names {
		tolerance := callTolerance
		if slices.Contains(waits, name) {
			tolerance = waitTolerance
		}
		add(name, before.Calls[name], now.Calls[name], tolerance)
	}
	add("mallocs", before.Mallocs, now.Mallocs, mallocTolerance+mallocShare*before.Mallocs)
	return all
}

func TestCompare(t *testing.T) {
	t.Parallel()
	costs := func(recvfrom, sendto, waits, mallocs float64) cost {
		return cost{map[string]float64{"recvfrom": recvfrom, "sendto": sendto, "epoll_pwait": waits}, mallocs}
	}
	before := costs(2, 2, 2, 1)
	another := costs(2, 2, 2, 1)
	another.Calls["close"] = 1
	gone := costs(2, 2, 2, 1)
	delete(gone.Calls, "sendto")
	for name, c := range map[string]struct {
		now      cost
		share    float64
		expected []difference
	}{
		"the same":       {costs(2.1, 1.9, 2.7, 1.2), 0, nil},
		"one more":       {costs(3, 2, 2, 1), 0, []difference{{"recvfrom", 2, 3}}},
		"one more wait":  {costs(2, 2, 3, 1), 0, []difference{{"epoll_pwait", 2, 3}}},
		"one less":       {costs(2, 1, 2, 1), 0, []difference{{"sendto", 2, 1}}},
		"another call":   {another, 0, []difference{{"close", 0, 1}}},
		"a call is gone": {gone, 0, []difference{{"sendto", 2, 0}}},
		"a malloc":       {costs(2, 2, 2, 2), 0, []difference{{"mallocs", 1, 2}}},
		"bulk":           {costs(2.9, 3.2, 2, 1), 0.5, []difference{{"sendto", 2, 3.2}}},
	} {
		if got := compare(before, c.now, c.share); !slices.Equal(got, c.expected) {
			t.Errorf("%s: compare finds %v, expected %v", name, got, c.expected)
		}
	}
}

// TestCounts compares what each work costs with the committed counts. More than those is an error. Less is a message:
// then the counts should be written again, by hand.
func TestCounts(t *testing.T) {
	files := writeCertificate(t)
	if *update {
		rewrite(t, files)
		return
	}
	b := readBook(t)
	for _, wk := range works() {
		t.Run(wk.name, func(t *testing.T) {
			before, known := b.Works[wk.name][limeload]
			if !known {
				t.Fatalf("%s has no counts of it: %s", countsFile, howToUpdate)
			}
			for _, d := range compare(before, wk.measure(t, limeload, files), wk.share) {
				if d.more() {
					t.Errorf("%v. If it must be so, say why in the commit, and: %s", d, howToUpdate)
				} else {
					t.Logf("%v. It costs less now: %s", d, howToUpdate)
				}
			}
		})
	}
	if len(b.Works) != len(works()) {
		t.Errorf("%s has %d kinds of work, expected %d: %s", countsFile, len(b.Works), len(works()), howToUpdate)
	}
}

// rewrite writes what all programs cost now. What -run leaves out keeps its counts.
func rewrite(t *testing.T, files certificate) {
	before := readBook(t)
	b := book{Versions: versions(t), Works: map[string]map[string]cost{}}
	for _, wk := range works() {
		costs := map[string]cost{}
		b.Works[wk.name] = costs
		t.Run(wk.name, func(t *testing.T) {
			for program := range wk.config {
				t.Run(program, func(t *testing.T) { costs[program] = wk.measure(t, program, files) })
			}
		})
		for program := range wk.config {
			if _, counted := costs[program]; !counted {
				costs[program] = before.Works[wk.name][program]
			}
		}
	}
	if !t.Failed() {
		b.write(t)
		b.writeTable(t)
	}
}

// measure counts what a unit of the work costs a program.
func (wk work) measure(t *testing.T, program string, files certificate) cost {
	t.Helper()
	start := time.Now()
	c := cost{Calls: wk.calls(t, program, files)}
	if program == limeload {
		c.Mallocs = wk.mallocs(t, files)
	}
	names := slices.Sorted(maps.Keys(c.Calls))
	for i, name := range names {
		names[i] += " " + perUnit(c.Calls[name])
	}
	t.Logf("%s: %s system calls (%s), %s mallocs; counted in %.1fs", program, perUnit(c.total()),
		strings.Join(names, ", "), perUnit(c.Mallocs), time.Since(start).Seconds())
	return c
}

// perUnit returns a count without needless zeros.
func perUnit(n float64) string { return strconv.FormatFloat(rounded(n), 'f', -1, 64) }

// rounded returns a count with one decimal: tolerances are no smaller.
func rounded(n float64) float64 { return math.Round(n*10) / 10 }

// calls traces a program, and returns its system calls for each unit of the work.
func (wk work) calls(t *testing.T, program string, files certificate) map[string]float64 {
	t.Helper()
	w := newWorld(t, files)
	p := startTraced(t, command(t, program, w.fill(wk.config[program])))
	w.awaitListening(p.Process)
	w.settle = func() { settle(t, p.PID()) }
	w.settle()
	unit := wk.open(w)
	for range warmUpUnits {
		unit()
	}
	start := p.length(t)
	for range tracedUnits {
		unit()
	}
	perUnit := map[string]float64{}
	for name, n := range p.since(t, start) {
		if each := rounded(float64(n) / tracedUnits); each > callTolerance {
			perUnit[name] = each
		}
	}
	return perUnit
}

// mallocs returns how many objects limeload-l4 allocates for each unit of the work. It is not traced meanwhile.
func (wk work) mallocs(t *testing.T, files certificate) float64 {
	t.Helper()
	w := newWorld(t, files)
	b := harness.StartBalancerWith(t, harness.BalancerOptions{
		Config: w.fill(wk.config[limeload]), Descriptors: descriptors, Measured: true, Killed: true,
	})
	unit := wk.open(w)
	for range warmUpUnits {
		unit()
	}
	objects(t, b)
	before := objects(t, b)
	own := objects(t, b) - before // what asking costs
	for range allocatedUnits {
		unit()
	}
	each := float64(objects(t, b)-before-2*own) / allocatedUnits
	return max(rounded(each), 0)
}

// objects returns how many objects the balancer has allocated so far.
func objects(t testing.TB, b *harness.Balancer) int {
	t.Helper()
	_, profile := b.API(t, "GET", "/debug/pprof/allocs?debug=1", nil)
	found := regexp.MustCompile(`(?m)^# Mallocs = (\d+)$`).FindSubmatch(profile)
	if found == nil {
		t.Fatal("the profile of allocations does not have their number")
	}
	n, err := strconv.Atoi(string(found[1]))
	check(t, err)
	return n
}
