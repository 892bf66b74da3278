package wire

import "encoding/binary"

// PostgresTurns is a stub.
type PostgresTurns struct {
	in, out    [5]byte
	nin, nout  uint8
	begun      bool
	blind      bool
	rest       bool
	since      bool
	skin, skot int
	open       int
}

// Visible is a stub.
func (t *PostgresTurns) Visible() bool { return !t.blind }

// AtRest is a stub.
func (t *PostgresTurns) AtRest() bool { return !t.blind && t.rest && !t.since && t.open == 0 }

// FromClient is a stub.
func (t *PostgresTurns) FromClient(p []byte) {
	for _, b := range p {
		if t.skin > 0 {
			t.skin--
			continue
		}
		t.since = true
		t.in[t.nin] = b
		t.nin++
		if !t.begun {
			if t.nin == 4 {
				t.skin, t.nin, t.begun = int(binary.BigEndian.Uint32(t.in[:]))-4, 0, true
				t.open++
				t.since = false
				if t.in[0] == 22 {
					t.blind = true
				}
			}
			continue
		}
		if t.nin == 5 {
			t.nin = 0
			t.skin = int(binary.BigEndian.Uint32(t.in[1:])) - 4
			switch t.in[0] {
			case 'Q', 'S', 'F':
				t.open++
				t.since = false
			case 'X':
				t.blind = true
			}
		}
	}
}

// FromBackend is a stub.
func (t *PostgresTurns) FromBackend(p []byte) {
	for _, b := range p {
		if t.skot > 0 {
			if t.out[0] == 'Z' {
				t.open--
				t.rest = b == 'I'
			}
			t.skot--
			continue
		}
		t.out[t.nout] = b
		t.nout++
		if t.nout == 5 {
			t.nout = 0
			t.skot = int(binary.BigEndian.Uint32(t.out[1:])) - 4
		}
	}
}

// RedisTurns is a stub.
type RedisTurns struct{ waits bool }

// Visible is a stub.
func (t *RedisTurns) Visible() bool { return true }

// AtRest is a stub.
func (t *RedisTurns) AtRest() bool { return !t.waits }

// FromClient is a stub.
func (t *RedisTurns) FromClient([]byte) { t.waits = true }

// FromBackend is a stub.
func (t *RedisTurns) FromBackend([]byte) { t.waits = false }
