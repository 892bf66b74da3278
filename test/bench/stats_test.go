package main

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestPercentile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, c := range []struct {
		sorted []int
		p      float64
		want   int
	}{
		{[]int{7}, 50, 7},
		{[]int{7}, 99, 7},
		{[]int{1, 2}, 50, 1},
		{[]int{1, 2, 3}, 50, 2},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 99.1, 100},
		{hundred, 100, 100},
		{hundred, 0.1, 1},
	} {
		if got := percentile(c.sorted, c.p); got != c.want {
			t.Errorf("percentile of %d samples at %v = %d, want %d", len(c.sorted), c.p, got, c.want)
		}
	}
}

// At least p percent of the samples do not exceed the percentile, and fewer than
// p percent are below it.
func TestPercentileIsNearestRank(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.SliceOfN(rapid.IntRange(0, 50), 1, 200).Draw(t, "samples")
		p := float64(rapid.IntRange(1, 100).Draw(t, "p"))
		slices.Sort(s)
		v := percentile(s, p)
		var atMost, below int
		for _, x := range s {
			if x <= v {
				atMost++
			}
			if x < v {
				below++
			}
		}
		want := p / 100 * float64(len(s))
		if float64(atMost) < want-1e-9 || float64(below) >= want+1e-9 {
			t.Fatalf("percentile(%v, %v) = %d: %d at most, %d below", s, p, v, atMost, below)
		}
	})
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
		ok     bool
	}{
		{nil, 0, false},
		{[]float64{3}, 3, true},
		{[]float64{9, 1}, 5, true},
		{[]float64{9, 1, 2}, 2, true},
		{[]float64{4, 1, 3, 2}, 2.5, true},
	} {
		before := slices.Clone(c.values)
		got, ok := median(c.values)
		if got != c.want || ok != c.ok {
			t.Errorf("median(%v) = %v, %v, want %v, %v", c.values, got, ok, c.want, c.ok)
		}
		if !slices.Equal(before, c.values) {
			t.Errorf("median changed its values from %v to %v", before, c.values)
		}
	}
}

func TestRatioToBest(t *testing.T) {
	ours := []roundValue{{1, 10}, {2, 30}, {3, 12}}
	for _, c := range []struct {
		name   string
		rivals [][]roundValue
		lower  bool
		want   float64
		ok     bool
	}{
		{"no rival", nil, true, 0, false},
		{"rivals without values", [][]roundValue{nil, nil}, true, 0, false},
		// the machine was three times as slow in round 2: within the rounds that is no difference
		{"drift", [][]roundValue{{{1, 10}, {2, 30}, {3, 12}}}, true, 1, true},
		{"the lower of two in each round", [][]roundValue{{{1, 5}, {2, 60}, {3, 12}}, {{1, 20}, {2, 15}, {3, 6}}}, true,
			2, true},
		{"the higher of two in each round", [][]roundValue{{{1, 5}, {2, 60}, {3, 12}}, {{1, 20}, {2, 15}, {3, 24}}},
			false, 0.5, true},
		{"a round that no rival has", [][]roundValue{{{2, 15}}}, true, 2, true},
		{"a rival that is only in some rounds", [][]roundValue{{{1, 10}, {2, 30}, {3, 12}}, {{2, 3}}}, true, 1, true},
		{"zero is no measurement", [][]roundValue{{{1, 0}, {2, 15}}}, true, 2, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := ratioToBest(ours, c.rivals, c.lower)
			if ok != c.ok || math.Abs(got-c.want) > 1e-12 {
				t.Errorf("ratio %v, %v, want %v, %v", got, ok, c.want, c.ok)
			}
		})
	}
}
