package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// The addresses and the file of the README's first configuration.
const (
	readmeListener = ":5432"
	readmePrimary  = "10.0.0.21:5432"
	readmeStandby  = "10.0.0.22:5432"
	readmePassword = "/etc/limeload/monitor.password"
)

// TestReadmePostgres runs the README's first configuration with a real PostgreSQL server and its standby, and every
// command that the README shows with its output: the program prints the same, except for times, sizes and widths.
func TestReadmePostgres(t *testing.T) {
	t.Parallel()
	if steady("yes  1  1.5s") == steady("no  1  1.5s") {
		t.Fatal("the guard does not tell outputs apart")
	}
	readme, err := os.ReadFile("../README.md")
	check(t, err)
	config := regexp.MustCompile("(?s)```toml\n(.*?)```").FindStringSubmatch(string(readme))
	if config == nil {
		t.Fatal("the README shows no configuration")
	}
	primary := harness.StartPostgres(t)
	standby := primary.StartReplica(t)
	password := filepath.Join(t.TempDir(), "monitor.password")
	check(t, os.WriteFile(password, []byte("not asked for\n"), 0o600))
	places := []string{
		fmt.Sprintf("%q", readmeListener), fmt.Sprintf("%q", harness.FreeAddress(t)),
		readmePrimary, primary.Address(), readmeStandby, standby.Address(), readmePassword, password,
	}
	for i := 0; i < len(places); i += 2 {
		if !strings.Contains(config[1], places[i]) {
			t.Fatalf("the README's first configuration has no %s", places[i])
		}
	}
	started := time.Now()
	b := harness.StartBalancer(t, strings.NewReplacer(places...).Replace(config[1]))
	b.WaitVerdict(t, "pg2", "wrong_role", started)
	harness.Eventually(t, "a check of the primary finds its standby", func() error {
		if stdout, _, _ := b.Command(t, "backends"); !strings.Contains(stdout, "with 1 replica") {
			return errors.New(stdout)
		}
		return nil
	})
	url := fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", primary.User, b.Address(t, "postgres"))
	defer closePostgres(t, postgresClient(t, url))

	back := strings.NewReplacer(primary.Address(), readmePrimary, standby.Address(), readmeStandby)
	shown := regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	n := 0
	for _, block := range shown {
		for _, part := range strings.Split("\n"+block[1], "\n$ limeload-l4 ")[1:] {
			n++
			line, want, _ := strings.Cut(part, "\n")
			stdout, stderr, code := b.Command(t, strings.Fields(line)...)
			if got := back.Replace(stdout); code != 0 || stderr != "" || steady(got) != steady(want) {
				t.Errorf("%s: exit code %d, %s\nthe README shows\n%s\nit prints\n%s", line, code, stderr, want, got)
			}
		}
	}
	if n < 2 {
		t.Errorf("the README shows %d commands", n)
	}
}
