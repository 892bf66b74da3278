package main

import (
	"cmp"
	"math"
	"slices"
)

// percentile returns the smallest of the sorted samples that at least p percent
// of them do not exceed (nearest rank): a value that was measured, never one in
// between. There must be a sample, and 0 < p <= 100.
func percentile[T cmp.Ordered](sorted []T, p float64) T {
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

// median returns the middle of the values, or the mean of the two in the middle,
// and whether there was any. The values keep their order.
func median(values []float64) (float64, bool) {
	if len(values) == 0 {
		return 0, false
	}
	s := slices.Sorted(slices.Values(values))
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid], true
	}
	return (s[mid-1] + s[mid]) / 2, true
}

// A roundValue is one figure of one contender in one round.
type roundValue struct {
	round int
	value float64
}

// ratioToBest returns the median over the rounds of the value divided by the best value of any rival in the same round.
// The machine drifts between rounds, so it never compares figures of different rounds. A round without the value or
// without any rival does not count; without any round there is no ratio.
func ratioToBest(values []roundValue, rivals [][]roundValue, lowerIsBetter bool) (float64, bool) {
	return median(ratiosToBest(values, rivals, lowerIsBetter))
}

// ratiosToBest returns these ratios, one for each round that has one.
func ratiosToBest(values []roundValue, rivals [][]roundValue, lowerIsBetter bool) []float64 {
	var ratios []float64
	for _, v := range values {
		best, ok := bestOf(v.round, rivals, lowerIsBetter)
		if ok && best > 0 {
			ratios = append(ratios, v.value/best)
		}
	}
	return ratios
}

func bestOf(round int, rivals [][]roundValue, lowerIsBetter bool) (float64, bool) {
	var found []float64
	for _, rival := range rivals {
		for _, v := range rival {
			if v.round == round {
				found = append(found, v.value)
			}
		}
	}
	switch {
	case len(found) == 0:
		return 0, false
	case lowerIsBetter:
		return slices.Min(found), true
	}
	return slices.Max(found), true
}
