package test

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestUDPFlowKey holds for each flow_key which datagrams belong to one flow, as the backends see them.
func TestUDPFlowKey(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, key string) *harness.Balancer {
		return world{
			Backends: udpNamed(t, 3), Pool: []string{`algorithm = "round_robin"`},
			Listener: []string{fmt.Sprintf("flow_key = %q", key)},
		}.startUDP(t)
	}
	t.Run("client", func(t *testing.T) {
		b := start(t, "client")
		shares := map[string]int{}
		for range 6 {
			c := harness.DialUDP(t, b.Address(t, "main"))
			first := ask(t, c, "?")
			shares[first]++
			for range 10 {
				if name := ask(t, c, "?"); name != first {
					t.Errorf("%s answers where %s did", name, first)
				}
			}
		}
		if fmt.Sprint(shares) != "map[b1:2 b2:2 b3:2]" {
			t.Errorf("clients by backend: %v", shares)
		}
	})
	t.Run("client_ip", func(t *testing.T) {
		b := start(t, "client_ip")
		shares := map[string]int{}
		for i := range 6 {
			from := fmt.Sprintf("127.0.3.%d", 1+i)
			first := ask(t, harness.DialUDPFrom(t, from, b.Address(t, "main")), "?")
			shares[first]++
			for range 10 {
				if name := ask(t, harness.DialUDPFrom(t, from, b.Address(t, "main")), "?"); name != first {
					t.Errorf("%s answers another socket of %s than %s, which did the first", name, from, first)
				}
			}
		}
		if fmt.Sprint(shares) != "map[b1:2 b2:2 b3:2]" {
			t.Errorf("addresses by backend: %v", shares)
		}
	})
	t.Run("packet", func(t *testing.T) {
		b := start(t, "packet")
		c := harness.DialUDP(t, b.Address(t, "main"))
		shares := map[string]int{}
		for range 30 {
			shares[ask(t, c, "?")]++
		}
		if fmt.Sprint(shares) != "map[b1:10 b2:10 b3:10]" {
			t.Errorf("datagrams by backend: %v", shares)
		}
		if l := udpFigures(t, b); l.Sessions != 3 || l.Accepted != 3 {
			t.Errorf("a client of three backends has %d flows, and had %d", l.Sessions, l.Accepted)
		}
	})
}

// TestUDPShares has clients of three backends of weights 1, 2 and 3: shares follow the weights, and clients keep their
// backend.
func TestUDPShares(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		algorithm string
		leeway    float64 // of within; 0 = exact
	}{
		{"round_robin", 0}, {"least_conn", 0}, {"random", 1}, {"p2c", 1},
	} {
		t.Run(tc.algorithm, func(t *testing.T) {
			const clients = 300
			b := world{
				Backends: udpNamed(t, 3), Keys: []string{"weight = 1", "weight = 2", "weight = 3"},
				Pool: []string{fmt.Sprintf("algorithm = %q", tc.algorithm)},
			}.startUDP(t)
			got := map[string]int{}
			for range clients {
				got[askOnce(t, b, "?")]++
			}
			if tc.leeway == 0 && fmt.Sprint(got) != "map[b1:50 b2:100 b3:150]" {
				t.Errorf("clients by backend: %v", got)
			}
			if err := within(got, clients, max(tc.leeway, 1), 1, 2, 3); err != nil {
				t.Error(err)
			}
		})
	}
	for _, algorithm := range []string{"client_hash", "ring_hash", "maglev"} {
		t.Run(algorithm, func(t *testing.T) {
			b := world{Backends: udpNamed(t, 3), Pool: []string{fmt.Sprintf("algorithm = %q", algorithm)}}.startUDP(t)
			got := map[string]int{}
			for i := range 60 {
				from := fmt.Sprintf("127.0.4.%d", 1+i)
				first := ask(t, harness.DialUDPFrom(t, from, b.Address(t, "main")), "?")
				second := ask(t, harness.DialUDPFrom(t, from, b.Address(t, "main")), "?")
				if first != second {
					t.Errorf("%s got %s, and then %s", from, first, second)
				}
				got[first]++
			}
			if len(got) != 3 {
				t.Errorf("addresses by backend: %v", got)
			}
		})
	}
}

// TestUDPAccessLine checks each field of a flow's access line, and the live flow before.
func TestUDPAccessLine(t *testing.T) {
	t.Parallel()
	backend := harness.ServeUDP(t, harness.EchoDatagrams)
	b := world{Backends: []string{backend.Address()}}.startUDP(t)
	c := harness.DialUDP(t, b.Address(t, "main"))
	for _, message := range []string{"one", "", "three"} {
		ask(t, c, message)
	}

	var list struct {
		Sessions []struct {
			ID, Listener, Client, Pool, Backend string
			Address                             string `json:"backend_address"`
			BytesIn                             uint64 `json:"bytes_in"`
			BytesOut                            uint64 `json:"bytes_out"`
		}
		Total int
	}
	b.Ask(t, "GET", "/v1/sessions", nil, &list)
	if list.Total != 1 || len(list.Sessions) != 1 {
		t.Fatalf("one flow is listed as %+v", list)
	}
	f := list.Sessions[0]
	if f.ID == "" || f.Listener != "main" || f.Client != c.LocalAddr().String() || f.Pool != "all" ||
		f.Backend != "b1" ||
		f.Address != backend.Address() || f.BytesIn != 8 || f.BytesOut != 8 {
		t.Errorf("the flow is %+v", f)
	}
	b.Ask(t, "DELETE", "/v1/sessions/"+f.ID, nil, nil)

	line := b.WaitFlow(t, c.LocalAddr())
	if line.Flow != f.ID || line.Listener != "main" || line.Pool != "all" || line.Backend != "b1" ||
		line.BackendAddress != backend.Address() ||
		line.BytesIn != 8 || line.BytesOut != 8 || line.DatagramsIn != 3 || line.DatagramsOut != 3 ||
		line.Retries != 0 ||
		line.Reason != "ended_by_operator" || line.Level != "info" || line.Has("err") {
		t.Errorf("%s", line.Text)
	}
	if !line.Has("first_byte_time") || line.FirstByteTime < 0 || line.Duration < line.FirstByteTime {
		t.Errorf("times: %s", line.Text)
	}
	ask(t, c, "four") // from the same socket: another flow
	if got := len(backend.Sources()); got != 2 {
		t.Errorf("the backend has seen %d flows, expected 2", got)
	}
}

// TestUDPFlowEnds ends flows by time and by answers.
func TestUDPFlowEnds(t *testing.T) {
	t.Parallel()
	t.Run("flow_timeout", func(t *testing.T) {
		t.Parallel()
		b := world{Backends: udpNamed(t, 2), Pool: []string{`algorithm = "round_robin"`},
			Listener: []string{`flow_timeout = "300ms"`}}.startUDP(t)
		c := harness.DialUDP(t, b.Address(t, "main"))
		first := ask(t, c, "?")
		line := b.WaitFlow(t, c.LocalAddr())
		if line.Reason != "idle" || line.Duration < 0.3 || line.Backend != first {
			t.Errorf("%s", line.Text)
		}
		if second := ask(t, c, "?"); second == first {
			t.Errorf("a client whose flow was forgotten got the same backend again in turn, %s", second)
		}
	})
	t.Run("responses", func(t *testing.T) {
		t.Parallel()
		b := world{Backends: udpNamed(t, 2), Pool: []string{`algorithm = "round_robin"`},
			Listener: []string{`responses = 1`}}.startUDP(t)
		c := harness.DialUDP(t, b.Address(t, "main"))
		var got []string
		for range 4 {
			got = append(got, ask(t, c, "?"))
			awaitFlows(t, b, 0) // it has ended with its answer
		}
		if slices.Equal(got[:2], []string{got[0], got[0]}) || got[0] != got[2] || got[1] != got[3] {
			t.Errorf("answers of %v, expected turns", got)
		}
		if line := b.WaitFlow(t, c.LocalAddr()); line.Reason != "answered" || line.DatagramsOut != 1 {
			t.Errorf("%s", line.Text)
		}
	})
}

// TestUDPLimits has more clients than max_flows: their datagrams are dropped and counted, the others are served, and
// they are too once there is room.
func TestUDPLimits(t *testing.T) {
	t.Parallel()
	backend := harness.ServeUDP(t, harness.EchoDatagrams)
	t.Run("max_flows", func(t *testing.T) {
		b := world{Backends: []string{backend.Address()}, Listener: []string{"max_flows = 2"}}.startUDP(t)
		one, two, three := harness.DialUDP(t, b.Address(t, "main")), harness.DialUDP(t, b.Address(t, "main")),
			harness.DialUDP(t, b.Address(t, "main"))
		ask(t, one, "1")
		ask(t, two, "2")
		for i := range 3 {
			check(t, harness.SendAll(three, "lost"))
			awaitDrops(t, b, "table_full", uint64(i+1))
		}
		ask(t, one, "1")
		ask(t, two, "2")
		b.Ask(t, "DELETE", "/v1/sessions?client="+one.LocalAddr().(*net.UDPAddr).IP.String(), nil, nil)
		awaitFlows(t, b, 0)
		if got := ask(t, three, "now"); got != "now" {
			t.Errorf("answer %q", got)
		}
	})
	t.Run("client_flows", func(t *testing.T) {
		b := world{Backends: []string{backend.Address()}, Listener: []string{"client_flows = 2"}}.startUDP(t)
		address := b.Address(t, "main")
		for i := range 2 {
			ask(t, harness.DialUDPFrom(t, "127.0.0.5", address), fmt.Sprint(i))
		}
		third := harness.DialUDPFrom(t, "127.0.0.5", address)
		check(t, harness.SendAll(third, "lost"))
		awaitDrops(t, b, "client_limit", 1)
		for i := range 2 {
			ask(t, harness.DialUDPFrom(t, fmt.Sprintf("127.0.0.%d", 6+i), address), "another client")
		}
		if drops := udpFigures(t, b).drops(); drops["client_limit"] != 1 || len(drops) != 1 {
			t.Errorf("dropped are %v", drops)
		}
	})
}
