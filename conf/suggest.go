package conf

import "strings"

// Nearest returns the known word that word is probably a typo of, or "". Of equally near words it is the first. It may
// be called from any goroutine.
func Nearest(word string, known []string) string { return nearest(word, known) }

// nearest returns the known word that word is probably a typo of, or "". Of equally near words it is the first. It
// ignores case, although keys do not: "Address" is one of the mistakes to find.
func nearest(word string, known []string) string {
	if len(word) > maxQuoted { // no known word is that long, and the work grows with the length
		return ""
	}
	word = strings.ToLower(word)
	best, bestAway := "", 0
	for _, k := range known {
		away := distance(word, strings.ToLower(k))
		// At most one mistake in three letters, since otherwise short words are near to everything. Words without a
		// common letter are no typos.
		if away*3 > max(len(word), 3) || away >= max(len(word), len(k)) {
			continue
		}
		if best == "" || away < bestAway {
			best, bestAway = k, away
		}
	}
	return best
}

// distance returns the number of letters to insert, drop, replace or swap with a neighbour to turn a into b (optimal
// string alignment).
func distance(a, b string) int {
	before := make([]int, len(b)+1) // the row before the last
	last := make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
