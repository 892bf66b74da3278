package conf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFilePath(t *testing.T) {
	working, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ config, name, want string }{
		{"/etc/limeload/lb.toml", "pg.password", "/etc/limeload/pg.password"},
		{"/etc/limeload/lb.toml", "../secrets/pg.password", "/etc/secrets/pg.password"},
		{"/etc/limeload/lb.toml", "/run/secrets/pg", "/run/secrets/pg"},
		{"/etc/limeload/lb.toml", "", ""},
		{"lb.toml", "pg.password", filepath.Join(working, "pg.password")},
		{"conf.d/lb.toml", "pg.password", filepath.Join(working, "conf.d", "pg.password")},
		{"/dev/fd/63", "pg.password", filepath.Join(working, "pg.password")},
		{"/proc/self/fd/63", "pg.password", filepath.Join(working, "pg.password")},
		{"/dev/stdin", "pg.password", filepath.Join(working, "pg.password")},
	} {
		if got := FilePath(tt.config, tt.name); got != tt.want {
			t.Errorf("%q of %q is at %q, want %q", tt.name, tt.config, got, tt.want)
		}
	}
}

// TestErrorAtNamesTheFile holds that the error of a file which a key names has its whole path, however long.
func TestErrorAtNamesTheFile(t *testing.T) {
	c := &Config{File: "lb.toml", parts: whole("lb.toml"), lines: map[string]int{"pool.a.health.password_file": 7}}
	path := "/etc/" + strings.Repeat("long/", 100) + "pg.password"
	err := c.ErrorAt("pool.a.health.password_file", &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist})
	if want := `lb.toml:7: pool.a.health.password_file: "` + path + `": file does not exist`; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not wrap its cause", err)
	}
	own := c.ErrorAt("admin.address", &fs.PathError{Op: "open", Path: "lb.toml", Err: fs.ErrNotExist})
	if want := `lb.toml:0: admin.address: file does not exist`; strings.ReplaceAll(want, ":0", "") != own.Error() {
		t.Errorf("error %q", own)
	}
}

// TestLoadRegular has paths that only a command line may use as a configuration.
func TestLoadRegular(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lb.toml")
	if err := os.WriteFile(path, Reference, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := LoadRegular(path); err != nil || len(c.Pools) == 0 {
		t.Errorf("the reference is %v, %v", c, err)
	}
	for path, want := range map[string]string{
		"/dev/zero": "/dev/zero: not a regular file",
		"/no/such":  "/no/such: no such file or directory",
		t.TempDir(): "not a regular file",
	} {
		_, err := LoadRegular(path)
		var mistakes Errors
		if !errors.As(err, &mistakes) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
}
