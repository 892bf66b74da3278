package loop

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestAgeQueue holds that an AgeQueue has what was added, in that order, whatever was removed or put at the end
// meanwhile.
func TestAgeQueue(t *testing.T) {
	type waiting struct{ place AgePlace[waiting] }
	rapid.Check(t, func(t *rapid.T) {
		var q AgeQueue[waiting]
		things := make([]waiting, 5)
		var want []*waiting
		for range rapid.IntRange(0, 50).Draw(t, "steps") {
			x := &things[rapid.IntRange(0, len(things)-1).Draw(t, "which")]
			i := slices.Index(want, x)
			switch what := rapid.SampledFrom([]string{"add", "remove", "again"}).Draw(t, "what"); {
			case what == "add" && i < 0:
				q.Add(&x.place, x)
				want = append(want, x)
			case what == "remove":
				q.Remove(&x.place)
				if i >= 0 {
					want = slices.Delete(want, i, i+1)
				}
			case what == "again" && i >= 0:
				q.Again(&x.place)
				want = append(slices.Delete(want, i, i+1), x)
			}
			var forward, backward []*waiting
			for p := q.first; p != nil; p = p.newer {
				forward = append(forward, p.of)
			}
			for p := q.last; p != nil; p = p.older {
				backward = append(backward, p.of)
			}
			slices.Reverse(backward)
			if first := q.First(); first != nil && first != want[0] || (first == nil) != (len(want) == 0) {
				t.Fatal("another one is the first")
			}
			for i := range things {
				if things[i].place.In() != slices.Contains(want, &things[i]) {
					t.Fatalf("thing %d does not know whether it is in", i)
				}
			}
			if !slices.Equal(forward, want) || !slices.Equal(backward, want) {
				t.Fatalf("%v and %v, want %v", forward, backward, want)
			}
		}
	})
}
