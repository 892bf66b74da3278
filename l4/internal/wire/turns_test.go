package wire

import (
	"fmt"
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// A follower is a PostgresTurns or a RedisTurns.
type follower interface {
	FromClient(p []byte)
	FromBackend(p []byte)
	AtRest() bool
	Visible() bool
}

// A turn is what one side of a session sends, or a check of what is known by then.
type turn struct {
	from byte // '>' the client, '<' the server, '?' a check
	text string
}

func client(text string) turn { return turn{'>', text} }
func server(text string) turn { return turn{'<', text} }

// The checks.
var (
	rests  = turn{'?', "at rest"}
	busy   = turn{'?', "busy"}
	hidden = turn{'?', "not visible"}
)

// state returns what a follower says, in the words of the checks.
func state(f follower) string {
	switch {
	case f.AtRest() && !f.Visible():
		return "at rest and not visible"
	case f.AtRest():
		return rests.text
	case f.Visible():
		return busy.text
	}
	return hidden.text
}

// play gives a session to a follower in pieces of the sizes that cut returns for what is left, and returns what the
// first check that fails says.
func play(f follower, session []turn, cut func(left int) int) error {
	for i, one := range session {
		if one.from == '?' {
			if got := state(f); got != one.text {
				return fmt.Errorf("behind turn %d it is %s, not %s", i, got, one.text)
			}
			continue
		}
		for p := []byte(one.text); len(p) > 0; {
			n := cut(len(p))
			if one.from == '>' {
				f.FromClient(p[:n])
			} else {
				f.FromBackend(p[:n])
			}
			// Within what the server sends, only messages that may come at any time can follow.
			if p = p[n:]; len(p) > 0 && one.from == '<' && f.AtRest() && !strings.Contains("ANS>", string(p[:1])) {
				return fmt.Errorf("in turn %d, with %q to come: at rest", i, p[:min(len(p), 100)])
			}
		}
	}
	return nil
}

// between reports whether both directions are between two messages.
func between(f follower) bool {
	switch f := f.(type) {
	case *PostgresTurns:
		return f.client.between() && f.backend.between()
	case *RedisTurns:
		return f.commands.phase == redisBegin && f.replies.phase == redisBegin && f.replies.items == 0
	}
	panic("unreachable")
}

// testSessions plays each session whole, byte by byte, and in random pieces.
func testSessions[F any, P interface {
	*F
	follower
}](t *testing.T, sessions map[string][]turn) {
	for name, session := range sessions {
		t.Run(name, func(t *testing.T) {
			if err := play(P(new(F)), session, func(left int) int { return left }); err != nil {
				t.Fatal("whole: ", err)
			}
			if err := play(P(new(F)), session, func(int) int { return 1 }); err != nil {
				t.Fatal("byte by byte: ", err)
			}
			rapid.Check(t, func(t *rapid.T) {
				cut := func(left int) int { return rapid.IntRange(1, left).Draw(t, "piece") }
				if err := play(P(new(F)), session, cut); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// fuzzTurns holds that nothing that both sides may send does harm, that it does not matter in which pieces it comes,
// that a session that is not visible is never at rest and stays so, and that nothing is at rest within a message.
func fuzzTurns[F comparable, P interface {
	*F
	follower
}](f *testing.F, seeds map[string][]turn) {
	for _, session := range seeds {
		var stream []byte
		for _, one := range session {
			if one.from == '?' {
				continue
			}
			for len(one.text) > 0 { // a head of one byte: who, and how many bytes
				n := min(len(one.text), 127)
				head := byte(n)
				if one.from == '<' {
					head |= 0x80
				}
				stream = append(append(stream, head), one.text[:n]...)
				one.text = one.text[n:]
			}
		}
		f.Add(stream)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		var whole, single F
		w, s := P(&whole), P(&single)
		for len(stream) > 0 {
			n, give, giveOne := int(stream[0]&0x7f), w.FromClient, s.FromClient
			if stream[0]&0x80 != 0 {
				give, giveOne = w.FromBackend, s.FromBackend
			}
			p := stream[1:][:min(n, len(stream)-1)]
			stream = stream[1+len(p):]
			visible := w.Visible()
			give(p)
			for i := range p {
				giveOne(p[i : i+1])
			}
			switch {
			case state(w) != state(s):
				t.Fatalf("%s, but %s byte by byte", state(w), state(s))
			case w.Visible() && whole != single:
				t.Fatalf("%+v, but byte by byte %+v", whole, single)
			case !visible && w.Visible(), w.AtRest() && (!w.Visible() || !between(w)):
				t.Fatalf("%s after visible = %v: %+v", state(w), visible, whole)
			}
		}
	})
}

// TestTurnsSize holds what sessions that are followed cost.
func TestTurnsSize(t *testing.T) {
	if p, r := unsafe.Sizeof(PostgresTurns{}), unsafe.Sizeof(RedisTurns{}); p > 40 || r > 40 {
		t.Errorf("%d and %d bytes", p, r)
	}
}
