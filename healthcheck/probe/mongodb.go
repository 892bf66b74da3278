package probe

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"math"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// MongoDB checks that a MongoDB server (4.4.2 or newer), or a router (mongos), answers the command hello and has the
// wanted role. It is a plain value; its zero value checks the target's own port without TLS, for any role. It does not
// log in, since hello needs no user.
type MongoDB struct {
	Port     uint16           // instead of the target's; 0 = the target's
	Role     healthcheck.Role // wanted; RoleUnknown = any. A server without a set and a router are primaries
	Fallback bool             // with Role RoleReplica: a primary is ErrFallback, and not ErrWrongRole
	TLS      *tls.Config      // nil = plain
}

// Check asks t for its role. Its errors wrap their cause; if the cause is on this machine, they wrap ErrInconclusive as
// well.
func (c MongoDB) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	return check(ctx, c, t)
}

// Ask does all of Check that needs the network.
func (c MongoDB) Ask(ctx context.Context, t healthcheck.Target) (any, error) {
	var answer mongoReport
	result, err := exchange(ctx, t, c.Port, c.TLS, func(conn io.ReadWriter) (r healthcheck.Result, err error) {
		answer.fields, err = c.talk(conn)
		return r, err
	})
	answer.latency = result.Latency
	return answer, err
}

// Judge judges the answer to hello.
func (c MongoDB) Judge(answer any) (healthcheck.Result, error) {
	a := answer.(mongoReport)
	result, err := c.judge(a.fields)
	if err == nil {
		result.Latency = a.latency
	}
	return result, err
}

// Join returns c, which always asks the same.
func (c MongoDB) Join(healthcheck.Checker) healthcheck.Checker { return c }

// A mongoReport is the document that a server has answered, and after what time.
type mongoReport struct {
	fields  map[string]bsonValue
	latency time.Duration
}

// opMsg is the kind of the messages of both sides (MongoDB's manual, "Wire Protocol").
const opMsg = 2013

// mongoHello returns the message {hello: 1, $db: "admin"}.
func mongoHello() []byte {
	document := append([]byte("\x10hello\x00\x01\x00\x00\x00\x02$db\x00\x06\x00\x00\x00admin\x00"), 0)
	document = append(binary.LittleEndian.AppendUint32(nil, uint32(len(document)+4)), document...)
	var b []byte
	length := uint32(16 + 4 + 1 + len(document))
	for _, n := range []uint32{length, 1, 0, opMsg, 0} { // length, number, number of the question, kind, flags
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return append(append(b, 0), document...)
}

func (c MongoDB) talk(conn io.ReadWriter) (map[string]bsonValue, error) {
	_, _ = conn.Write(mongoHello()) // if it fails, the read fails as well
	document, err := readMongo(conn)
	if err != nil {
		return nil, err
	}
	fields, ok := parseBSON(document)
	if !ok {
		return nil, unhealthyf("not a mongodb server: nonsense in the answer")
	}
	return fields, nil
}

// readMongo reads one message, and returns its document.
func readMongo(r io.Reader) ([]byte, error) {
	const head = 16 + 4 + 1 // header, flags, kind of the section
	start, err := readBytes(r, head)
	if len(start) >= 4 {
		n := binary.LittleEndian.Uint32(start)
		if n < head+5 || n > maxExchangeBytes || len(start) >= 16 && binary.LittleEndian.Uint32(start[12:]) != opMsg {
			return nil, unhealthyf("not a mongodb server: answer begins with %s", quoted(start))
		}
	}
	if err != nil {
		return nil, err
	}
	return readBytes(r, int(binary.LittleEndian.Uint32(start))-head)
}

// judge returns what hello says, or what is wrong with it.
func (c MongoDB) judge(fields map[string]bsonValue) (healthcheck.Result, error) {
	result := healthcheck.Result{}
	switch {
	case fields["ok"].number() != 1:
		return result, unhealthyf("answered with an error: %s", escaped(fields["errmsg"].text()))
	case fields["arbiterOnly"].truth():
		return result, unhealthyf("is an arbiter, which has no data")
	case fields["isWritablePrimary"].truth():
		result.Role = healthcheck.RolePrimary
		// The term of the election, which a later one exceeds.
		if id := fields["electionId"]; id.kind == bsonObjectID {
			result.Epoch = binary.BigEndian.Uint64(id.raw[4:])
		}
	case fields["secondary"].truth():
		result.Role = healthcheck.RoleReplica
	default:
		return result, unhealthyf("neither primary nor secondary: it starts, recovers, or was removed from its set")
	}
	if err := cmp.Or(judgeRole(result.Role, c.Role, c.Fallback), fallsBack(result.Role, c.Role, c.Fallback)); err != nil {
		return result, err
	}
	result.Detail = result.Role.String()
	switch set := fields["setName"].text(); {
	case set != "":
		result.Detail += " of the set " + quoted([]byte(set))
	case fields["msg"].text() == "isdbgrid":
		result.Detail = "router"
	}
	return result, nil
}

// The kinds of values in BSON (bsonspec.org).
const (
	bsonDouble   = 0x01
	bsonText     = 0x02
	bsonObjectID = 0x07
	bsonBool     = 0x08
	bsonInt32    = 0x10
	bsonInt64    = 0x12
)

// A bsonValue is a value of a document; the zero value is none.
type bsonValue struct {
	kind byte
	raw  []byte // of the length that its kind has
}

func (v bsonValue) truth() bool { return v.kind == bsonBool && v.raw[0] == 1 }

func (v bsonValue) text() string {
	if v.kind != bsonText {
		return ""
	}
	return string(bytes.TrimSuffix(v.raw[4:], []byte{0}))
}

func (v bsonValue) number() float64 {
	switch v.kind {
	case bsonDouble:
		return math.Float64frombits(binary.LittleEndian.Uint64(v.raw))
	case bsonInt32:
		return float64(int32(binary.LittleEndian.Uint32(v.raw)))
	case bsonInt64:
		return float64(int64(binary.LittleEndian.Uint64(v.raw)))
	}
	return 0
}

// parseBSON returns the fields of a document. It does not look into documents and lists within it.
func parseBSON(b []byte) (fields map[string]bsonValue, ok bool) {
	if len(b) < 5 || uint64(binary.LittleEndian.Uint32(b)) != uint64(len(b)) {
		return nil, false
	}
	fields = make(map[string]bsonValue)
	for b = b[4:]; len(b) > 0; {
		kind := b[0]
		if kind == 0 {
			return fields, len(b) == 1
		}
		name, rest, found := bytes.Cut(b[1:], []byte{0})
		n := bsonLength(kind, rest)
		if !found || n < 0 || n > len(rest) {
			return nil, false
		}
		fields[string(name)] = bsonValue{kind, rest[:n:n]}
		b = rest[n:]
	}
	return nil, false
}

// bsonLength returns the length of a value at the start of b; -1 if that is not known. It may be more than b has.
func bsonLength(kind byte, b []byte) int {
	switch kind {
	case 0x0a, 0x06, 0xff, 0x7f: // null, undefined, the least and the greatest key
		return 0
	case bsonBool:
		return 1
	case bsonInt32:
		return 4
	case bsonDouble, 0x09, 0x11, bsonInt64: // date, timestamp
		return 8
	case bsonObjectID:
		return 12
	case 0x13: // decimal
		return 16
	}
	if len(b) < 4 {
		return -1
	}
	switch n := int(binary.LittleEndian.Uint32(b)); kind {
	case bsonText:
		return 4 + n
	case 0x03, 0x04: // a document, a list: the length includes itself
		if n >= 5 {
			return n
		}
	case 0x05: // bytes
		return 5 + n
	}
	return -1
}
