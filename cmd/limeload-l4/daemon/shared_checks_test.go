package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
)

// TestSharedQuestions holds which checks ask the same question: those that differ in their wishes only.
func TestSharedQuestions(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := write("secret", "s3cret\n")
	question := func(pool, health string) string {
		t.Helper()
		cfg := parsed(t, "[pool.x]\nbackends = [\"127.0.0.1:7998\"]\n"+pool+"\n[pool.x.health]\n"+health)
		at := slices.IndexFunc(cfg.Pools, func(p conf.Pool) bool { return p.Name == "x" })
		check, err := buildCheck(cfg, &cfg.Pools[at], newFiles("x.toml"), nil)
		if err != nil {
			t.Fatal(err)
		}
		s, is := check.checker.(healthcheck.Shared)
		if !is {
			return ""
		}
		return s.Question
	}
	const base = "type = \"postgres\"\nuser = \"u\"\n"
	want := question("", base)
	if want == "" {
		t.Fatal("a check of postgres is not shared")
	}
	for what, health := range map[string]string{
		"role": "role = \"primary\"\n", "fallback": "role = \"replica\"\nfallback = \"primary\"\n",
		"max_lag": "max_lag = \"5s\"\n", "rise": "rise = 9\n", "fall": "fall = 9\n", "initial": "initial = \"healthy\"\n",
	} {
		if question("", base+health) != want {
			t.Errorf("another %s makes another question", what)
		}
	}
	for what, other := range map[string][2]string{
		"type": {"", "type = \"redis\"\nuser = \"u\"\n"}, "user": {"", "type = \"postgres\"\nuser = \"v\"\n"},
		"port": {"", base + "port = 1\n"}, "database": {"", base + "database = \"d\"\n"}, "TLS": {"", base + "tls = true\n"},
		"password": {"", base + "password_file = \"" + secret + "\"\n"},
		"source":   {"source = [\"127.0.0.1\"]\n", base}, "header": {"send_proxy = \"v2\"\n", base},
		"composition": {"", "type = \"all_of\"\nchecks = [{ type = \"postgres\", user = \"u\" }, { type = \"tcp\" }]\n"},
	} {
		if got := question(other[0], other[1]); got == want || got == "" {
			t.Errorf("another %s does not make another question", what)
		}
	}
	before := question("", base+"password_file = \""+secret+"\"\n")
	if question("", base+"password_file = \""+secret+"\"\nrole = \"replica\"\n") != before {
		t.Error("the same password makes another question")
	}
	write("secret", "other\n")
	if question("", base+"password_file = \""+secret+"\"\n") == before {
		t.Error("another password in the file makes no other question")
	}
	if question("", "type = \"exec\"\ncommand = [\"/bin/true\"]\n") != "" {
		t.Error("an exec check is shared")
	}
}
