package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/conf"
)

// pretendJournal sets JOURNAL_STREAM to f, as systemd does for the stream of a service.
func pretendJournal(t *testing.T, f *os.File) {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	s := info.Sys().(*syscall.Stat_t)
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", s.Dev, s.Ino))
}

func tempFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func contents(t *testing.T, f *os.File) string {
	t.Helper()
	text, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// logged logs one line of each level and two lines with line breaks, and returns the output.
func logged(t *testing.T, format string, f *os.File) []string {
	t.Helper()
	zerolog.SetGlobalLevel(zerolog.TraceLevel) // it belongs to the process, and another test has changed it
	log, w := newLog(conf.Log{Level: "trace", Format: format}, f)
	log.Trace().Msg("trace")
	log.Debug().Msg("debug")
	log.Info().Str("listener", "redis").Msg("info")
	log.Warn().Msg("warn")
	log.Error().Err(errors.New("one\ntwo")).Msg("error")
	log.Log().Msg("no\nlevel")
	go w.run()
	w.Close()
	text := contents(t, f)
	if !strings.HasSuffix(text, "\n") {
		t.Errorf("the log ends with half a line: %q", text)
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

func TestJournalPriorities(t *testing.T) {
	for format, want := range map[string][]string{
		"json": {
			`<7>{"level":"trace","time":"[^"]+","message":"trace"}`,
			`<7>{"level":"debug","time":"[^"]+","message":"debug"}`,
			`<6>{"level":"info","listener":"redis","time":"[^"]+","message":"info"}`,
			`<4>{"level":"warn","time":"[^"]+","message":"warn"}`,
			`<3>{"level":"error","err(or)?":"one\\ntwo","time":"[^"]+","message":"error"}`,
			`<6>{"time":"[^"]+","message":"no\\nlevel"}`,
		},
		"console": { // neither time nor colour
			`<7>TRC trace`,
			`<7>DBG debug`,
			`<6>INF info listener=redis`,
			`<4>WRN warn`,
			`<3>ERR error err(or)?="one\\ntwo"`,
			`<6>\?\?\? no level`,
		},
	} {
		t.Run(format, func(t *testing.T) {
			f := tempFile(t)
			pretendJournal(t, f)
			got := logged(t, format, f)
			if len(got) != len(want) {
				t.Fatalf("%d lines, want %d: %q", len(got), len(want), got)
			}
			for i := range want {
				if !regexp.MustCompile("^" + want[i] + "$").MatchString(got[i]) {
					t.Errorf("line %d is %q, want %s", i, got[i], want[i])
				}
			}
		})
	}
}

// TestNoJournalNoPriorities: a log elsewhere has no priorities, even if a journal is named that stderr does not go to.
func TestNoJournalNoPriorities(t *testing.T) {
	for name, pretend := range map[string]func(*testing.T){
		"no journal":      func(t *testing.T) { t.Setenv("JOURNAL_STREAM", "") },
		"another stream":  func(t *testing.T) { pretendJournal(t, tempFile(t)) },
		"not a stream":    func(t *testing.T) { t.Setenv("JOURNAL_STREAM", "yes") },
		"an inode of two": func(t *testing.T) { t.Setenv("JOURNAL_STREAM", "1:2:3") },
	} {
		t.Run(name, func(t *testing.T) {
			pretend(t)
			for _, line := range logged(t, "json", tempFile(t)) {
				if !strings.HasPrefix(line, "{") {
					t.Errorf("line %q", line)
				}
			}
			for _, line := range logged(t, "console", tempFile(t)) {
				if !regexp.MustCompile(`^\d{4}-\d\d-\d\d `).MatchString(line) && line != "level" {
					t.Errorf("line %q", line)
				}
			}
		})
	}
}

// TestDroppedLinesHavePriority: the line that the writer adds has a priority too.
func TestDroppedLinesHavePriority(t *testing.T) {
	var out bytes.Buffer
	w := newLogWriter(newJournalWriter(&out, false), false)
	w.Write(bytes.Repeat([]byte("x"), maxQueuedLog+1))
	w.Write([]byte("{}\n"))
	go w.run()
	w.Close()
	if got := out.String(); !strings.HasPrefix(got, "<6>{}\n<4>{") {
		t.Errorf("got %q", got)
	}
}

func TestPrintError(t *testing.T) {
	err := errors.Join(errors.New("lb.toml:1: one"), errors.New("lb.toml:2: two"))
	f := tempFile(t)
	printError(f, err)
	pretendJournal(t, f)
	printError(f, err)
	const want = "lb.toml:1: one\nlb.toml:2: two\n<3>lb.toml:1: one\n<3>lb.toml:2: two\n"
	if got := contents(t, f); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestJournalTakesWhatIsNoJSON: lines that cannot be converted are not lost.
func TestJournalTakesWhatIsNoJSON(t *testing.T) {
	var out bytes.Buffer
	w := newJournalWriter(&out, true)
	if n, err := w.Write([]byte("not JSON\n{\"level\":\"warn\",\"message\":\"fine\"}\n")); n != 43 || err != nil {
		t.Error(n, err)
	}
	if got := out.String(); got != "<6>not JSON\n<4>WRN fine\n" {
		t.Errorf("got %q", got)
	}
}
