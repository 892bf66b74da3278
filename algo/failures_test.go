package algo

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestMaglevFailures computes the table of docs/fleet.md: what share of the table's entries change although their
// member stays, when k of 1,000 members fail at once, in the two sizes of the table that the paper compares (Eisenbud et
// al.: Maglev, NSDI 2016, 5.3), and when one of ten fails.
func TestMaglevFailures(t *testing.T) {
	longTest(t)
	t.Parallel()
	page, err := os.ReadFile("../docs/fleet.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ members, failures int }{{10, 1}, {1000, 1}, {1000, 10}, {1000, 50}, {1000, 100}} {
		row := fmt.Sprintf("| %s | %d |", grouped(tt.members), tt.failures)
		for _, size := range []int{65537, 655373} {
			row += fmt.Sprintf(" %.2f %% |", 100*changedEntries(t, tt.members, tt.failures, size))
		}
		t.Log(row)
		if !strings.Contains(string(page), "\n"+row+"\n") {
			t.Errorf("docs/fleet.md does not have\n%s", row)
		}
	}
}

// grouped writes a number below a million as documents do.
func grouped(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

// changedEntries returns the share of all entries that change although their member stays, when random members fail.
func changedEntries(t *testing.T, members, failures, size int) float64 {
	t.Helper()
	all := named(members, 1)
	table := func(members []Member) *maglev {
		m := build(t, "maglev", members, Options{}).(*maglev)
		m.fill(size)
		return m
	}
	before := table(all)
	random := rand.New(rand.NewPCG(1, uint64(failures)))
	failed := map[string]bool{}
	for _, i := range random.Perm(members)[:failures] {
		failed[all[i].ID] = true
	}
	after := table(slices.DeleteFunc(slices.Clone(all), func(m Member) bool { return failed[m.ID] }))
	changed := 0
	for slot, rank := range before.table {
		was := before.members[rank].id
		if !failed[was] && was != after.members[after.table[slot]].id {
			changed++
		}
	}
	return float64(changed) / float64(size)
}
