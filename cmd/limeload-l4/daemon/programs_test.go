package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/conf"
)

// TestCheckFindsPrograms checks configurations whose checks run a program that exists, is not executable, or is
// missing.
func TestCheckFindsPrograms(t *testing.T) {
	folder := t.TempDir()
	good, text := filepath.Join(folder, "good"), filepath.Join(folder, "text")
	for path, mode := range map[string]os.FileMode{good: 0o700, text: 0o600} {
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ health, mistake string }{
		{`type = "exec"` + "\n" + `command = ["` + good + `"]`, ""},
		{`type = "exec"` + "\n" + `command = ["` + text + `"]`, "pool.p.health.command: program " + text +
			": permission denied"},
		{`type = "any_of"` + "\n" + `checks = [{ type = "tcp" }, { type = "exec", command = ["` + folder + `/none"] }]`,
			"pool.p.health.checks[1].command: \"" + folder + "/none\": no such file or directory"},
	} {
		cfg, err := conf.Parse("lb.toml", []byte("[listener.l]\naddress = \"127.0.0.1:1\"\npool = \"p\"\n"+
			"[pool.p]\nbackends = [\"127.0.0.1:2\"]\n[pool.p.health]\n"+c.health))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Check(t.Context(), cfg)
		if c.mistake == "" && err != nil ||
			c.mistake != "" && (err == nil || !strings.Contains(err.Error(), c.mistake)) {
			t.Errorf("%s: %v, expected %q", c.health, err, c.mistake)
		}
	}
}
