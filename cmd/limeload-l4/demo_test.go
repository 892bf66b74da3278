package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFindPostgres: the newest server that has every program is found, or the error says what to install.
func TestFindPostgres(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	root := t.TempDir()
	pattern := filepath.Join(root, "*/bin")
	if _, err := findPostgresIn(pattern); err == nil || !strings.Contains(err.Error(), "apt-get install postgresql") {
		t.Errorf("without a server: %v", err)
	}
	for version, programs := range map[string][]string{
		"9": {"initdb", "postgres", "pg_basebackup"}, "15": {"initdb", "postgres", "pg_basebackup"},
		"16": {"initdb", "postgres"}, // a package for developers
	} {
		folder := filepath.Join(root, version, "bin")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range programs {
			if err := os.WriteFile(filepath.Join(folder, name), nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := findPostgresIn(pattern); err != nil || got != filepath.Join(root, "15", "bin") {
		t.Errorf("found %s, %v", got, err)
	}
	t.Setenv("PATH", filepath.Join(root, "9", "bin")) // who has it in PATH means that one
	if got, err := findPostgresIn(pattern); err != nil || got != filepath.Join(root, "9", "bin") {
		t.Errorf("found %s, %v", got, err)
	}
}

// TestNarrator: on a terminal the table stays below the lines; elsewhere there is none.
func TestNarrator(t *testing.T) {
	var out bytes.Buffer
	n := newNarrator(&out)
	if n.live() {
		t.Error("a buffer is a terminal")
	}
	n.line("b1 says \x1b[2J%d", 1)
	fmt.Fprint(n, `{"message":"verdict changed","backend":"b1","to":"unhealthy","reason":"connect refused"}`)
	fmt.Fprint(n, `{"message":"mode changed","backend":"b1","from":"ready","to":"drain"}`)
	fmt.Fprint(n, `{"message":"session ended","backend":"b1"}`)
	fmt.Fprint(n, `nonsense`)
	var said []string
	for line := range strings.Lines(out.String()) {
		said = append(said, strings.TrimSpace(line[len(time.TimeOnly):]))
	}
	want := `b1 says \x1b[2J1|b1 is unhealthy: connect refused|b1 has mode drain instead of ready`
	if got := strings.Join(said, "|"); got != want {
		t.Errorf("it says %q, want %q", got, want)
	}

	out.Reset()
	n.screen = screen{width: 40}
	n.show([]string{"table", "client"})
	n.line("event")
	n.show([]string{"other table"})
	n.end()
	n.line("last")
	text := out.String()
	if strings.Count(text, "\x1b[2A\x1b[J") != 2 || strings.Contains(text, "\x1b[1A") ||
		!strings.HasPrefix(text, "table\nclient\n\x1b[2A\x1b[J") ||
		!strings.Contains(text, "event\ntable\nclient\n\x1b[2A\x1b[Jother table\n") {
		t.Errorf("it draws %q", text)
	}
}

// TestDemoWriters: what is printed at the end is what was counted.
func TestDemoWriters(t *testing.T) {
	var out bytes.Buffer
	w := newDemoWriters("", newNarrator(&out))
	if got := w.summary(0); got != "The demo has ended.\n" {
		t.Errorf("before the first transaction: %q", got)
	}
	w.note("(1, 1)", nil)
	w.note("(1, 2)", errors.New("57P01: the server goes away"))
	w.note("(1, 3)", nil)
	w.refuse(errors.New("no primary"))
	w.refuse(errors.New("no primary"))
	for _, want := range []string{"have committed\n2 transactions: 1 failed.", "2 logins failed.", ", 7 are missing"} {
		if got := w.summary(7); !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if got := w.summary(-1); strings.Contains(got, "missing") {
		t.Errorf("nobody could be asked, and it says %q", got)
	}
	if said := out.String(); strings.Count(said, "a login failed: no primary") != 1 ||
		!strings.Contains(said, "a transaction failed: 57P01") {
		t.Errorf("it says %q", said)
	}
}

func TestFreeAddress(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := taken.Addr().String()
	if got, err := freeAddress(address); err != nil || got == address {
		t.Errorf("%s is taken, and it is %s, %v", address, got, err)
	}
	taken.Close()
	if got, err := freeAddress(address); err != nil || got != address {
		t.Errorf("%s is free, and it is %s, %v", address, got, err)
	}
}
