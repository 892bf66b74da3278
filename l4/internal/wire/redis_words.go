package wire

import "math"

// A redisName is a word of up to 12 letters, without regard to case, in five bits each; otherwise redisOther.
type redisName uint64

const (
	redisOther       redisName = math.MaxUint64
	maxRedisName               = len("PUNSUBSCRIBE")
	redisLetterBits            = 5
	redisLetterMask            = 1<<redisLetterBits - 1
	redisNameIsWhole           = 1 << ((maxRedisName - 1) * redisLetterBits) // from here on a word has all letters
)

// with returns the word with another character.
func (w redisName) with(b byte) redisName {
	upper := b &^ ('a' - 'A')
	if upper < 'A' || upper > 'Z' || w >= redisNameIsWhole {
		return redisOther
	}
	return w<<redisLetterBits | redisName(upper-'A'+1)
}

// letters writes the word to the end of b, and returns it.
func (w redisName) letters(b *[maxRedisName]byte) []byte {
	if w == redisOther {
		return nil
	}
	at := len(b)
	for ; w > 0; w >>= redisLetterBits {
		at--
		b[at] = 'A' - 1 + byte(w&redisLetterMask)
	}
	return b[at:]
}

// kind returns what a command of this name means.
func (w redisName) kind() redisKind {
	var b [maxRedisName]byte
	switch string(w.letters(&b)) {
	case "MULTI":
		return redisMulti
	case "EXEC":
		return redisExec
	case "DISCARD", "RESET":
		return redisDiscard
	case "WATCH":
		return redisWatch
	case "UNWATCH":
		return redisUnwatch
	case "CLIENT", "SCRIPT":
		return redisFamily
	case "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE", "MONITOR",
		"SYNC", "PSYNC", "REPLCONF":
		return redisEndless
	}
	return redisPlain
}

// hidesReplies reports whether the word behind CLIENT or SCRIPT makes the number of replies unknown.
func (w redisName) hidesReplies() bool {
	var b [maxRedisName]byte
	word := string(w.letters(&b))
	return word == "REPLY" || word == "DEBUG"
}
