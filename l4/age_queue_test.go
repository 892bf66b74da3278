package l4

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestAgeQueue holds that an ageQueue has what was added, in that order, whatever was removed or put at the end
// meanwhile.
func TestAgeQueue(t *testing.T) {
	type thing struct{ place agePlace[thing] }
	rapid.Check(t, func(t *rapid.T) {
		var q ageQueue[thing]
		things := make([]thing, 5)
		var want []*thing
		for range rapid.IntRange(0, 50).Draw(t, "steps") {
			x := &things[rapid.IntRange(0, len(things)-1).Draw(t, "which")]
			i := slices.Index(want, x)
			switch what := rapid.SampledFrom([]string{"add", "remove", "again"}).Draw(t, "what"); {
			case what == "add" && i < 0:
				q.add(&x.place, x)
				want = append(want, x)
			case what == "remove":
				q.remove(&x.place)
				if i >= 0 {
					want = slices.Delete(want, i, i+1)
				}
			case what == "again" && i >= 0:
				q.again(&x.place)
				want = append(slices.Delete(want, i, i+1), x)
			}
			var forward, backward []*thing
			for p := q.first; p != nil; p = p.newer {
				forward = append(forward, p.of)
			}
			for p := q.last; p != nil; p = p.older {
				backward = append(backward, p.of)
			}
			slices.Reverse(backward)
			if !slices.Equal(forward, want) || !slices.Equal(backward, want) {
				t.Fatalf("%v and %v, want %v", forward, backward, want)
			}
		}
	})
}
