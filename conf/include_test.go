package conf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeFiles writes files into a new folder, and returns the folder.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	mainFile = "include = [\"conf.d/*.toml\", \"one.toml\"]\n[listener.a]\naddress = \":1\"\npool = \"p\"\n"
	poolFile = "# a pool\n\n[pool.p]\nbackends = [\"10.0.0.1:1\"]"
)

// TestInclude: tables of included files are those of the configuration, in the order of the files, and its text is the
// same configuration.
func TestInclude(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"lb.toml": mainFile, "conf.d/b.toml": poolFile, "one.toml": "",
		"conf.d/a.toml":    byteOrderMark + "[pool.q]\nbackends = [\"10.0.0.2:1\"]\n[listener.b]\naddress = \":2\"\npool = \"q\"\n",
		"conf.d/other.txt": "no TOML",
	})
	path := filepath.Join(dir, "lb.toml")
	c, err := LoadRegular(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Pools) != 2 || c.Pools[0].Name != "q" || c.Pools[1].Name != "p" || len(c.Listeners) != 2 {
		t.Errorf("pools %v, listeners %v", c.Pools, c.Listeners)
	}
	wanted := []string{path, filepath.Join(dir, "conf.d/a.toml"), filepath.Join(dir, "conf.d/b.toml"),
		filepath.Join(dir, "one.toml")}
	if got := c.Files(); strings.Join(got, " ") != strings.Join(wanted, " ") {
		t.Errorf("files %v, want %v", got, wanted)
	}
	_, text, err := LoadText(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range [][]byte{text, c.Effective()} {
		sent, err := Parse(path, again)
		if err != nil {
			t.Fatal(err)
		}
		if d := c.Compare(sent); len(d) > 0 {
			t.Errorf("the text is another configuration: %v", d)
		}
	}
}

// TestIncludeMistakes: each mistake names the file that has it, and the line there.
func TestIncludeMistakes(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		want  string // with DIR for the folder
	}{
		"a key": {map[string]string{"conf.d/b.toml": poolFile + "\nretries = 99"},
			"DIR/conf.d/b.toml:5: pool.p.retries: found 99; allowed is 0 to 10"},
		"two files": {map[string]string{"conf.d/b.toml": poolFile, "conf.d/c.toml": "[listener.b]\n\naddress = \":1\"\npool = \"p\""},
			`DIR/conf.d/c.toml:3: listener.b.address: found ":1"; listener.a.address on line 3, ":1", has this address already`},
		"of two others": {map[string]string{"conf.d/b.toml": poolFile,
			"conf.d/c.toml": "[listener.b]\naddress = \":2\"\npool = \"p\"", "one.toml": "[listener.c]\naddress = \":2\"\npool = \"p\""},
			`DIR/one.toml:2: listener.c.address: found ":2"; listener.b.address on line 2 of DIR/conf.d/c.toml, ":2", has this address already`},
		"the same table": {map[string]string{"conf.d/b.toml": poolFile, "conf.d/c.toml": "\n" + poolFile},
			`DIR/conf.d/c.toml:4: not valid TOML: [pool.p] is there already, on line 3 of DIR/conf.d/b.toml`},
		"no TOML": {map[string]string{"conf.d/b.toml": poolFile, "conf.d/c.toml": "[pool.x]\nbackends = [\""},
			`DIR/conf.d/c.toml:2: not valid TOML: unexpected EOF; expected '"'`},
		"no table": {map[string]string{"conf.d/b.toml": "# none\nretries = 1"},
			"DIR/conf.d/b.toml:2: this key is in no table; needs a table before all keys of an included file, such as [pool.NAME]"},
		"no text": {map[string]string{"conf.d/b.toml": "\n\xff"},
			"DIR/conf.d/b.toml:2: found the byte 0xff; needs a text file in UTF-8"},
		"missing": {map[string]string{"conf.d/b.toml": poolFile, "one.toml": "-"},
			`DIR/lb.toml: include: found "one.toml"; there is no such file`},
		"a folder": {map[string]string{"conf.d/b.toml": poolFile, "one.toml": "-", "one.toml/x": ""},
			`DIR/one.toml: is a directory`},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"lb.toml": mainFile, "one.toml": ""}
			for path, text := range tt.files {
				files[path] = text
			}
			for path, text := range files {
				if text == "-" {
					delete(files, path)
				}
			}
			dir := writeFiles(t, files)
			_, err := Load(filepath.Join(dir, "lb.toml"))
			if err == nil {
				t.Fatal("no mistake")
			}
			if got := strings.ReplaceAll(err.Error(), dir, "DIR"); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// TestIncludeOfMany: too many files, and too much text, are refused before they take memory.
func TestIncludeOfMany(t *testing.T) {
	files := map[string]string{"lb.toml": mainFile, "one.toml": ""}
	for i := range maxIncluded + 1 {
		files["conf.d/"+strings.Repeat("x", i%200)+string(rune('a'+i/200))+".toml"] = ""
	}
	dir := writeFiles(t, files)
	if _, err := Load(filepath.Join(dir, "lb.toml")); err == nil || !strings.Contains(err.Error(), "more than 1000 files") {
		t.Errorf("many files: %v", err)
	}
	big := strings.Repeat("# nothing\n", MaxFileBytes/20)
	dir = writeFiles(t, map[string]string{"lb.toml": mainFile, "one.toml": big, "conf.d/a.toml": big, "conf.d/b.toml": big})
	if _, err := Load(filepath.Join(dir, "lb.toml")); err == nil || !strings.Contains(err.Error(), "more than 4MiB") {
		t.Errorf("much text: %v", err)
	}
}
