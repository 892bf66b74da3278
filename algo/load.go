package algo

import "sync/atomic"

// A Load holds the live figures of one member, which algorithms read at each pick.
// Its zero value is ready to use, and it is safe for concurrent use. It must not be copied.
//
// Invariant: leases is the number of leases not yet released, and so never negative.
type Load struct {
	leases atomic.Int64
}

// Leases returns the number of leases held now.
func (l *Load) Leases() int64 { return l.leases.Load() }

// Acquire counts one lease more and returns the number now held.
func (l *Load) Acquire() int64 { return l.leases.Add(1) }

// Release counts one lease less and returns the number still held.
// It panics when none was held: a lease was then released twice, and every later figure would be wrong.
func (l *Load) Release() int64 {
	n := l.leases.Add(-1)
	if n < 0 {
		panic("algo: lease released twice: load below zero")
	}
	return n
}
