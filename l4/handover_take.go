package l4

import (
	"sync"
	"sync/atomic"

	"github.com/limeload/limeload-l4/l4/internal/flow"
	"github.com/limeload/limeload-l4/l4/internal/session"
	"github.com/limeload/limeload-l4/l4/internal/sock"
	"github.com/limeload/limeload-l4/pool"
)

// A Taking is what the new process has taken over and does not serve yet.
type Taking struct {
	Refused []int // indices of what it did not take: it has no such listener, pool or backend. Their descriptors are closed

	server   *Server
	sessions []*session.Adoption
	flows    []takenFlow
}

// A takenFlow is a flow, and where its client's datagrams come to.
type takenFlow struct {
	*flow.Adoption
	socket *flow.Socket
	loop   int
}

// TakeOver takes sessions and flows over. The descriptors are the server's from now on. It is called between Start and
// Shutdown; flows before Admit.
func (s *Server) TakeOver(m []Moving) *Taking {
	t := &Taking{server: s}
	sockets := s.socketsOf(m)
	for i := range m {
		if !t.take(&m[i], sockets) {
			t.Refused = append(t.Refused, i)
			for _, fd := range m[i].FDs {
				sock.Close(fd)
			}
		}
	}
	return t
}

// take takes one session or flow over. It reports false if that cannot be served here.
func (t *Taking) take(m *Moving, sockets map[uint64]takenFlow) bool {
	switch {
	case m.Session != nil && m.Flow == nil && len(m.FDs) == 2:
		return t.takeSession(m.Session, [2]int(m.FDs))
	case m.Flow != nil && m.Session == nil && len(m.FDs) <= 1:
		return t.takeFlow(m.Flow, m.FDs, sockets)
	}
	return false
}

// listenerOf returns the listener of a name and protocol, and that of its pools that has a name; nil if there is none.
func (s *Server) listenerOf(name string, protocol Protocol, poolName string) (*listener, *pool.Pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ls := s.listeners[listenerKey{name, protocol}]
	if ls == nil || !s.live || s.ended {
		return nil, nil
	}
	for p := range ls.spec.Load().pools {
		if p.Name() == poolName {
			return ls, p
		}
	}
	return nil, nil
}

func (t *Taking) takeSession(st *session.State, fds [2]int) bool {
	ls, p := t.server.listenerOf(st.Listener, TCP, st.Pool)
	if ls == nil || st.In.Ended && st.Out.Ended || fds[0] == fds[1] ||
		!sock.InheritConnected(fds[0], false) || !sock.InheritConnected(fds[1], false) {
		return false
	}
	lease, is := p.Adopt(st.Backend, st.At)
	if !is {
		return false
	}
	a := &session.Adoption{
		State: st, FDs: fds, Listener: ls.tcp, Place: session.Placing{Pool: p, Lease: lease},
	}
	if len(st.Key) > 0 {
		a.Begun = func(l *session.Loop, of *session.Session) { ls.postgres.Adopt(l, of, string(st.Key)) }
	}
	t.sessions = append(t.sessions, a)
	return true
}

// socketsOf returns where datagrams of the flows in m come to, by their sockets' cookies.
func (s *Server) socketsOf(m []Moving) map[uint64]takenFlow {
	wanted := make(map[uint64]takenFlow)
	for i := range m {
		if m[i].Flow != nil {
			wanted[m[i].Flow.Socket] = takenFlow{}
		}
	}
	s.mu.Lock()
	serves := s.live && !s.ended
	s.mu.Unlock()
	if len(wanted) == 0 || !serves {
		return nil
	}
	cookies := make([]uint64, 0, len(wanted))
	for cookie := range wanted {
		cookies = append(cookies, cookie)
	}
	var mu sync.Mutex
	s.onEachLoop(func(i int) {
		for _, cookie := range cookies {
			if d := s.flows[i].SocketOf(cookie); d != nil {
				mu.Lock()
				wanted[cookie] = takenFlow{socket: d, loop: i}
				mu.Unlock()
			}
		}
	})
	return wanted
}

func (t *Taking) takeFlow(st *flow.State, fds []int, sockets map[uint64]takenFlow) bool {
	ls, p := t.server.listenerOf(st.Listener, UDP, st.Pool)
	at := sockets[st.Socket]
	if ls == nil || at.socket == nil || at.socket.Listener() != ls.udp ||
		len(fds) > 0 && !sock.InheritConnected(fds[0], true) || st.Backend == "" && (st.Assigned || len(fds) > 0) {
		return false
	}
	a := &flow.Adoption{State: st, FD: -1, Pool: p}
	if len(fds) > 0 {
		a.FD = fds[0]
	}
	if st.Backend != "" {
		lease, is := p.Adopt(st.Backend, st.At)
		if !is {
			return false
		}
		a.Backend = lease.Backend()
		if st.Assigned {
			a.Lease = lease
		} else {
			lease.HandOver()
		}
	}
	at.Adoption = a
	t.flows = append(t.flows, at)
	return true
}

// Drop gives up what was taken, instead of Begin: the other process goes on with it.
func (t *Taking) Drop() {
	for _, a := range t.sessions {
		a.Drop()
	}
	for _, f := range t.flows {
		f.Drop()
	}
	t.sessions, t.flows = nil, nil
}

// Begin serves what was taken. Until then nothing is read, and nothing is lost if this process ends. It returns when
// every loop has its part.
func (t *Taking) Begin() {
	s := t.server
	more := make([]int, len(s.loops))
	byLoop := make([][]*session.Adoption, len(s.loops))
	for _, a := range t.sessions {
		i := session.Lightest(s.sessions, more)
		more[i]++
		byLoop[i] = append(byLoop[i], a)
	}
	flows := make([][]takenFlow, len(s.loops))
	for _, f := range t.flows {
		flows[f.loop] = append(flows[f.loop], f)
	}
	t.sessions, t.flows = nil, nil
	var begun atomic.Int64 // of the loops
	s.onEachLoop(func(i int) {
		for _, a := range byLoop[i] {
			s.sessions[i].Adopt(a)
		}
		for _, f := range flows[i] {
			s.flows[i].Adopt(f.Adoption, f.socket)
		}
		byLoop[i], flows[i] = nil, nil
		begun.Add(1)
	})
	if int(begun.Load()) == len(s.loops) {
		return
	}
	// The loops have ended, and so the server was shut down.
	for i := range s.loops {
		for _, a := range byLoop[i] {
			a.Drop()
		}
		for _, f := range flows[i] {
			f.Drop()
		}
	}
}
