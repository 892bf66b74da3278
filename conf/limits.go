package conf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits says what one client of a listener, and all of them together, may have. A client is a prefix of addresses. Its
// zero value is not the default.
type Limits struct {
	// at once, for one client, of TCP; 0 is no limit. For UDP there is Listener.ClientFlows
	ClientSessions int  `toml:"client_sessions" default:"0" min:"0" max:"1_000_000"`
	ClientRate     Rate `toml:"client_rate" default:""` // new sessions, flows and DNS questions of one client
	Rate           Rate `toml:"rate" default:""`        // the same of all clients

	// each direction of sessions and flows; 0 is no limit
	SessionBandwidth Bandwidth `toml:"session_bandwidth" default:"" zero:"" min:"1KiB/s" max:"1TiB/s"` // of one
	ClientBandwidth  Bandwidth `toml:"client_bandwidth" default:"" zero:"" min:"1KiB/s" max:"1TiB/s"`  // of all of a client

	ClientPrefix4 int `toml:"client_prefix_v4" default:"32" min:"1" max:"32"` // who is one client
	ClientPrefix6 int `toml:"client_prefix_v6" default:"64" min:"1" max:"128"`
	// how many clients are known at most. 0: 1,000,000, if a limit for one client needs them, and otherwise none. Not 0:
	// clients are known whether or not a limit needs them
	TrackedClients int `toml:"tracked_clients" default:"0" zero:"" min:"8192" max:"10_000_000"`

	// what becomes of clients over a limit, Listener.MaxSessions included; "": as Listener.RefuseWith
	OverLimit string `toml:"over_limit" default:"" oneof:",reset,close,drop,delay,protocol"`
	DryRun    bool   `toml:"dry_run" default:"false"` // count and log who would be refused, and refuse nobody
}

// forClients returns the keys of the limits for one client that are set.
func (l *Limits) forClients() []string {
	var keys []string
	for _, limit := range []struct {
		key string
		set bool
	}{
		{"client_sessions", l.ClientSessions > 0}, {"client_rate", l.ClientRate.On()},
		{"client_bandwidth", l.ClientBandwidth > 0},
	} {
		if limit.set {
			keys = append(keys, limit.key)
		}
	}
	return keys
}

// validateLimits reports mistakes in the table limits of the listener at path.
func validateLimits(r *report, path string, l *Listener) {
	limits, path := &l.Limits, join(path, "limits")
	if limits.ClientSessions > 0 && !l.speaks("tcp") {
		r.add(join(path, "client_sessions"), Error{Found: literal(limits.ClientSessions),
			Message: "protocol is " + quote(l.Protocol), Allowed: "needs client_flows of the listener instead"})
	}
	switch over := limits.OverLimit; {
	case over == "" || over == "drop":
	case !l.speaks("tcp"):
		r.add(join(path, "over_limit"), Error{Found: quote(over),
			Message: "protocol is " + quote(l.Protocol) + ", and datagrams over a limit are dropped",
			Allowed: `needs "drop" or ""`})
	case over == "protocol":
		validateLanguage(r, join(path, "over_limit"), l, "in the listener")
	}
}

// warnOfLimits reports keys of the table limits that change nothing, or not what they seem to.
func warnOfLimits(r *report, l *Listener) {
	limits, path := &l.Limits, Path("listener", l.Name, "limits")
	keys := limits.forClients()
	for _, key := range keys {
		if l.isOnlyUnix() {
			r.add(join(path, key), Error{Message: "clients of a Unix socket have no address, by which one could be told from " +
				"another: this key changes nothing"})
		}
	}
	if b := limits.SessionBandwidth; limits.ClientBandwidth > 0 && b >= limits.ClientBandwidth {
		r.add(join(path, "session_bandwidth"), Error{Found: quote(b.String()), Message: fmt.Sprintf(
			"client_bandwidth, %v, is not above it: this key changes nothing", limits.ClientBandwidth)})
	}
	if len(keys) == 0 && limits.TrackedClients == 0 {
		for _, k := range []struct {
			key       string
			value, by int
		}{{"client_prefix_v4", limits.ClientPrefix4, 32}, {"client_prefix_v6", limits.ClientPrefix6, 64}} {
			if k.value != k.by {
				r.add(join(path, k.key), Error{Found: literal(k.value),
					Message: "there is no limit for one client: this key changes nothing"})
			}
		}
	}
	if i := slices.IndexFunc(keys, func(key string) bool { return key != "client_bandwidth" }); i >= 0 &&
		limits.OverLimit == "delay" {
		r.add(join(path, "over_limit"), Error{Found: quote(limits.OverLimit), Message: fmt.Sprintf(
			"clients over %s are reset: the kernel's queue cannot hold one client back, and let the next one pass", keys[i])})
	}
}

// A Bandwidth is a number of bytes a second, which is written as a Size and "/s": "10MiB/s". A size or a number alone
// is refused. The zero value, "", is no limit.
type Bandwidth int64

// UnmarshalText reads a Size of at least a byte followed by "/s", or "".
func (b *Bandwidth) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*b = 0
		return nil
	}
	var size Size
	bytes, perSecond := strings.CutSuffix(string(text), "/s")
	if !perSecond || size.UnmarshalText([]byte(bytes)) != nil || size == 0 {
		return fmt.Errorf("bandwidth %s: %w", quote(string(text)), errUnit)
	}
	*b = Bandwidth(size)
	return nil
}

// String writes b exactly, in the largest unit that allows it; "" if there is no limit.
func (b Bandwidth) String() string {
	if b == 0 {
		return ""
	}
	return Size(b).String() + "/s"
}

func (Bandwidth) needs() string {
	return `needs bytes a second, such as "10MiB/s", or ""`
}

// meant returns what was probably meant by a value that is no Bandwidth; "" if that is not known.
func (Bandwidth) meant(v any) string {
	text := fmt.Sprint(v)
	if _, err := strconv.ParseUint(text, 10, 63); err == nil {
		text += "B"
	}
	var size Size
	text = strings.TrimSuffix(strings.TrimSuffix(strings.ReplaceAll(text, " ", ""), "/s"), "ps")
	if size.UnmarshalText([]byte(text)) != nil || size == 0 {
		return ""
	}
	return Bandwidth(size).String()
}
