package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// maxSimulated bounds the memory of a simulation.
const maxSimulated = 10_000_000

// simulatedSessions generates the sessions, or reads them from a log.
func simulatedSessions(c *cli.Context) ([]simulated, error) {
	if file := c.String("log"); file != "" {
		return loggedSessions(file)
	}
	n, clients, rate := c.Int("sessions"), c.Int("clients"), c.Float64("rate")
	switch {
	case n < 1 || n > maxSimulated:
		return nil, &usageError{fmt.Errorf("--sessions %d: needs 1 to %d", n, maxSimulated)}
	case clients < 1 || clients > 1<<24:
		return nil, &usageError{fmt.Errorf("--clients %d: needs 1 to %d", clients, 1<<24)}
	case !(rate > 0):
		return nil, &usageError{fmt.Errorf("--rate %v: needs a number above 0", rate)}
	}
	text, fixed := strings.CutPrefix(c.String("lifetime"), "fixed ")
	mean, err := time.ParseDuration(text)
	if err != nil || mean < 0 {
		return nil, &usageError{fmt.Errorf("--lifetime %q: needs a time such as \"1s\", or \"fixed 1s\"",
			c.String("lifetime"))}
	}
	r := rand.New(rand.NewPCG(c.Uint64("seed"), 0))
	sessions := make([]simulated, n)
	var now time.Duration
	for i := range sessions {
		now += time.Duration(r.ExpFloat64() / rate * float64(time.Second))
		client := r.IntN(clients)
		addr := netip.AddrFrom4([4]byte{10, byte(client >> 16), byte(client >> 8), byte(client)})
		lifetime := mean
		if !fixed {
			lifetime = time.Duration(r.ExpFloat64() * float64(mean))
		}
		sessions[i] = simulated{at: now, client: netip.AddrPortFrom(addr, uint16(1024+r.IntN(60_000))),
			lifetime: lifetime}
	}
	return sessions, nil
}

// loggedSessions reads the sessions of an access log, and ignores other lines.
func loggedSessions(file string) ([]simulated, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var sessions []simulated
	var ends []time.Time
	lines := bufio.NewScanner(f)
	for number := 1; lines.Scan(); number++ {
		var line struct {
			Message  string
			Time     time.Time
			Client   netip.AddrPort
			Duration float64
		}
		err := json.Unmarshal(lines.Bytes(), &line)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s:%d: not a line of this program's JSON log", file, number)
		case line.Message != "session ended" || !line.Client.IsValid():
			continue
		case len(sessions) == maxSimulated:
			return nil, fmt.Errorf("%s:%d: more than %d sessions", file, number, maxSimulated)
		}
		sessions = append(sessions,
			simulated{client: line.Client, lifetime: time.Duration(line.Duration * float64(time.Second))})
		ends = append(ends, line.Time)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(sessions) == 0 {
		return nil, fmt.Errorf("%s: no line says \"session ended\": is log.access on?", file)
	}
	for i := range sessions {
		sessions[i].at = ends[i].Sub(ends[0]) - sessions[i].lifetime
	}
	slices.SortStableFunc(sessions, func(a, b simulated) int { return int(a.at - b.at) })
	first := sessions[0].at
	for i := range sessions {
		sessions[i].at -= first
	}
	return sessions, nil
}
