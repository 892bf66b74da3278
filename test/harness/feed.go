package harness

import (
	"sync"
	"time"
)

// A feed is a growing list that readers can wait on: the lines of a process's output, its log, the access lines in it.
// Its zero value is an empty feed; its methods may be called from any goroutine.
type feed[T any] struct {
	// mu guards the fields below
	mu    sync.Mutex
	items []T
	ended bool
	grown chan struct{} // closed and replaced at each change; nil while nobody waits
}

func (f *feed[T]) add(item T) { f.change(func() { f.items = append(f.items, item) }) }

// end says that nothing more will be added, and wakes all waiting readers.
func (f *feed[T]) end() { f.change(func() { f.ended = true }) }

func (f *feed[T]) change(apply func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	apply()
	if f.grown != nil {
		close(f.grown)
		f.grown = nil
	}
}

// all returns the items so far; the caller must not change them.
func (f *feed[T]) all() []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.items[:len(f.items):len(f.items)]
}

// find returns the first item from index on that matches and the index after it, waiting up to patience for it to come.
func (f *feed[T]) find(from int, patience time.Duration, matches func(T) bool) (item T, next int, found bool) {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		items, ended, grown := f.since(from)
		for i, item := range items {
			if matches(item) {
				return item, from + i + 1, true
			}
		}
		from += len(items)
		if ended {
			return item, from, false
		}
		select {
		case <-grown:
		case <-deadline.C:
			return item, from, false
		}
	}
}

func (f *feed[T]) since(from int) (items []T, ended bool, grown <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.grown == nil {
		f.grown = make(chan struct{})
	}
	return f.items[min(from, len(f.items)):], f.ended, f.grown
}
