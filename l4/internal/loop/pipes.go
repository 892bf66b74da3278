package loop

import "github.com/limeload/limeload-l4/l4/internal/sock"

// Pipes are one loop's pipes, used onLoop only. The zero value gives none.
type Pipes struct {
	Limit int // pipes at once, so that bulk never takes the descriptors of sessions; set once
	made  int
	free  []*sock.Pipe
}

// Get returns an empty pipe. It returns nil when all are in use or the system gives none; then the bytes are copied.
func (p *Pipes) Get() *sock.Pipe {
	if last := len(p.free) - 1; last >= 0 {
		pipe := p.free[last]
		p.free = p.free[:last]
		return pipe
	}
	if p.made >= p.Limit {
		return nil
	}
	pipe, err := sock.NewPipe()
	if err != nil {
		return nil
	}
	p.made++
	return pipe
}

// Put takes a pipe back. One that still holds bytes is closed: they must not come to the next session.
func (p *Pipes) Put(pipe *sock.Pipe) {
	if pipe.Held() > 0 {
		pipe.Close()
		p.made--
		return
	}
	p.free = append(p.free, pipe)
}

// close closes the free pipes.
func (p *Pipes) close() {
	for _, pipe := range p.free {
		pipe.Close()
	}
	p.free = nil
}
