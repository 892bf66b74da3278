package loop

// An AgeQueue is sessions or flows that may have to give way to others, the oldest first, each in one queue at most. It
// is used onLoop only; its zero value is empty.
type AgeQueue[T any] struct{ first, last *AgePlace[T] }

// An AgePlace is the place of one in an AgeQueue, and a part of what stands there. Its zero value is in none.
type AgePlace[T any] struct {
	of           *T // nil while it is in none
	older, newer *AgePlace[T]
}

// Add puts p, which is of's and in no queue, at the end.
func (q *AgeQueue[T]) Add(p *AgePlace[T], of *T) {
	p.of, p.older = of, q.last
	if q.last == nil {
		q.first = p
	} else {
		q.last.newer = p
	}
	q.last = p
}

// Remove takes p out, if it is in.
func (q *AgeQueue[T]) Remove(p *AgePlace[T]) {
	if p.of == nil {
		return
	}
	if p.older == nil {
		q.first = p.newer
	} else {
		p.older.newer = p.newer
	}
	if p.newer == nil {
		q.last = p.older
	} else {
		p.newer.older = p.older
	}
	*p = AgePlace[T]{}
}

// Again puts p, which is in, at the end.
func (q *AgeQueue[T]) Again(p *AgePlace[T]) {
	of := p.of
	q.Remove(p)
	q.Add(p, of)
}

// First returns the oldest one; nil if the queue is empty.
func (q *AgeQueue[T]) First() *T {
	if q.first == nil {
		return nil
	}
	return q.first.of
}

// In reports whether p is in a queue.
func (p *AgePlace[T]) In() bool { return p.of != nil }
