package main

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const emptyPage = `# Speed
By hand.
<!-- bench: bars -->
<!-- bench: end -->
<!-- bench: growth -->
old
<!-- bench: end -->
<!-- bench: features -->
<!-- bench: end -->
<!-- bench: measured -->
<!-- bench: end -->
<!-- bench: configurations -->
<!-- bench: end -->
The end.
`

// The whole of `bench plot`, twice: the second time changes nothing.
func TestPlot(t *testing.T) {
	dir := t.TempDir()
	r := measuredReport(t, "bars,growth-loops,feature-connect-log", 2e-6)
	r.Contenders[0].Config = "key = \"/tmp/limeload-bench-123/limeload-l4-456/x.key\""
	r.Contenders[0].OwnConfigs = map[string]string{"refused": "limits"}
	page, json := filepath.Join(dir, "performance.md"), filepath.Join(dir, "bench.json")
	readme := filepath.Join(dir, "README.md")
	for file, text := range map[string]string{
		page: emptyPage, readme: "Cost:\n<!-- bench: summary -->\n<!-- bench: end -->\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.writeJSON(json); err != nil {
		t.Fatal(err)
	}
	plots := filepath.Join(dir, "plots")
	if err := os.Mkdir(plots, 0o700); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for range 2 {
		var stdout, stderr strings.Builder
		args := []string{"plot", "-json", json, "-page", page, "-readme", readme, "-plots", plots}
		if code := run(t.Context(), args, nil, &stdout, &stderr); code != exitDone {
			t.Fatalf("exit code %d: %s", code, stderr.String())
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		short, err := os.ReadFile(readme)
		if err != nil {
			t.Fatal(err)
		}
		if want := "| connect, one request, close | CPU time per connection | 2us |"; !strings.Contains(string(short), want) {
			t.Errorf("no %q in\n%s", want, short)
		}
		if !strings.HasPrefix(string(short), "Cost:\n") || strings.Contains(string(short), "reload") {
			t.Errorf("more is written than asked for: %s", short)
		}
		texts = append(texts, string(text)+string(short))
		for _, file := range []string{"bench-bars.svg", "bench-loops.svg"} {
			if !strings.Contains(stdout.String(), filepath.Join(plots, file)) {
				t.Errorf("%s is not in what it says: %q", file, stdout.String())
			}
			if !strings.Contains(string(text), "](plots/"+file+")") {
				t.Errorf("the page does not show %s", file)
			}
			svg, err := os.ReadFile(filepath.Join(plots, file))
			if err != nil {
				t.Fatal(err)
			}
			if err := xml.Unmarshal(svg, new(struct{})); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
	if texts[0] != texts[1] {
		t.Errorf("the second time makes\n%s\nof\n%s", texts[1], texts[0])
	}
	for _, want := range []string{
		"# Speed\nBy hand.\n", "\nThe end.\n",
		"| connect, one request, close | connect | CPU time per connection | 2us |",
		"### A request, by loops, threads or worker processes\n", "| largest step | no cliff: 1.00 from 1 to 2 |",
		"an access line for each session", "key = \"DIR/x.key\"", "limeload-l4: refused", "- 2 CPUs (a CPU)",
		"- nsd: NSD 4\n",
		"go run ./test/bench -contenders limeload-l4,nginx",
	} {
		if !strings.Contains(texts[0], want) {
			t.Errorf("no %q in\n%s", want, texts[0])
		}
	}
	if strings.Contains(texts[0], "old\n") {
		t.Error("what was between the markers is still there")
	}
}

func TestPlotRefuses(t *testing.T) {
	dir := t.TempDir()
	json, page := filepath.Join(dir, "bench.json"), filepath.Join(dir, "page.md")
	if err := measuredReport(t, "connect", 1).writeJSON(json); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(page, []byte("<!-- bench: bars -->\nno end\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-json", filepath.Join(dir, "none")}, exitFailed, "none: no such file"},
		{[]string{"-json", json, "-page", filepath.Join(dir, "none")}, exitFailed, "none: no such file"},
		{[]string{"-json", json, "-page", page}, exitFailed, `no lines "<!-- bench: bars -->" and, below it`},
		{[]string{"all"}, exitUsage, `unexpected argument "all"`},
		{[]string{"-size", "1"}, exitUsage, "flag provided but not defined"},
		{[]string{"-h"}, exitDone, "-plots"},
	} {
		var stderr strings.Builder
		if code := run(t.Context(), append([]string{"plot"}, c.args...), nil, io.Discard, &stderr); code != c.code ||
			!strings.Contains(stderr.String(), c.want) {
			t.Errorf("%q: exit code %d, %q, want %d and %q", c.args, code, stderr.String(), c.code, c.want)
		}
	}
}

func TestSheetText(t *testing.T) {
	s := sheet{titles: []string{"a", "b"}}
	var b strings.Builder
	if s.text(&b); b.Len() > 0 {
		t.Errorf("a sheet without rows is %q", b.String())
	}
	s.row("long|er", "1")
	s.text(&b)
	if want := "a        b\nlong|er  1\n\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	if want := "| a | b |\n|---|---|\n| long\\|er | 1 |\n"; s.markdown() != want {
		t.Errorf("%q, want %q", s.markdown(), want)
	}
}
