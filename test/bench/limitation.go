package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A limitation is what a listener allows its clients, in the terms of limeload-l4. The zero value sets no limit.
type limitation struct {
	ClientRate     rateLimit // new sessions, flows or questions of one client
	Rate           rateLimit // the same of all clients
	ClientSessions int       // at once, of one client; 0 = without a limit

	SessionBandwidth int64 // bytes a second, each direction, of one session; 0 = without a limit
	ClientBandwidth  int64 // the same of all sessions of one client

	Prefix int    // how long a client's prefix is; 0 = 32
	Over   string // over_limit; "" = its default
	Denied int    // prefixes in the list of who is denied; the bench's clients are in none of them
}

// A rateLimit is how many may come. The zero value is no limit.
type rateLimit struct{ PerSecond, Burst int }

func (r rateLimit) String() string { return fmt.Sprintf("%d/s burst %d", r.PerSecond, r.Burst) }

// limeloadLimits returns the tables of a listener's limits.
func limeloadLimits(listener string, s setup) string {
	l := s.limits
	if l == (limitation{}) {
		return ""
	}
	var b strings.Builder
	if s.denied != "" {
		fmt.Fprintf(&b, "[listener.%s.access]\ndeny_file = \"%s\"\n\n", listener, s.denied)
	}
	fmt.Fprintf(&b, "[listener.%s.limits]\n", listener)
	if l.ClientRate.PerSecond > 0 {
		fmt.Fprintf(&b, "client_rate = \"%s\"\n", l.ClientRate)
	}
	if l.Rate.PerSecond > 0 {
		fmt.Fprintf(&b, "rate = \"%s\"\n", l.Rate)
	}
	if l.ClientSessions > 0 {
		fmt.Fprintf(&b, "client_sessions = %d\n", l.ClientSessions)
	}
	if l.SessionBandwidth > 0 {
		fmt.Fprintf(&b, "session_bandwidth = \"%dMiB/s\"\n", l.SessionBandwidth>>20)
	}
	if l.ClientBandwidth > 0 {
		fmt.Fprintf(&b, "client_bandwidth = \"%dMiB/s\"\n", l.ClientBandwidth>>20)
	}
	if l.Prefix > 0 {
		fmt.Fprintf(&b, "client_prefix_v4 = %d\n", l.Prefix)
	}
	if l.Over != "" {
		fmt.Fprintf(&b, "over_limit = \"%s\"\n", l.Over)
	}
	fmt.Fprintln(&b)
	return b.String()
}

// haproxyLimits returns what HAProxy has that is closest.
//   - A client's rate: a stick table counts its connections of the last second, refused ones too. So a client that
//     keeps coming faster is refused altogether, where a token bucket still admits as many as the rate allows.
//   - A client's sessions: a stick table counts them, and the one that is looked at is among them.
//   - The rate of all clients: rate-limit sessions leaves who is over it in the kernel's queue.
func haproxyLimits(l limitation) string {
	text, refusal := "", "reject"
	if l.Over == "drop" {
		refusal = "silent-drop"
	}
	if l.ClientRate.PerSecond > 0 {
		text += fmt.Sprintf(`    stick-table type ip size 1m expire 10s store conn_rate(1s)
    tcp-request connection track-sc0 src
    tcp-request connection %s if { sc0_conn_rate gt %d }
`, refusal, l.ClientRate.Burst)
	}
	if l.ClientSessions > 0 {
		text += fmt.Sprintf(`    stick-table type ip size 1m expire 1h store conn_cur
    tcp-request connection track-sc0 src
    tcp-request connection %s if { sc0_conn_cur gt %d }
`, refusal, l.ClientSessions)
	}
	if l.Rate.PerSecond > 0 && l.Over == "delay" {
		text += fmt.Sprintf("    rate-limit sessions %d\n", l.Rate.PerSecond)
	}
	return text
}

// nginxZone returns the directives outside of the server that a listener's limits need. A client is an address, or all
// addresses with the same first two bytes.
func nginxZone(l limitation) string {
	if l.ClientRate.PerSecond == 0 && l.ClientSessions == 0 {
		return ""
	}
	client, mapped := "$binary_remote_addr", ""
	if l.Prefix == 16 {
		client = "$client"
		mapped = "    map $remote_addr $client {\n        ~^(?<network>\\d+\\.\\d+)\\. $network;\n    }\n"
	}
	return mapped + fmt.Sprintf("    limit_conn_zone %s zone=clients:10m;\n    limit_conn_log_level info;\n", client)
}

// nginxLimits returns the directives of a server. nginx stream cannot limit a rate: it has as many sessions of one
// client at once as elsewhere may come at once.
func nginxLimits(l limitation) string {
	text := ""
	switch {
	case l.ClientSessions > 0:
		text += fmt.Sprintf("        limit_conn clients %d;\n", l.ClientSessions)
	case l.ClientRate.PerSecond > 0:
		text += fmt.Sprintf("        limit_conn clients %d;\n", l.ClientRate.Burst)
	}
	if l.SessionBandwidth > 0 {
		text += fmt.Sprintf("        proxy_upload_rate %d;\n        proxy_download_rate %d;\n", l.SessionBandwidth,
			l.SessionBandwidth)
	}
	return text
}

// dnsdistLimits returns a rule that drops the questions of a client that is over its rate.
func dnsdistLimits(l limitation) string {
	if l.ClientRate.PerSecond == 0 {
		return ""
	}
	prefix := 32
	if l.Prefix > 0 {
		prefix = l.Prefix
	}
	return fmt.Sprintf("addAction(MaxQPSIPRule(%d, %d, 64, %d), DropAction())\n", l.ClientRate.PerSecond, prefix,
		l.ClientRate.Burst)
}

// writeDenied writes a list of n prefixes into dir and returns the file. They are of the lengths 20 to 32 and lie
// outside of 127.0.0.0/8.
func writeDenied(dir string, n int) (name string, err error) {
	name = filepath.Join(dir, fmt.Sprintf("denied-%d", n))
	if _, err := os.Stat(name); err == nil {
		return name, nil // of an earlier round
	}
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	for i := range n {
		bits := 20 + i%13 // so those that begin alike have different lengths
		a := uint32(128<<24) + uint32(i)<<10
		a &= ^uint32(0) << (32 - bits)
		fmt.Fprintf(w, "%d.%d.%d.%d/%d\n", byte(a>>24), byte(a>>16), byte(a>>8), byte(a), bits)
	}
	return name, w.Flush()
}
