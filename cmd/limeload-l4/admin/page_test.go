package admin

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pageViolations returns what a file of the page must not have.
func pageViolations(name, text string) []string {
	var found []string
	rules := []struct{ what, pattern string }{
		{"markup from a string", `(inner|outer|insertAdjacent|set)HTML|document\.write|DOMParser|createContextualFragment`},
		{"code from a string", `\beval\(|new Function|setTimeout\("`},
		{"an address of elsewhere", `(?i)https?://|["'(]//`},
		{"an import that is no file of the page", `(?m)^(import|export) .*from "(?:[^.]|\.[^/])`},
		{"a cookie", `document\.cookie`},
	}
	if strings.HasSuffix(name, ".html") {
		rules = append(rules, []struct{ what, pattern string }{
			{"a script within", `<script(?:[^>]*)>[^<]`}, {"a style within", `<style|\sstyle=`},
			{"a listener within", `\son\w+=`},
			{"a file that is not the page's", `(?:src|href)="(?:[^/#]|/[^p])`},
		}...)
	}
	namespaces := strings.NewReplacer("http://www.w3.org/2000/svg", "")
	for _, r := range rules {
		if at := regexp.MustCompile(r.pattern).FindString(namespaces.Replace(text)); at != "" {
			found = append(found, r.what+": "+at)
		}
	}
	return found
}

// TestPageFiles checks every file of the page: it is sent as what it is, with the policy, and holds nothing that the
// policy forbids. What a browser makes of them is tested in test/page_test.go.
func TestPageFiles(t *testing.T) {
	t.Parallel()
	bad := `<script src="/page/a.js">x</script><p style="a" onclick="b"><a href="https://example.com/">c</a>` +
		"e.innerHTML = eval(x); document.cookie\nimport { x } from \"lib\";"
	if got := pageViolations("bad.html", bad); len(got) != 9 {
		t.Fatalf("the guard finds %q in the bad sample", got)
	}
	w := start(t, "secret") // no token is sent
	files, err := fs.ReadDir(pageFiles, "page")
	check(t, err)
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
		text, err := fs.ReadFile(pageFiles, "page/"+f.Name())
		check(t, err)
		for _, violation := range pageViolations(f.Name(), string(text)) {
			t.Errorf("%s has %s", f.Name(), violation)
		}
		got := w.do(t, request{method: "GET", target: pagePath + f.Name()})
		if got.status != 200 || got.body != string(text) || got.header.Get("Content-Type") != pageMedia(f.Name()) ||
			got.header.Get("Content-Security-Policy") != pagePolicy || got.header.Get("X-Content-Type-Options") != "nosniff" ||
			got.header.Get("Referrer-Policy") != "no-referrer" ||
			got.header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
			t.Errorf("%s: %d, header %v", f.Name(), got.status, got.header)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if len([]rune(line)) > 120 && f.Name() != "icon.svg" && !strings.Contains(line, "<path") {
				t.Errorf("%s:%d is longer than 120 columns", f.Name(), i+1)
			}
		}
	}
	if !slices.Contains(names, "app.js") || !slices.Contains(names, "index.html") || !slices.Contains(names, "style.css") {
		t.Errorf("the files are %q", names)
	}
}

// TestPageLink follows a link of another site to the page. The page opens; its files and the API stay closed to that
// site.
func TestPageLink(t *testing.T) {
	t.Parallel()
	w := start(t, "")
	follow := map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
	frame := map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
	load := map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}
	if got := w.overTCP(t, request{method: "GET", target: "/", header: follow}); got.status != 200 {
		t.Errorf("a link to the page: %d %s", got.status, got.body)
	}
	if p := w.overTCP(t, request{method: "GET", target: "/", host: "evil.example", header: follow}).problem(t); p.Type !=
		problemWrongHost {
		t.Errorf("a link by another name: %s", p.Type)
	}
	for _, refused := range []request{
		{method: "GET", target: "/", header: frame}, {method: "GET", target: "/page/app.js", header: load},
		{method: "GET", target: "/v1/status", header: follow}, {method: "GET", target: "/ready", header: follow},
		{method: "POST", target: "/v1/reload", header: follow}, {method: "DELETE", target: path1, header: follow},
	} {
		if p := w.overTCP(t, refused).problem(t); p.Type != problemCrossOrigin {
			t.Errorf("%s %s with %v: %s", refused.method, refused.target, refused.header, p.Type)
		}
	}
	if done := w.fake.done(); len(done) > 0 {
		t.Errorf("the daemon did %q", done)
	}
}

// TestReadOnlyStatus asks whether requests may only read, on each kind of address.
func TestReadOnlyStatus(t *testing.T) {
	t.Parallel()
	w := start(t, "")
	const readOnly = `"read_only":true`
	if got := w.overTCP(t, request{method: "GET", target: "/v1/status"}); !strings.Contains(got.body, readOnly) {
		t.Errorf("TCP without a token: %s", got.body)
	}
	if got := w.do(t, request{method: "GET", target: "/v1/status"}); strings.Contains(got.body, readOnly) {
		t.Errorf("the Unix socket: %s", got.body)
	}
	w.server.SetToken("secret")
	got := w.overTCP(t, request{method: "GET", target: "/v1/status",
		header: map[string]string{"Authorization": "Bearer secret"}})
	if got.status != 200 || strings.Contains(got.body, readOnly) {
		t.Errorf("TCP with a token: %d %s", got.status, got.body)
	}
}
