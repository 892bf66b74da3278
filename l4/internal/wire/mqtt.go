package wire

// MaxMQTTClientID bounds where the client identifier of a CONNECT ends, in bytes from its beginning. An identifier may
// have 64 KiB, and properties may stand before it, but brokers expect far less. A will, a user name and a password come
// behind the identifier.
const MaxMQTTClientID = 16 << 10

// The parts of a CONNECT that come before the client identifier (MQTT 3.1, 3.1; MQTT 3.1.1, 3.1; MQTT 5.0, 3.1).
const (
	mqttConnect      = 0x10 // packet type 1, no flags
	mqttMaxVarint    = 4    // bytes of a variable byte integer
	mqttFixedBytes   = 4    // protocol level, connect flags, keep alive
	mqttLengthBytes  = 2    // of the client identifier
	mqttName         = "\x00\x04MQTT"
	mqttNameOf31     = "\x00\x06MQIsdp"
	mqttBridge       = 0x80 // brokers set this bit of the level when they connect to another broker as a bridge
	mqttLevel31      = 3
	mqttLevel311     = 4
	mqttLevel5       = 5
	minMQTTConnect   = 2 + minMQTTRemaining
	minMQTTRemaining = len(mqttName) + mqttFixedBytes + mqttLengthBytes
)

// MQTTClientID reads the client identifier in the CONNECT that an MQTT client sends first, from the bytes received so
// far. It is empty if the client leaves it to the broker.
//
// If the bytes are correct but the identifier is incomplete, need is greater than len(b) and ok is true: no CONNECT has
// its identifier complete in fewer than need bytes. need is at most MaxMQTTClientID. If the identifier is complete,
// need is 0; bytes behind it are not looked at. ok is false, as early as the bytes show it, if they are no CONNECT of
// MQTT 3.1, 3.1.1 or 5.0, or if the identifier ends behind MaxMQTTClientID.
//
// Any goroutine may call MQTTClientID. It does not allocate; id is a part of b.
func MQTTClientID(b []byte) (id []byte, need int, ok bool) {
	if len(b) == 0 {
		return nil, minMQTTConnect, true
	}
	if b[0] != mqttConnect {
		return nil, 0, false
	}
	remaining, size, ok := mqttVarint(b[1:])
	switch {
	case !ok:
		return nil, 0, false
	case size == 0:
		return nil, minMQTTConnect, true
	case remaining < minMQTTRemaining:
		return nil, 0, false
	}
	r := mqttReader{b: b, at: 1 + size, end: min(1+size+remaining, MaxMQTTClientID)}
	return r.clientID()
}

// An mqttReader reads the bytes of a CONNECT before its client identifier, and the identifier.
type mqttReader struct {
	b   []byte // received so far
	at  int    // what is read next
	end int    // the identifier ends here at the latest
}

// clientID is MQTTClientID, behind the fixed header.
func (r *mqttReader) clientID() (id []byte, need int, ok bool) {
	level5, ok := r.protocol()
	if !ok {
		return nil, 0, false
	}
	if level5 {
		if r.at > len(r.b) {
			return r.wait(r.at + 1 + mqttLengthBytes)
		}
		properties, size, ok := mqttVarint(r.b[r.at:])
		switch {
		case !ok:
			return nil, 0, false
		case size == 0:
			return r.wait(len(r.b) + 1 + mqttLengthBytes)
		}
		r.at += size + properties
	}
	if r.at+mqttLengthBytes > len(r.b) {
		return r.wait(r.at + mqttLengthBytes)
	}
	from := r.at + mqttLengthBytes
	to := from + int(r.b[r.at])<<8 + int(r.b[r.at+1])
	switch {
	case to > r.end:
		return nil, 0, false
	case to > len(r.b):
		return nil, to, true
	}
	return r.b[from:to], 0, true
}

// protocol reads the protocol's name, its level, the connect flags and the keep alive, as far as they are there. It
// reports false if they are not those of MQTT.
func (r *mqttReader) protocol() (level5, ok bool) {
	received := r.b[min(r.at, len(r.b)):]
	name := mqttName
	if len(received) > 1 && received[1] == mqttNameOf31[1] {
		name = mqttNameOf31
	}
	there := min(len(received), len(name))
	if string(received[:there]) != name[:there] {
		return false, false
	}
	r.at += len(name) + mqttFixedBytes
	if len(received) <= len(name) {
		return false, true
	}
	switch level := received[len(name)] &^ mqttBridge; {
	case name == mqttNameOf31:
		return false, level == mqttLevel31
	default:
		return level == mqttLevel5, level == mqttLevel311 || level == mqttLevel5
	}
}

// wait asks for so many bytes, if the CONNECT may have them before its client identifier ends.
func (r *mqttReader) wait(need int) ([]byte, int, bool) {
	if need > r.end {
		return nil, 0, false
	}
	return nil, need, true
}

// mqttVarint reads a variable byte integer (MQTT 5.0, 1.5.5). size is 0 if it is incomplete.
func mqttVarint(b []byte) (value, size int, ok bool) {
	for i, c := range b[:min(len(b), mqttMaxVarint)] {
		value |= int(c&0x7f) << (7 * i)
		if c < 0x80 {
			return value, i + 1, true
		}
	}
	return 0, 0, len(b) < mqttMaxVarint
}
