package harness

import (
	"encoding/json"
	"fmt"
	"time"
)

// The messages of the log lines that tests wait for.
const (
	MessageListening = "listening"
	MessageReady     = "ready"
	MessageVerdict   = "verdict changed"
	MessageSession   = "session ended" // the access line
	MessageFlow      = "flow ended"    // the access line of a UDP flow
	MessageAdded     = "backend added"
	MessageRemoved   = "backend removed"
	MessageMode      = "mode changed"
	MessageWeight    = "weight changed"
	MessageBreaker   = "breaker changed"
	MessageDiscovery = "discovered"
	MessageNoAnswer  = "discovery failed"
)

// A Line is one line of the balancer's JSON log. Fields that a line does not have are zero, see Has.
type Line struct {
	Level    string `json:"level"`
	Event    string `json:"event"`
	Message  string `json:"message"`
	Listener string `json:"listener"`
	Address  string `json:"address"`
	Pool     string `json:"pool"`
	Backend  string `json:"backend"`
	Reason   string `json:"reason"`

	Configuration string `json:"configuration"` // of a warning about it

	// fields of a verdict's change
	From string `json:"from"`
	To   string `json:"to"`

	// fields of an access line; times in seconds
	Session        string  `json:"session"`
	BackendAddress string  `json:"backend_address"`
	Client         string  `json:"client"`
	BytesIn        int64   `json:"bytes_in"`
	BytesOut       int64   `json:"bytes_out"`
	Duration       float64 `json:"duration"`
	ConnectTime    float64 `json:"connect_time"`
	FirstByteTime  float64 `json:"first_byte_time"`
	QueueTime      float64 `json:"queue_time"`
	Retries        int     `json:"retries"`

	// further fields of a flow's access line
	Flow         string `json:"flow"`
	DatagramsIn  int64  `json:"datagrams_in"`
	DatagramsOut int64  `json:"datagrams_out"`

	// of a line about refused clients: how many there were since the line before, and since the start
	Refused           int64 `json:"refused"`
	RefusedSinceStart int64 `json:"refused_since_start"`

	Err string `json:"err"` // of an access line, or of a discovery that failed

	Seen time.Time `json:"-"` // when the harness read it
	Text string    `json:"-"` // the line itself
}

// ParseLine reads one line of the log.
func ParseLine(text string) (Line, error) {
	l := Line{Seen: time.Now(), Text: text}
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return l, fmt.Errorf("log line %q: %w", text, err)
	}
	return l, nil
}

// Has reports whether the line holds the field, whatever its value.
func (l Line) Has(field string) bool {
	var fields map[string]json.RawMessage // parsed on demand, since few of the thousands of lines need it
	if err := json.Unmarshal([]byte(l.Text), &fields); err != nil {
		return false // ParseLine has refused such lines
	}
	_, has := fields[field]
	return has
}

// IsAccess reports whether the line is an access line of a session.
func (l Line) IsAccess() bool { return l.Message == MessageSession }

// IsFlow reports whether the line is an access line of a flow.
func (l Line) IsFlow() bool { return l.Message == MessageFlow }
