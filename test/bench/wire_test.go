package main

import (
	"testing"

	"pgregory.net/rapid"
)

func TestRequestSurvivesTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := request{
			sequence: rapid.Uint64().Draw(t, "sequence"),
			payload:  rapid.Int64Min(0).Draw(t, "payload"),
			answer:   rapid.Int64Min(answerBytes).Draw(t, "answer"),
		}
		var head [requestBytes]byte
		want.put(&head)
		got, err := parseRequest(&head)
		if err != nil || got != want {
			t.Fatalf("%+v, %v, want %+v", got, err, want)
		}
		var answer [answerBytes]byte
		putAnswer(&answer, want.sequence)
		if got := parseAnswer(&answer); got != want.sequence {
			t.Fatalf("answer to %d, want %d", got, want.sequence)
		}
	})
}

func TestParseRequestRefuses(t *testing.T) {
	var head [requestBytes]byte
	if _, err := parseRequest(&head); err == nil {
		t.Error("no error for zeros")
	}
	for _, r := range []request{{answer: answerBytes - 1}, {payload: -1, answer: answerBytes}} {
		r.put(&head)
		if _, err := parseRequest(&head); err == nil {
			t.Errorf("no error for %+v", r)
		}
	}
}
