package wire

import (
	"bytes"
	"strings"
	"testing"
)

// connectOf returns a CONNECT with this protocol name and level, properties (of MQTT 5.0 only) and client id, and what
// comes behind.
func connectOf(name string, level byte, properties, id, behind string) []byte {
	body := string([]byte{0, byte(len(name))}) + name + string([]byte{level, 0x02, 0, 60})
	if level&^mqttBridge == mqttLevel5 {
		body += string(varint(len(properties))) + properties
	}
	body += string([]byte{byte(len(id) >> 8), byte(len(id))}) + id + behind
	return append(append([]byte{mqttConnect}, varint(len(body))...), body...)
}

// varint returns a variable byte integer.
func varint(n int) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// connects are CONNECTs of all versions by the client identifier that they have.
var connects = []struct {
	id      string
	connect []byte
}{
	{"sensor-1", connectOf("MQIsdp", 3, "", "sensor-1", "")},
	{"sensor-2", connectOf("MQTT", 4, "", "sensor-2", "\x00\x04user\x00\x06secret")},
	{"sensor-3", connectOf("MQTT", 5, "", "sensor-3", "")},
	{"sensor-4", connectOf("MQTT", 5, "\x11\x00\x00\x00\x0a", "sensor-4", "")},
	{"sensor-5", connectOf("MQTT", 5, strings.Repeat("\x26\x00\x01a\x00\x01b", 500), "sensor-5", "")},
	{"", connectOf("MQTT", 4, "", "", "")},
	{"", connectOf("MQTT", 5, "", "", "")},
	{"bridge", connectOf("MQIsdp", 3|mqttBridge, "", "bridge", "")},
	{"bridge", connectOf("MQTT", 4|mqttBridge, "", "bridge", "")},
	{strings.Repeat("x", 9000), connectOf("MQTT", 4, "", strings.Repeat("x", 9000), "")},
	{"will", connectOf("MQTT", 4, "", "will", strings.Repeat("w", 3_000_000))}, // four bytes of length
	{"\x00\xff", connectOf("MQTT", 4, "", "\x00\xff", "")},                     // the broker's business
}

// TestMQTTClientID holds that the identifier is read from all versions, and that each beginning is waited for without a
// byte too much or too many calls.
func TestMQTTClientID(t *testing.T) {
	for _, test := range connects {
		id, need, ok := MQTTClientID(test.connect)
		if string(id) != test.id || need != 0 || !ok {
			t.Errorf("%.30q: %q, need %d, %v", test.connect, id, need, ok)
			continue
		}
		end := bytes.Index(test.connect, []byte(test.id)) + len(test.id)
		if test.id == "" {
			end = len(test.connect)
		}
		for n := range end {
			if _, need, ok := MQTTClientID(test.connect[:n]); !ok || need <= n || need > end {
				t.Fatalf("%.30q: after %d bytes of %d need %d, %v", test.connect, n, end, need, ok)
			}
		}
		calls := 0
		for n := 0; ; calls++ {
			_, need, _ := MQTTClientID(test.connect[:n])
			if need == 0 {
				break
			}
			n = need
		}
		if calls > 8 {
			t.Errorf("%.30q: %d calls", test.connect, calls)
		}
		if id, need, ok := MQTTClientID(test.connect[:end]); string(id) != test.id || need != 0 || !ok {
			t.Errorf("%.30q: %q, need %d, %v without what is behind", test.connect, id, need, ok)
		}
	}
}

// TestMQTTClientIDRefuses holds what is no CONNECT, and that the first bytes which show it are enough.
func TestMQTTClientIDRefuses(t *testing.T) {
	good := connectOf("MQTT", 4, "", "sensor", "")
	with := func(at int, b byte) []byte {
		bad := bytes.Clone(good)
		bad[at] = b
		return bad
	}
	for name, bad := range map[string][]byte{
		"HTTP":                        []byte("G"),
		"TLS":                         {0x16},
		"Postgres":                    {0},
		"another packet":              {0x30},
		"flags":                       {0x11},
		"a length of five bytes":      {0x10, 0x80, 0x80, 0x80, 0x80},
		"too short for a CONNECT":     {0x10, 11},
		"another length of the name":  with(3, 5)[:4],
		"another name":                with(4, 'X')[:5],
		"a name of 3.1 with 4 bytes":  []byte("\x10\x20\x00\x04MQI"),
		"level 6":                     with(8, 6)[:9],
		"level 3 of MQTT":             with(8, 3)[:9],
		"level 4 of MQIsdp":           connectOf("MQIsdp", 4, "", "sensor", "")[:11],
		"level 5 of MQIsdp":           connectOf("MQIsdp", 5, "", "sensor", "")[:11],
		"an id longer than the rest":  with(13, 7)[:14],
		"no room for an id":           []byte("\x10\x0c\x00\x06MQIsdp\x03"),
		"no room for properties":      []byte("\x10\x0c\x00\x04MQTT\x05"),
		"properties beyond the end":   []byte("\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x02"),
		"a bad length of properties":  []byte("\x10\x20\x00\x04MQTT\x05\x02\x00\x3c\xff\xff\xff\xff"),
		"an id beyond the limit":      connectOf("MQTT", 4, "", strings.Repeat("x", MaxMQTTClientID), "")[:30],
		"properties beyond the limit": connectOf("MQTT", 5, strings.Repeat("x", MaxMQTTClientID), "a", "")[:30],
	} {
		if id, need, ok := MQTTClientID(bad); ok || need != 0 || id != nil {
			t.Errorf("%s: %q, need %d, %v", name, id, need, ok)
		}
	}
}

// TestMQTTClientIDAllocatesNothing holds that it does not.
func TestMQTTClientIDAllocatesNothing(t *testing.T) {
	for _, test := range connects {
		if n := testing.AllocsPerRun(10, func() { MQTTClientID(test.connect) }); n != 0 {
			t.Errorf("%.30q: %v allocations", test.connect, n)
		}
	}
}

// FuzzMQTTClientID checks that what is found lies in the bytes, that need is a true lower bound, and that more bytes
// change nothing that was decided.
func FuzzMQTTClientID(f *testing.F) {
	for _, test := range connects {
		f.Add(test.connect[:min(len(test.connect), 200)], uint16(9))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		id, need, ok := MQTTClientID(b)
		switch {
		case need != 0 && (need <= len(b) || need > MaxMQTTClientID || !ok || id != nil):
			t.Fatalf("need %d of %d, %v, %q", need, len(b), ok, id)
		case !ok && id != nil:
			t.Fatalf("%q of no CONNECT", id)
		}
		prefix := b[:min(len(b), int(cut))]
		before, first, was := MQTTClientID(prefix)
		switch {
		case !was && ok:
			t.Fatalf("refused after %d bytes, and then not", len(prefix))
		case was && first == 0 && (!ok || need != 0 || !bytes.Equal(before, id)):
			t.Fatalf("%q after %d bytes, and then %q", before, len(prefix), id)
		case was && first > len(b) && ok && need == 0:
			t.Fatalf("needs %d, and has an id after %d bytes", first, len(b))
		}
	})
}
