package l4

// An ageQueue is sessions or flows that may have to give way to others, the oldest first, each in one queue at most. It
// is used onLoop only; its zero value is empty.
type ageQueue[T any] struct{ first, last *agePlace[T] }

// An agePlace is the place of one in an ageQueue, and a part of what stands there. Its zero value is in none.
type agePlace[T any] struct {
	of           *T // nil while it is in none
	older, newer *agePlace[T]
}

// add puts p, which is of's and in no queue, at the end.
func (q *ageQueue[T]) add(p *agePlace[T], of *T) {
	p.of, p.older = of, q.last
	if q.last == nil {
		q.first = p
	} else {
		q.last.newer = p
	}
	q.last = p
}

// remove takes p out, if it is in.
func (q *ageQueue[T]) remove(p *agePlace[T]) {
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
	*p = agePlace[T]{}
}

// again puts p, which is in, at the end.
func (q *ageQueue[T]) again(p *agePlace[T]) {
	of := p.of
	q.remove(p)
	q.add(p, of)
}
