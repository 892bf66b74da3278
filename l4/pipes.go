package l4

import "github.com/limeload/limeload-l4/l4/internal/sock"

// A pipePool is one loop's pipes, used onLoop only. limit is set once; its zero value gives none.
type pipePool struct {
	limit int // pipes at once, so that bulk never takes the descriptors of sessions
	made  int
	free  []*sock.Pipe
}

// get returns an empty pipe; nil when all are in use or the system gives none, and the bytes are copied then.
func (p *pipePool) get() *sock.Pipe {
	if last := len(p.free) - 1; last >= 0 {
		pipe := p.free[last]
		p.free = p.free[:last]
		return pipe
	}
	if p.made >= p.limit {
		return nil
	}
	pipe, err := sock.NewPipe()
	if err != nil {
		return nil
	}
	p.made++
	return pipe
}

// put takes a pipe back. One that still holds bytes is closed: they are not the next session's.
func (p *pipePool) put(pipe *sock.Pipe) {
	if pipe.Held() > 0 {
		pipe.Close()
		p.made--
		return
	}
	p.free = append(p.free, pipe)
}

// close closes the free pipes.
func (p *pipePool) close() {
	for _, pipe := range p.free {
		pipe.Close()
	}
	p.free = nil
}
