package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestCheckJSON: the list has warnings of a good configuration, and its exit code is 0.
func TestCheckJSON(t *testing.T) {
	file := write(t, goodConfig+"[pool.unused]\nbackends = [\"127.0.0.1:9\"]\n")
	code, stdout, stderr := command(t, "check", "--syntax", "--output", "json", file)
	var list []finding
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || code != exitDone || stderr != "" {
		t.Fatal(code, stderr, err)
	}
	if len(list) != 1 || list[0].Severity != "warning" || list[0].Key != "pool.unused" || list[0].File != file ||
		list[0].Line == 0 || list[0].Column == 0 || !strings.Contains(list[0].Message, "no listener uses this pool") {
		t.Errorf("%+v", list)
	}
	if code, stdout, _ = command(t, "check", "--syntax", "--output", "json", write(t, goodConfig)); stdout != "[]\n" {
		t.Errorf("exit code %d, %s", code, stdout)
	}
	code, stdout, _ = command(t, "check", "--output", "json", write(t, "[listener.a]\nthis is no TOML\n"))
	if code != exitFailed || !strings.Contains(stdout, `"line": 2`) {
		t.Errorf("exit code %d, %s", code, stdout)
	}
}

func TestColumn(t *testing.T) {
	text := []byte("[pool.a]\n  retries_of = 1, retries = 2\n\tx = { retries = 1 }\n")
	for _, test := range []struct {
		line   int
		path   string
		column int
	}{
		{2, "pool.a.retries", 19}, {3, "pool.a.x.retries", 8}, {2, "pool.a.gone", 3}, {9, "pool.a.retries", 1}, {1, "", 1},
		{1, "pool.a", 7}, {3, "pool.a.x[1]", 2},
	} {
		if got := keyColumn(text, test.line, test.path); got != test.column {
			t.Errorf("%s in line %d: column %d, want %d", test.path, test.line, got, test.column)
		}
	}
}
