package wire

import "encoding/binary"

// The state of a PostgresTurns and of a RedisTurns can be given to another process, which goes on with the same session.
// It is a few bytes of a fixed layout; the first is its version.

const (
	turnsVersion       = 1
	postgresStateBytes = 1 + 2*10 + 4 + 4
	redisStateBytes    = 1 + 8 + 12 + 12 + 8
)

// AppendState appends the state to b.
func (t *PostgresTurns) AppendState(b []byte) []byte {
	b = append(b, turnsVersion)
	b = t.backend.appendState(t.client.appendState(b))
	b = binary.BigEndian.AppendUint32(b, t.owed)
	flags := byte(0)
	for i, set := range [...]bool{t.open, t.ignored, t.ended, t.idle} {
		if set {
			flags |= 1 << i
		}
	}
	return append(b, byte(t.stage), byte(t.copying), t.asked, flags)
}

// SetState sets the state that AppendState has appended, and reports whether it is one.
func (t *PostgresTurns) SetState(b []byte) bool {
	if len(b) != postgresStateBytes || b[0] != turnsVersion {
		return false
	}
	n := PostgresTurns{
		owed: binary.BigEndian.Uint32(b[21:]), stage: postgresStage(b[25]), copying: postgresCopy(b[26]), asked: b[27],
		open: b[28]&1 != 0, ignored: b[28]&2 != 0, ended: b[28]&4 != 0, idle: b[28]&8 != 0,
	}
	if !n.client.setState(b[1:11]) || !n.backend.setState(b[11:21]) || n.stage > postgresLost ||
		n.copying > postgresCopyBoth {
		return false
	}
	if (n.stage == postgresFirst || n.stage == postgresCode) && n.client.have > 4 {
		return false
	}
	*t = n
	return true
}

func (f *postgresFrame) appendState(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, f.left)
	return append(append(b, f.head[:]...), f.have)
}

func (f *postgresFrame) setState(b []byte) bool {
	*f = postgresFrame{left: binary.BigEndian.Uint32(b), head: [5]byte(b[4:9]), have: b[9]}
	return int(f.have) < len(f.head)
}

// AppendState appends the state to b.
func (t *RedisTurns) AppendState(b []byte) []byte {
	b = append(b, turnsVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(t.word))
	c, r := &t.commands, &t.replies
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, c.left), c.args)
	b = append(b, byte(c.phase), byte(c.line), byte(c.command), byte(c.holds))
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, r.left), r.items)
	b = append(b, byte(r.phase), byte(r.line), r.first, r.kind)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, t.owed), t.until)
}

// SetState sets the state that AppendState has appended, and reports whether it is one.
func (t *RedisTurns) SetState(b []byte) bool {
	if len(b) != redisStateBytes || b[0] != turnsVersion {
		return false
	}
	at := binary.BigEndian.Uint32
	n := RedisTurns{
		word: redisName(binary.BigEndian.Uint64(b[1:])),
		commands: redisCommands{left: at(b[9:]), args: at(b[13:]), phase: redisPhase(b[17]),
			line: redisLineState(b[18]), command: redisKind(b[19]), holds: redisHolds(b[20])},
		replies: redisReplies{left: at(b[21:]), items: at(b[25:]), phase: redisPhase(b[29]),
			line: redisLineState(b[30]), first: b[31], kind: b[32]},
		owed: at(b[33:]), until: at(b[37:]),
	}
	if n.commands.phase > redisLost || n.replies.phase > redisRest || n.commands.command > redisEndless {
		return false
	}
	*t = n
	return true
}
