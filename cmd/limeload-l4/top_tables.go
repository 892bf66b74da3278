package main

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// rateColumns are the columns of rates, which every table of top has.
func rateColumns() []column {
	return []column{
		{name: "sessions", right: true, rank: 1}, {name: "new", right: true, rank: 2},
		{name: "in", right: true, rank: 3}, {name: "out", right: true, rank: 3},
	}
}

func topListenerTable(listeners []topListener) *table {
	t := newTable(slices.Concat([]column{{name: "listener"}, {name: "protocol", usual: "tcp", rank: 4},
		{name: "address", text: true}}, rateColumns(), []column{{name: "pool", text: true, rank: 5}})...)
	for _, l := range listeners {
		t.add(l.Name, l.Protocol, addressList(l.Addresses), strconv.Itoa(l.Sessions), l.Rates.new(), l.Rates.in(),
			l.Rates.out(), strings.Join(l.Pools, " "))
	}
	return t
}

func topPoolTable(pools []topPool) *table {
	t := newTable(slices.Concat([]column{{name: "pool"}, {name: "eligible", right: true, tint: shareTint}}, rateColumns(),
		[]column{{name: "waiting", right: true, usual: "0"}, {name: "algorithm", rank: 4},
			{name: "note", text: true, tint: always(doubtful)}})...)
	for _, p := range pools {
		t.add(p.Name, strconv.Itoa(p.Eligible)+"/"+strconv.Itoa(p.Backends), strconv.Itoa(p.Sessions), p.Rates.new(),
			p.Rates.in(), p.Rates.out(), waiting(&p.Pool), p.Algorithm, poolNote(&p.Pool))
	}
	return t
}

// shareTint returns the tint of a share such as "2/3".
func shareTint(cell string) tint {
	some, all, _ := strings.Cut(cell, "/")
	switch {
	case some == "0":
		return bad
	case some == all:
		return good
	}
	return doubtful
}

// topBackendTable makes a table of backends, with their pools or without. It has reasons of those that are not fine
// only; the selected one's is shown in any case.
func topBackendTable(backends []topBackend, pools bool) *table {
	columns := []column{{name: "backend"}, {name: "address"}, {name: "verdict", tint: stateTint},
		{name: "mode", usual: "ready", tint: stateTint}, {name: "breaker", usual: "closed", tint: stateTint}}
	columns = slices.Concat(columns, rateColumns(), []column{{name: "weight", right: true, usual: "1", rank: 2},
		{name: "since", right: true, rank: 4}, {name: "reason", text: true}})
	if pools {
		columns = slices.Insert(columns, 0, column{name: "pool", group: true})
	}
	t := newTable(columns...)
	t.fold = true // rates are what one looks at, and a reason below its row is as good
	for _, b := range backends {
		since := ""
		if !b.Since.IsZero() {
			since = ago(b.Since)
		}
		why := ""
		if trouble(&b.Backend) < fine {
			why = whyOf(&b.Backend)
		}
		cells := []string{b.Name, b.Address, b.Verdict, b.Mode, b.Breaker, ofLimit(b.Sessions, b.MaxSessions),
			b.Rates.new(), b.Rates.in(), b.Rates.out(), strconv.Itoa(b.Weight), since, why}
		if pools {
			cells = slices.Insert(cells, 0, b.Pool)
		}
		t.add(cells...)
	}
	return t
}

// A topOrder is an order of rows. Its functions say whether a comes before b as cmp.Compare does, the most remarkable
// first.
type topOrder struct {
	name      string
	listeners func(a, b topListener) int // nil: as the daemon lists them
	pools     func(a, b topPool) int
	backends  func(a, b topBackend) int
}

// topOrders returns the orders in the order of the key s.
func topOrders() []topOrder {
	rate := func(name string, of func(r topRates) float64) topOrder {
		by := func(a, b *topRates) int { return cmp.Compare(of(*b.plus(new(topRates))), of(*a.plus(new(topRates)))) }
		return topOrder{name,
			func(a, b topListener) int { return by(a.Rates, b.Rates) },
			func(a, b topPool) int { return by(a.Rates, b.Rates) },
			func(a, b topBackend) int { return by(a.Rates, b.Rates) }}
	}
	return []topOrder{
		{name: "configuration"},
		{"sessions", func(a, b topListener) int { return cmp.Compare(b.Sessions, a.Sessions) },
			func(a, b topPool) int { return cmp.Compare(b.Sessions, a.Sessions) },
			func(a, b topBackend) int { return cmp.Compare(b.Sessions, a.Sessions) }},
		rate("new", func(r topRates) float64 { return r.New }),
		rate("in", func(r topRates) float64 { return r.In }),
		rate("out", func(r topRates) float64 { return r.Out }),
		{"state", nil,
			func(a, b topPool) int { return cmp.Compare(worry(a), worry(b)) },
			func(a, b topBackend) int { return cmp.Compare(trouble(&a.Backend), trouble(&b.Backend)) }},
		{"name", func(a, b topListener) int { return cmp.Compare(a.Name, b.Name) },
			func(a, b topPool) int { return cmp.Compare(a.Name, b.Name) },
			func(a, b topBackend) int { return cmp.Compare(a.Name, b.Name) }},
	}
}

// worry returns the eligible share of a pool.
func worry(p topPool) float64 { return float64(p.Eligible) / float64(max(p.Backends, 1)) }

// fine is the trouble of a backend that has none.
const fine = 3

// trouble returns 0 for what is worst, and more for what is better.
func trouble(b *admin.Backend) int {
	switch {
	case stateTint(b.Verdict) == bad || stateTint(b.Breaker) == bad:
		return 0
	case !b.Eligible:
		return 1
	case stateTint(b.Verdict) != good || stateTint(b.Mode) != uncoloured || stateTint(b.Breaker) != uncoloured:
		return 2
	}
	return fine
}

// arrange sorts rows by an order, or backwards, and leaves out those that the filter does not match. The words of a row
// are what a filter is looked for in.
func arrange[T any](rows []T, order func(a, b T) int, reverse bool, filter string, words func(T) string) []T {
	var kept []T
	for _, row := range rows {
		if filter == "" || strings.Contains(strings.ToLower(words(row)), strings.ToLower(filter)) {
			kept = append(kept, row)
		}
	}
	if order != nil {
		slices.SortStableFunc(kept, order)
	}
	if reverse {
		slices.Reverse(kept)
	}
	return kept
}
