package wire

import (
	"bytes"
	"math"
)

// A RedisTurns follows the commands and replies of one Redis session, to know when the session is at rest: when ending
// it loses nothing but what any reconnect loses. It reads both versions of the protocol, RESP2 and RESP3.
//
// It gets all bytes of the session from its start, of each direction in order and in pieces of any size. Bytes of the
// client must come before those that the server sends because of them. It keeps no bytes but the letters of a
// command's name, and does not allocate. The zero value is ready; it is not safe for concurrent use.
//
// Commands are known by their names. A server that renames SUBSCRIBE or MULTI hides them.
type RedisTurns struct {
	word     redisName // the word of a command that is being read; it stands here for the sake of the size
	commands redisCommands
	replies  redisReplies

	owed  uint32 // replies that the server still has to send
	until uint32 // how many of those come up to the reply to the latest command that ended a hold; 0: it is there
}

// redisCommands is the state of what the client sends.
type redisCommands struct {
	left    uint32 // the number on the line, then bytes of the argument under way with its CR LF
	args    uint32 // arguments that have not begun
	phase   redisPhase
	line    redisLineState
	command redisKind
	holds   redisHolds
}

// redisReplies is the state of what the server sends.
type redisReplies struct {
	left  uint32 // the number on the line, then bytes of the string under way with its CR LF
	items uint32 // elements that are not whole, of the reply with all that is nested in it
	phase redisPhase
	line  redisLineState
	first byte // type of the reply
	kind  byte // type of the element under way
}

// A redisPhase says what the next byte of a direction is.
type redisPhase uint8

const (
	redisBegin  redisPhase = iota // the first byte of a command, or the type of an element
	redisCount                    // on the line with the number of arguments, or with the length or number of a reply
	redisDollar                   // the type of an argument
	redisLength                   // on the line with the length of an argument
	redisBody                     // in a string, or in the CR LF behind it
	redisRest                     // on a line of which nothing matters
	redisSpace                    // on a line of words, between two of them
	redisWord                     // on a line of words, in the name of the command or the word behind
	redisLost                     // of commands: nothing is followed any more
)

// A redisKind is what a command means for the session's rest.
type redisKind uint8

const (
	redisUnnamed redisKind = iota // its name is not whole
	redisPlain                    // it has one reply
	redisFamily                   // its second word decides
	redisMulti
	redisWatch
	redisExec
	redisDiscard // RESET too
	redisUnwatch
	redisEndless // its replies are not one
)

// redisHolds are the commands that keep a session from rest until another command.
type redisHolds uint8

const (
	redisInMulti  redisHolds = 1 << iota // until EXEC, DISCARD or RESET
	redisWatching                        // until one of those, or UNWATCH
)

// Visible reports whether the session can still be followed. Once it is false it stays so, AtRest is false for ever,
// and further bytes need not be given: the session is encrypted, has sent what is no Redis or what Redis servers do
// not send, such as streamed strings, or has sent a command whose replies cannot be counted: SUBSCRIBE and the like,
// MONITOR, the commands of replicas, CLIENT REPLY and SCRIPT DEBUG.
func (t *RedisTurns) Visible() bool { return t.commands.phase != redisLost }

// AtRest reports whether the session can be ended without a loss: every command has its reply, both directions are
// between two messages, and the client is not between MULTI or WATCH and the end of the transaction. What belongs to
// the session itself is not looked at, since a restart of the server ends that too: the selected database, the login,
// and CLIENT TRACKING, whose clients forget what they have cached when they lose the connection.
func (t *RedisTurns) AtRest() bool {
	return t.commands.phase == redisBegin && t.commands.holds == 0 && t.owed == 0 &&
		t.replies.phase == redisBegin && t.replies.items == 0
}

// lose gives up. The reason does not matter to anybody: the session's deadline then decides about its end.
func (t *RedisTurns) lose() { t.commands.phase = redisLost }

// FromClient takes the next bytes that the client has sent.
func (t *RedisTurns) FromClient(p []byte) {
	c := &t.commands
	for len(p) > 0 {
		switch c.phase {
		case redisBegin:
			if p[0] != '*' {
				c.phase = redisSpace
				continue
			}
			c.phase, c.left, c.line, p = redisCount, 0, 0, p[1:]
		case redisDollar:
			if p[0] != '$' {
				t.lose()
			} else {
				c.phase, c.left, c.line, p = redisLength, 0, 0, p[1:]
			}
		case redisCount, redisLength:
			c.line = c.line.read(&c.left, p[0])
			t.lineRead()
			p = p[1:]
		case redisBody:
			p = t.argument(p)
		case redisRest:
			end := bytes.IndexByte(p, '\n')
			if end < 0 {
				return
			}
			t.sent()
			p = p[end+1:]
		case redisSpace, redisWord:
			t.inline(p[0])
			p = p[1:]
		case redisLost:
			return
		}
	}
}

// lineRead handles the end of a line with a number from the client, if it has been read.
func (t *RedisTurns) lineRead() {
	c := &t.commands
	switch {
	case c.line&redisBad != 0:
		t.lose()
	case c.line&redisDone == 0:
	case c.phase == redisCount && (c.left == 0 || c.line&redisNegative != 0):
		c.phase = redisBegin // an empty command has no reply
	case c.phase == redisCount:
		c.args, c.phase = c.left, redisDollar
	case c.line&redisNegative != 0 || c.left > math.MaxUint32-2:
		t.lose()
	default:
		c.args--
		c.left += 2
		c.phase = redisBody
	}
}

// argument takes bytes of an argument, and returns the bytes behind it.
func (t *RedisTurns) argument(p []byte) (rest []byte) {
	c := &t.commands
	n := int(min(uint64(c.left), uint64(len(p))))
	if c.command == redisUnnamed || c.command == redisFamily {
		for _, b := range p[:min(uint64(n), uint64(max(c.left, 2)-2))] {
			t.word = t.word.with(b)
		}
	}
	if c.left -= uint32(n); c.left > 0 {
		return p[n:]
	}
	t.wordRead()
	switch {
	case c.phase == redisLost:
	case c.args == 0:
		t.sent()
	default:
		t.moreWords()
		c.phase = redisDollar
	}
	return p[n:]
}

// inline takes one byte of a command that is a line of words. A quote in a word that matters is not understood: in
// quotes a letter can be written in several ways.
func (t *RedisTurns) inline(b byte) {
	c := &t.commands
	space := b == ' ' || b >= '\t' && b <= '\r'
	if c.phase == redisWord {
		switch {
		case !space && (b <= ' ' || b > '~' || b == '"' || b == '\''):
			t.lose()
			return
		case !space:
			t.word = t.word.with(b)
			return
		}
		if t.wordRead(); c.phase == redisLost {
			return
		}
		c.phase = redisSpace
	}
	switch {
	case b == '\n' && c.command == redisUnnamed:
		c.phase = redisBegin // an empty line has no reply
	case b == '\n':
		t.sent()
	case space:
	default:
		t.moreWords()
		if c.command != redisUnnamed && c.command != redisFamily {
			c.phase = redisRest
			return
		}
		c.phase = redisWord
		t.inline(b)
	}
}

// wordRead handles the end of a word, if it matters.
func (t *RedisTurns) wordRead() {
	c := &t.commands
	switch c.command {
	case redisUnnamed:
		c.command = t.word.kind()
	case redisFamily:
		c.command = redisPlain
		if t.word.hidesReplies() {
			c.command = redisEndless
		}
	}
	t.word = 0
	if c.command == redisEndless {
		t.lose()
	}
}

// moreWords handles another word: commands that end a hold have only one.
func (t *RedisTurns) moreWords() {
	switch c := &t.commands; c.command {
	case redisExec, redisDiscard, redisUnwatch:
		c.command = redisPlain
	}
}

// sent handles the end of a command.
func (t *RedisTurns) sent() {
	c := &t.commands
	if t.owed++; t.owed == 0 {
		t.lose()
		return
	}
	switch c.command {
	case redisMulti:
		c.holds |= redisInMulti
	case redisWatch:
		c.holds |= redisWatching
	case redisExec:
		// It ends the transaction even if it fails, but only if there is one.
		if c.holds&redisInMulti != 0 {
			c.holds, t.until = 0, 0
		}
	case redisDiscard:
		if c.holds != 0 {
			c.holds, t.until = 0, t.owed
		}
	case redisUnwatch:
		if c.holds == redisWatching {
			c.holds, t.until = 0, t.owed
		}
	}
	c.command, c.phase = redisUnnamed, redisBegin
}

// FromBackend takes the next bytes that the server has sent.
func (t *RedisTurns) FromBackend(p []byte) {
	r := &t.replies
	for len(p) > 0 && t.Visible() {
		switch r.phase {
		case redisBegin:
			t.element(p[0])
			p = p[1:]
		case redisCount:
			r.line = r.line.read(&r.left, p[0])
			p = p[1:]
			switch {
			case r.line&redisBad != 0:
				t.lose()
			case r.line&redisDone != 0:
				t.numberRead()
			}
		case redisBody:
			n := int(min(uint64(r.left), uint64(len(p))))
			p = p[n:]
			if r.left -= uint32(n); r.left == 0 {
				t.replace(0)
			}
		default:
			end := bytes.IndexByte(p, '\n')
			if end < 0 {
				return
			}
			p = p[end+1:]
			t.replace(0)
		}
	}
}

// element begins with an element of this type.
func (t *RedisTurns) element(kind byte) {
	r := &t.replies
	nested := r.items > 0
	if !nested {
		r.items, r.first = 1, kind
	}
	r.kind = kind
	switch kind {
	case '+', '-', ':', '_', ',', '#', '(':
		r.phase = redisRest
	case '$', '=', '!', '*', '~', '%', '|':
		r.phase, r.left, r.line = redisCount, 0, 0
	case '>':
		if nested {
			t.lose()
		}
		r.phase, r.left, r.line = redisCount, 0, 0
	default:
		t.lose()
	}
}

// numberRead handles the length of a string, or the number of elements.
func (t *RedisTurns) numberRead() {
	r := &t.replies
	n := uint64(r.left)
	if r.line&redisNegative != 0 {
		if n != 1 || r.kind != '$' && r.kind != '*' {
			t.lose()
		}
		t.replace(0) // the null of RESP2
		return
	}
	switch r.kind {
	case '$', '=', '!':
		if n > math.MaxUint32-2 {
			t.lose()
		}
		r.left += 2
		r.phase = redisBody
	case '%':
		t.replace(2 * n)
	case '|':
		if r.first == '|' {
			t.replace(2 * n)
		} else {
			t.replace(2*n + 1) // what it describes comes behind
		}
	default:
		t.replace(n)
	}
}

// replace puts n elements in the place of the one under way, and handles the end of the reply.
func (t *RedisTurns) replace(n uint64) {
	r := &t.replies
	r.phase = redisBegin
	if n += uint64(r.items) - 1; n > math.MaxUint32 {
		t.lose()
		return
	}
	if r.items = uint32(n); n > 0 || r.first == '>' || r.first == '|' {
		return
	}
	if t.owed == 0 {
		t.lose()
		return
	}
	t.owed--
	if t.until > 0 {
		if t.until--; t.until == 0 && (r.first == '-' || r.first == '!') {
			t.commands.holds = redisInMulti // DISCARD, RESET or UNWATCH was refused
		}
	}
}

// A redisLineState is how much of a line with a number has been read.
type redisLineState uint8

const (
	redisNegative redisLineState = 1 << iota
	redisDigit                   // there is a digit
	redisReturn                  // there is the CR
	redisDone                    // the line is whole
	redisBad                     // the line has no number, or one of more than 32 bits
)

// read takes one byte of a line with a number, whose absolute value it builds in n.
func (s redisLineState) read(n *uint32, b byte) redisLineState {
	switch {
	case b >= '0' && b <= '9' && s&redisReturn == 0:
		value := uint64(*n)*10 + uint64(b-'0')
		if value > math.MaxUint32 {
			return redisBad
		}
		*n = uint32(value)
		return s | redisDigit
	case b == '-' && s == 0:
		return redisNegative
	case b == '\r' && s&(redisDigit|redisReturn) == redisDigit:
		return s | redisReturn
	case b == '\n' && s&redisReturn != 0:
		return s | redisDone
	}
	return redisBad
}
