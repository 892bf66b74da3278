package fleet

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// A Record is a value that all nodes share and that stays. It is a plain value.
type Record struct {
	Serial uint64          `json:"serial"`           // counts the changes of its key; the higher one holds
	Node   string          `json:"node"`             // that has changed it
	By     string          `json:"by,omitempty"`     // who has, as the API knows it
	At     time.Time       `json:"at"`               // when
	Until  time.Time       `json:"until,omitzero"`   // when it has no meaning any more; zero: it stays
	Undone bool            `json:"undone,omitempty"` // there is no value any more
	Value  json.RawMessage `json:"value,omitempty"`
}

const (
	// maxSerial is the highest serial: JSON numbers are exact up to there in other programs too. The serial of a further
	// change stays there, and then the later change holds.
	maxSerial = 1 << 53
	// maxYear bounds the times of a record: JSON has none after the year 9999, nor before the year 0. A text can have such
	// a time all the same, by its time zone.
	maxYear = 9000
	// maxRecordBytes bounds a record in etcd: its value, and the other fields.
	maxRecordBytes = MaxValueBytes + 4*maxTextBytes
)

// parseRecord returns the record that etcd has for a key; false if it is none.
func parseRecord(text []byte) (r Record, is bool) {
	if len(text) == 0 || len(text) > maxRecordBytes || json.Unmarshal(text, &r) != nil {
		return Record{}, false
	}
	r, err := r.normal()
	return r, err == nil && r.Serial > 0
}

// normal returns a record in the form that it has after it was written and read again, so that nodes can compare
// records. An error says why it can be none.
func (r Record) normal() (Record, error) {
	value, err := compact(r.Value)
	switch {
	case err != nil:
		return r, fmt.Errorf("value: %w", err)
	case len(value) > MaxValueBytes:
		return r, ErrTooLarge
	case !isPlain(r.Node):
		return r, fmt.Errorf("node: unusual name")
	case r.Serial > maxSerial:
		return r, fmt.Errorf("serial: above %d", maxSerial)
	case !isWritable(r.At) || !isWritable(r.Until):
		return r, fmt.Errorf("time: not in the years 1 to %d", maxYear)
	}
	r.Value, r.By = value, plain(r.By)
	r.At, r.Until = r.At.UTC().Round(0), r.Until.UTC().Round(0)
	return r, nil
}

// isWritable reports whether JSON can have a time in UTC.
func isWritable(t time.Time) bool {
	year := t.UTC().Year()
	return year >= 1 && year <= maxYear
}

// compact returns JSON as json.Marshal writes it; nil for nothing.
func compact(value json.RawMessage) (json.RawMessage, error) {
	if len(value) == 0 {
		return nil, nil
	}
	return json.Marshal(value)
}

// text returns the record as it is in etcd.
func (r Record) text() []byte {
	text, err := json.Marshal(r)
	if err != nil {
		panic("fleet: a record that is not normal: " + err.Error())
	}
	return text
}

// same reports whether two records are the same change.
func (r Record) same(other Record) bool {
	return r.Serial == other.Serial && r.Node == other.Node && r.At.Equal(other.At) && r.Until.Equal(other.Until) &&
		r.Undone == other.Undone && r.By == other.By && bytes.Equal(r.Value, other.Value)
}

// newer reports whether r holds over another record, of which neither waits to be written. One of two different records
// is newer, and it is the same one on all nodes.
func (r Record) newer(other Record) bool {
	if r.Serial != other.Serial {
		return r.Serial > other.Serial
	}
	return r.later(other)
}

// later reports whether r was changed after another record.
func (r Record) later(other Record) bool {
	return cmp.Or(r.At.Compare(other.At), strings.Compare(r.Node, other.Node), bytes.Compare(r.text(), other.text())) > 0
}

// after returns the serial and the time of a change after r. The time is later even if the clock of the node that made
// r is ahead: a change that was made in the knowledge of another one holds over it.
func (r Record) after(now time.Time) (serial uint64, at time.Time) {
	at = now.UTC().Round(0)
	if r.Serial > 0 && !at.After(r.At) {
		at = r.At.Add(1)
	}
	return min(r.Serial, maxSerial-1) + 1, at
}

const (
	// undoneKept is how long the end of a value is remembered, so that a node that was away for less cannot bring the
	// value back.
	undoneKept = 7 * 24 * time.Hour
	// outdatedKept is how long a record is kept after its time, for nodes whose clocks are behind. It is short, since
	// addresses that are kept away for some minutes may be thousands in a day.
	outdatedKept = time.Hour
	// forgetAfter is how much later a record is deleted in etcd than its time has come, for nodes whose clocks are
	// behind: they would write it again.
	forgetAfter = time.Hour
)

// forgotten reports whether nobody needs the record any more.
func (r Record) forgotten(now time.Time) bool {
	switch {
	case r.Undone:
		return now.Sub(r.At) > undoneKept
	case !r.Until.IsZero():
		return now.Sub(r.Until) > outdatedKept
	}
	return false
}
