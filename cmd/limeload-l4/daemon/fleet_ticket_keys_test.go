package daemon

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTicketKeysOverTime follows the keys over two days in which somebody rotates them in time, and another day in
// which nobody does: there is always a next key, all nodes read a ticket for 12 to 24 hours, and no key is used for longer.
func TestTicketKeysOverTime(t *testing.T) {
	begin := time.Now()
	var keys ticketKeys
	made := make(map[string]time.Time) // when a key was first in use
	last := make(map[string]time.Time)
	for now := begin; now.Before(begin.Add(72 * time.Hour)); now = now.Add(time.Minute) {
		if !keys.hasNext(now) && now.Before(begin.Add(48*time.Hour)) {
			keys = keys.rotated(now)
		}
		if parsed, err := parseTicketKeys(keys.value()); err != nil || len(parsed) != len(keys) || len(keys) > 3 {
			t.Fatalf("%d keys are read as %d: %v", len(keys), len(parsed), err)
		}
		use, until := keys.inUse(now)
		if len(use) == 0 {
			if h := now.Sub(begin).Hours(); h != 0 && h < 71 {
				t.Errorf("no key makes tickets after %v", now.Sub(begin))
			}
			continue
		}
		if !until.After(now) {
			t.Errorf("the keys hold until %v, which has passed", until)
		}
		for _, k := range use {
			if id := string(k[:]); made[id].IsZero() {
				made[id] = now
			}
		}
		id := string(use[0][:])
		last[id] = now
	}
	var order []time.Time
	for id, at := range last {
		order = append(order, at)
		if age := at.Sub(made[id]); age > 37*time.Hour { // 12 before it makes tickets, and 24 hours
			t.Errorf("a key was used for %v", age)
		}
	}
	slices.SortFunc(order, time.Time.Compare)
	if len(order) != 5 { // from 10 s on and then each 12 h; the last one for 24 hours
		t.Errorf("%d keys have made tickets, the last ones at %v", len(order), order)
	}
	for i := range len(order) - 1 {
		want := ticketPeriod
		if i == len(order)-2 {
			want = ticketLife
		}
		if d := order[i+1].Sub(order[i]); d < want-time.Minute || d > want+time.Minute {
			t.Errorf("a key has made tickets for %v, want %v", d, want)
		}
	}
}

// TestTicketKeysAtOnce holds that two nodes that make a key at once lose no key that is in use, whichever of their
// records holds.
func TestTicketKeysAtOnce(t *testing.T) {
	now := time.Now()
	first := ticketKeys{}.rotated(now)
	use, until := first.inUse(now)
	if len(use) != 0 || !until.Equal(first[0].From) || until.Sub(now) < ticketLead-time.Second {
		t.Errorf("the first key is in use at once, or from %v on", until.Sub(now))
	}
	now = now.Add(time.Hour)
	both := first.rotated(now)
	now = both[1].From.Add(time.Second) // the next one is the current one now
	a, b := both.rotated(now), both.rotated(now.Add(time.Second))
	for _, keys := range []ticketKeys{a, b} {
		if len(keys) != 3 || !bytes.Equal(keys[0].Key, both[0].Key) || !bytes.Equal(keys[1].Key, both[1].Key) {
			t.Error("a key that is in use is not there any more")
		}
		if use, _ := keys.inUse(now); len(use) != 3 || string(use[0][:]) != string(both[1].Key) {
			t.Error("another key makes tickets")
		}
	}
	if bytes.Equal(a[2].Key, b[2].Key) {
		t.Error("two nodes have made the same key")
	}
}

// TestTicketKeysAndWrongClocks holds that a node whose clock is wrong takes no key from the others that they use.
func TestTicketKeysAndWrongClocks(t *testing.T) {
	now := time.Now()
	keys := ticketKeys{}.rotated(now.Add(-13 * time.Hour)).rotated(now.Add(-12 * time.Hour)).rotated(now)
	for _, wrong := range []time.Duration{
		-60 * time.Hour, -30 * time.Hour, -13 * time.Hour, -time.Hour, time.Hour, 13 * time.Hour,
	} {
		theirs := keys
		for i := range 50 {
			if at := now.Add(wrong + time.Duration(i)*time.Minute); !theirs.hasNext(at) {
				theirs = theirs.rotated(at)
			}
		}
		if len(theirs) > maxTicketKeys {
			t.Errorf("%v off: there are %d keys", wrong, len(theirs))
		}
		ours, _ := keys.inUse(now)
		if use, _ := theirs.inUse(now); len(use) == 0 || !slices.Contains(use, ours[0]) {
			t.Errorf("%v off: the current key is lost", wrong)
		}
	}
}

// TestTicketRecord holds what a value from etcd may be like, and that no error has a key in it.
func TestTicketRecord(t *testing.T) {
	key := func(b byte) string {
		return base64.StdEncoding.EncodeToString(append(bytes.Repeat([]byte{b}, 31), b+1))
	}
	one := func(key, from string) string { return fmt.Sprintf(`{"key":%q,"from":%q}`, key, from) }
	record := func(keys ...string) string { return `{"version":1,"keys":[` + strings.Join(keys, ",") + `]}` }
	good := one(key(1), "2026-01-02T03:04:05Z")
	for _, tc := range []struct{ value, err string }{
		{record(good), ""},
		{record(one(key(2), "2026-01-03T03:04:05Z"), good), ""},
		{record(slices.Repeat([]string{good}, 2)...), "a key is there twice"},
		{record(slices.Repeat([]string{good}, 9)...), "it has 9 keys, and not 1 to 8"},
		{record(), "it has 0 keys, and not 1 to 8"},
		{`{"version":2,"keys":"another form"}`, "its version is not known: 2"},
		{`{}`, "its version is not known: 0"},
		{`null`, "its version is not known: 0"},
		{``, "it is no JSON of this form"},
		{`[]`, "it is no JSON of this form"},
		{`{"version":1,"keys":"` + key(1) + `"}`, "it is no JSON of this form"},
		{record(one(key(1)[4:], "2026-01-02T03:04:05Z")), "a key has 29 bytes, and not 32"},
		{record(one("x"+key(1), "2026-01-02T03:04:05Z")), "it is no JSON of this form"},
		{record(one(base64.StdEncoding.EncodeToString(make([]byte, 32)), "2026-01-02T03:04:05Z")), "a key is no random one"},
		{record(one(key(1), "yesterday")), "it is no JSON of this form"},
		{strings.Repeat(" ", 4097), "it has 4097 bytes, and not up to 4096"},
	} {
		keys, err := parseTicketKeys([]byte(tc.value))
		switch {
		case (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err:
			t.Errorf("%.80s: error %v, want %q", tc.value, err, tc.err)
		case err == nil && !slices.IsSortedFunc(keys, func(a, b ticketKey) int { return a.From.Compare(b.From) }):
			t.Errorf("%s: not in order", tc.value)
		case errors.Is(err, errTicketsVersion) != strings.Contains(tc.err, "version"):
			t.Errorf("%s: error %v", tc.value, err)
		}
	}
}

// FuzzTicketRecord holds that no value from etcd makes the program panic, and that one which is taken can be used.
func FuzzTicketRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"keys":[]}`))
	f.Add([]byte(ticketKeys{}.rotated(time.Now()).value()))
	f.Fuzz(func(t *testing.T, value []byte) {
		keys, err := parseTicketKeys(value)
		if err != nil {
			return
		}
		now := time.Now()
		keys.inUse(now)
		next := keys.rotated(now)
		var saved savedTickets
		if err := json.Unmarshal(next.value(), &saved); err != nil || len(next) > maxTicketKeys || !next.hasNext(now) {
			t.Errorf("%d keys follow, and are read with the error %v", len(next), err)
		}
	})
}
