package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

const (
	meterTick   = 10 * time.Millisecond // bytes are counted in parts of that length
	meterWindow = 10                    // parts; a tenth of a second
)

// The first byte of a connection to a backend of trafficMeter says what it is for.
const (
	meterAsk    = 'A' // one byte is answered with one
	meterIn     = 'I' // the client sends without end
	meterOut    = 'O' // the backend does
	meterReport = 'R' // and two times: the backend answers with a streamResult of what it received between them
)

// A meter counts the bytes of one stream by the time at which they were received. It belongs to one goroutine; see
// newMeter.
type meter struct {
	first int64    // number of the first part, since 1970
	parts []uint32 // bytes
}

func newMeter(now time.Time) *meter {
	return &meter{first: meterPart(now), parts: make([]uint32, 0, 4096)} // 40 s; seldom grows
}

func meterPart(t time.Time) int64 { return t.UnixNano() / int64(meterTick) }

// count counts n bytes.
func (m *meter) count(now time.Time, n int) {
	at := int(max(meterPart(now)-m.first, 0))
	for len(m.parts) <= at {
		m.parts = append(m.parts, 0)
	}
	m.parts[at] += uint32(n)
}

// at returns the bytes of a part.
func (m *meter) at(part int64) int64 {
	if i := part - m.first; i >= 0 && i < int64(len(m.parts)) {
		return int64(m.parts[i])
	}
	return 0
}

// A streamResult is how many bytes streams had in some time, and how steadily.
type streamResult struct {
	Elapsed     time.Duration `json:"elapsed_ns"`
	Bytes       int64         `json:"bytes"`
	Least       int64         `json:"least_bytes"`        // of one stream
	Most        int64         `json:"most_bytes"`         // the same
	Burst       int64         `json:"burst_bytes"`        // the most that one stream had in a tenth of a second
	BurstOfAll  int64         `json:"burst_of_all_bytes"` // and all together
	SilentParts int           `json:"silent_parts"`       // of 10 ms, in which no stream had any
}

// measureStreams returns the result of all streams in the whole parts between two times.
func measureStreams(ms []*meter, from, to time.Time) streamResult {
	first, end := meterPart(from)+1, meterPart(to)
	r := streamResult{Elapsed: time.Duration(max(end-first, 0)) * meterTick}
	all := make([]int64, max(end-first, 0))
	for i, m := range ms {
		parts := make([]int64, len(all))
		var sum int64
		for k := range parts {
			parts[k] = m.at(first + int64(k))
			all[k] += parts[k]
			sum += parts[k]
		}
		r.Bytes += sum
		r.Most = max(r.Most, sum)
		if i == 0 || sum < r.Least {
			r.Least = sum
		}
		r.Burst = max(r.Burst, largestWindow(parts))
	}
	r.BurstOfAll = largestWindow(all)
	for _, n := range all {
		if n == 0 {
			r.SilentParts++
		}
	}
	return r
}

// largestWindow returns the largest sum of a tenth of a second.
func largestWindow(parts []int64) int64 {
	var sum, largest int64
	for i, n := range parts {
		if sum += n; i >= meterWindow {
			sum -= parts[i-meterWindow]
		}
		largest = max(largest, sum)
	}
	return largest
}

// askMeter sends one byte to addr and waits for its answer.
func askMeter(ctx context.Context, addr netip.AddrPort) error {
	var b [1]byte
	err := withMeter(ctx, addr, []byte{meterAsk}, func(r io.Reader) error {
		_, err := io.ReadFull(r, b[:])
		return err
	})
	if err == nil && b[0] != meterAsk {
		err = fmt.Errorf("answer %q", b)
	}
	return err
}

// reportMeter asks a backend what its open streams have received between two times.
func reportMeter(ctx context.Context, addr netip.AddrPort, from, to time.Time) (streamResult, error) {
	var r streamResult
	request := binary.BigEndian.AppendUint64([]byte{meterReport}, uint64(from.UnixNano()))
	request = binary.BigEndian.AppendUint64(request, uint64(to.UnixNano()))
	err := withMeter(ctx, addr, request, func(answer io.Reader) error { return json.NewDecoder(answer).Decode(&r) })
	return r, err
}

// withMeter connects, sends a request, and reads its answer.
func withMeter(ctx context.Context, addr netip.AddrPort, request []byte, read func(io.Reader) error) error {
	conn, err := connect(ctx, new(net.Dialer), addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(request); err != nil {
		return err
	}
	return read(conn)
}
