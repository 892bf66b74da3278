package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	docsFile    = "../../../docs/api.md"
	docsSocket  = "/run/limeload/admin.sock"
	docsCommand = "curl"
)

func readDocs(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(docsFile)
	check(t, err)
	return string(text)
}

// docsViolations returns the differences between a page and the code.
func docsViolations(page string) []string {
	var violations []string
	report := func(format string, args ...any) { violations = append(violations, fmt.Sprintf(format, args...)) }

	sections := make(map[string]string) // by route
	section := regexp.MustCompile("(?s)### `([A-Z]+ [^`]+)`\n(.*?)(?:\n##|$)")
	for _, s := range section.FindAllStringSubmatch(strings.ReplaceAll(page, "\n##", "\n##\n##"), -1) {
		sections[s[1]] = s[2]
	}
	for _, r := range routes() {
		name := r.method + " " + strings.TrimSuffix(r.path, "{$}")
		section, has := sections[name]
		delete(sections, name)
		if !has {
			report("%s is not described", name)
			continue
		}
		if strings.Contains(r.path, "/debug/pprof/{") {
			section += "`debug` `gc` `seconds`" // said about all of them together
		}
		for _, parameter := range r.query {
			if !strings.Contains(section, "`"+parameter) {
				report("%s: the parameter %s is not described", name, parameter)
			}
		}
		if !strings.Contains(section, "$ curl ") {
			report("%s has no example", name)
		}
	}
	for name := range sections {
		report("%s: there is no such route", name)
	}

	var rows, types []string
	row := regexp.MustCompile("(?m)^\\| `(/problems/[^`]+)` \\| (\\d+) \\|")
	for _, row := range row.FindAllStringSubmatch(page, -1) {
		rows = append(rows, row[1]+" "+row[2])
	}
	for _, p := range ProblemTypes() {
		types = append(types, fmt.Sprint(p.Type, " ", p.Status))
	}
	if !slices.Equal(rows, types) {
		report("the problems are %q, expected %q", rows, types)
	}
	_, events, _ := strings.Cut(page, "\n## Events\n")
	for _, kind := range EventKinds() {
		if !strings.Contains(events, "`"+kind+"`") {
			report("the kind of event %s is not described", kind)
		}
	}
	slices.Sort(violations)
	return violations
}

// TestDocs compares the page with the routes, the problems and the events.
func TestDocs(t *testing.T) {
	t.Parallel()
	page := readDocs(t)
	for _, bad := range []struct{ old, changed, violation string }{
		{"### `PUT /v1/log`", "### `PUT /v1/logs`", "PUT /v1/log is not described"},
		{"### `PUT /v1/log`", "### `PUT /v1/logs`", "PUT /v1/logs: there is no such route"},
		{"`min_idle`", "min_idle", "the parameter min_idle is not described"},
		{"| `/problems/ending` | 503 |", "| `/problems/ending` | 500 |", "the problems are"},
		{"| `draining` |", "| draining |", "the kind of event draining is not described"},
	} {
		sample := strings.ReplaceAll(page, bad.old, bad.changed)
		if got := strings.Join(docsViolations(sample), "\n"); !strings.Contains(got, bad.violation) {
			t.Errorf("with %q for %q the guard finds %q, expected %q", bad.changed, bad.old, got, bad.violation)
		}
	}
	for _, violation := range docsViolations(page) {
		t.Error(violation)
	}
	l := defaultLimits()
	for _, bound := range []string{
		fmt.Sprintf("%d MiB of JSON, %d MiB of TOML", l.jsonBytes>>20, l.tomlBytes>>20),
		fmt.Sprintf("header above %d KiB", l.headerBytes>>10),
		fmt.Sprintf("%d connections; when", l.connections), fmt.Sprintf("%d more are answered", l.spares),
		fmt.Sprintf("%d streams of events, more are refused", l.streams),
		fmt.Sprintf("%.0f s for a header", l.header.Seconds()),
		fmt.Sprintf("every %.0f seconds", l.heartbeat.Seconds()),
		fmt.Sprintf("nothing for %.0f seconds", l.write.Seconds()), fmt.Sprintf("(up to %d)", maxProfileSeconds),
	} {
		if !strings.Contains(page, bound) {
			t.Errorf("the page does not say %q", bound)
		}
	}
}

// An example is a command in the page, and its output.
type example struct{ command, printed string }

func examples(page string) []example {
	var list []example
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(page, -1) {
		for _, part := range strings.Split("\n"+block[1], "\n$ ")[1:] {
			command, printed, _ := strings.Cut(strings.TrimSuffix(part, "\n"), "\n")
			list = append(list, example{command, printed})
		}
	}
	return list
}

// TestDocsExamples runs the commands in the page, one after the other, against one daemon.
func TestDocsExamples(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath(docsCommand); err != nil {
		t.Fatalf("%v: install Debian's package curl", err)
	}
	if !shows(`{"a": [{"b": 1}]}`, `{"a":[{"b":1,"c":2}],"d":3}`) || shows(`{"a": []}`, `{"a":[1]}`) ||
		shows(`{"a": 1}`, `{}`) || shows("x", "y") {
		t.Fatal("the guard does not tell answers apart")
	}
	w := start(t, "")
	folder := t.TempDir()
	list := examples(readDocs(t))
	if len(list) < len(routes()) {
		t.Errorf("there are %d examples of %d routes", len(list), len(routes()))
	}
	for _, e := range list {
		command := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(e.command, docsSocket, w.socket))
		command.Dir = folder
		var stderr bytes.Buffer
		command.Stderr = &stderr
		if strings.Contains(e.command, "/v1/events") {
			go func() {
				<-w.fake.began
				w.fake.publish(Event{
					At: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC), Kind: "mode_changed", Pool: "redis", Backend: "b1",
					Address: "192.0.2.1:6379", From: "ready", To: "drain",
				})
				w.fake.endEvents() // curl only notices that head has left when there is more to write
			}()
		}
		profiles := strings.Contains(e.command, "/debug/pprof/")
		if profiles {
			profiling.Lock()
		}
		got, err := command.Output()
		if profiles {
			profiling.Unlock()
		}
		if err != nil || !shows(e.printed, strings.TrimSuffix(string(got), "\n")) {
			t.Errorf("%s\nprints %s%s, %v, expected\n%s", e.command, got, &stderr, err, e.printed)
		}
	}
}

// shows reports whether short is a shortened form of whole. In JSON, objects may lack fields; everything else must be
// equal.
func shows(short, whole string) bool {
	var a, b any
	if json.Unmarshal([]byte(short), &a) != nil || json.Unmarshal([]byte(whole), &b) != nil {
		return short == whole
	}
	return within(a, b)
}

func within(short, whole any) bool {
	switch s := short.(type) {
	case map[string]any:
		w, is := whole.(map[string]any)
		for name, value := range s {
			if found, has := w[name]; !has || !within(value, found) {
				return false
			}
		}
		return is
	case []any:
		w, is := whole.([]any)
		return is && slices.EqualFunc(s, w, within)
	}
	return reflect.DeepEqual(short, whole)
}
