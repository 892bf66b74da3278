package l4_test

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/sock"
)

// mangled changes one value somewhere in what JSON has read.
func mangled(r *rand.Rand, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, of := range v { // in no order
			if r.IntN(3) == 0 {
				delete(v, key)
			} else {
				v[key] = mangled(r, of)
			}
			return v
		}
	case []any:
		if len(v) > 0 {
			i := r.IntN(len(v))
			v[i] = mangled(r, v[i])
		}
		return v
	case float64:
		return []any{-1, 0, 1, 1 << 62, -(1 << 62), 255, uint64(1<<64 - 1)}[r.IntN(7)]
	case bool:
		return !v
	case string:
		return []string{"", "x", "192.0.2.1:1", "AAAA", "::", "unix:/x"}[r.IntN(6)]
	}
	return v
}

// TestHandOverHostile holds that nothing in a record breaks the process that takes it over, and that what it refuses
// leaves no descriptor.
func TestHandOverHostile(t *testing.T) {
	at := backend(t, echo)
	answering := startUDP(t, echoUDP)
	specs := func() []l4.ListenerSpec {
		tcp := spec(newPool(t, at))
		tcp.Spoken, tcp.Postgres.Timeout = l4.SpokenPostgres, time.Second
		udp := flowSpec(newPool(t, answering.Address()))
		return []l4.ListenerSpec{tcp, udp}
	}
	from := start(t, l4.Options{Loops: 2}, specs()...)
	u := l4test.BeginHandOver(t, from, l4.Options{Loops: 2}, specs()...)
	var samples [][]byte
	tcp, udp := from.Listeners()[0].Address.String(), from.Listeners()[1].Address.String()
	c := dial(t, tcp)
	if _, err := c.Write([]byte("\x00\x00\x00\x08\x00\x03\x00\x00")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if askUDP(t, dialUDP(t, udp), "x") != "x" {
		t.Fatal("no answer")
	}
	u.H.Pause()
	for _, p := range []l4.Protocol{l4.TCP, l4.UDP} {
		var m []l4.Moving
		eventually(t, "it comes to rest", func() bool {
			m = u.H.Detach(p, 10)
			return len(m) > 0
		})
		text, err := json.Marshal(m[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s", text)
		samples = append(samples, text)
		u.H.Returned(m)
	}
	before := descriptors(t)
	r := rand.New(rand.NewPCG(1, 2))
	taken := 0
	for range 3000 {
		kind := r.IntN(2)
		var v any
		if err := json.Unmarshal(samples[kind], &v); err != nil {
			t.Fatal(err)
		}
		for range 1 + r.IntN(3) {
			v = mangled(r, v)
		}
		text, _ := json.Marshal(v)
		var m l4.Moving
		if json.Unmarshal(text, &m) != nil {
			continue
		}
		for range []int{0, 1, 2, 2, 2, 3}[r.IntN(6)] {
			m.FDs = append(m.FDs, someDescriptor(t, r, kind))
		}
		taking := u.To.TakeOver([]l4.Moving{m})
		taken += 1 - len(taking.Refused)
		taking.Begin()
	}
	t.Logf("%d of 3000 were taken", taken)
	if taken == 0 {
		t.Error("none was taken")
	}
	if _, err := u.To.List(t.Context(), l4.SessionFilter{}); err != nil {
		t.Error(err)
	}
	u.To.Admit()
	if _, err := u.To.End(t.Context(), l4.SessionFilter{}); err != nil {
		t.Error(err)
	}
	eventually(t, "all have ended", func() bool { return u.To.Sessions()+u.To.Flows() == 0 })
	eventually(t, "descriptors are closed", func() bool { return openDescriptors(t) <= before })
	u.To.AddCounters(l4.Counters{Listeners: []l4.ListenerCounts{{Name: "nobody"}, {Name: "test", Protocol: 7}}})
}

// someDescriptor is a descriptor that somebody may send: a connection, or something else.
func someDescriptor(t *testing.T, r *rand.Rand, kind int) int {
	t.Helper()
	what := syscall.SOCK_STREAM
	if kind == 1 {
		what = syscall.SOCK_DGRAM
	}
	switch r.IntN(8) {
	case 0:
		f, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return l4test.Sent(t, int(f.Fd()))
	case 1:
		fd, err := sock.Listen(netip.MustParseAddrPort("127.0.0.1:0"), sock.ListenOptions{Backlog: 1}, true)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	case 2:
		fd, err := syscall.Socket(syscall.AF_INET, what, 0) // not connected
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, what, 0)
	if err != nil {
		t.Fatal(err)
	}
	sock.Close(pair[1])
	return pair[0]
}
