package probe

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/limeload/limeload-l4/healthcheck"
)

// This file compares docs/health.md with the code of both packages. Each failure in the code has a row in the
// document's table with the same verdict, and each row has a failure (TestFailuresAreDocumented). Each failure that a
// test of this package provokes has a row with its verdict (documented, which failsWith and wantWords call). Some test
// provokes each row (unprovoked, which TestMain calls after all tests).

// healthDocument is where an operator looks up what a reason means.
const healthDocument = "../../docs/health.md"

// A documentedFailure is a row of the table of failures.
type documentedFailure struct {
	reason  string // with <...> for what varies
	verdict string
	pattern *regexp.Regexp // made by compile
}

// ofAnother is the verdict of a row whose reason has another failure in it.
const ofAnother = "the failure's"

var (
	documentedRow = regexp.MustCompile("^\\| `([^`]+)` \\| ([a-z_' ]+) \\|")
	placeholder   = regexp.MustCompile(`<[^<>]+>`)
	formatVerb    = regexp.MustCompile(`%[a-z]`)
)

// text returns the reason with ... in place of the parts that vary.
func (d documentedFailure) text() string { return placeholder.ReplaceAllString(d.reason, "...") }

// compile sets the pattern of the row, for matches.
func (d *documentedFailure) compile() {
	expression := "^"
	for rest := d.reason; ; {
		place := placeholder.FindStringIndex(rest)
		if place == nil {
			d.pattern = regexp.MustCompile(expression + regexp.QuoteMeta(rest) + "$")
			return
		}
		group := "(?:.+?)"
		if strings.HasPrefix(rest[place[0]:], "<failure") {
			group = "(.+?)"
		}
		expression += regexp.QuoteMeta(rest[:place[0]]) + group
		rest = rest[place[1]:]
	}
}

// matches reports whether a reason is an instance of the row, and returns the failures that are quoted in it.
func (d documentedFailure) matches(reason string) (within []string, ok bool) {
	found := d.pattern.FindStringSubmatch(reason)
	if found == nil {
		return nil, false
	}
	within = found[1:]
	if strings.Contains(d.reason, "<failures>") { // of any_of, and no other
		within = strings.Split(within[0], "; ")
	}
	return within, true
}

// byPrecision orders rows that match the same reason. First come rows with a failure in them, then those with the
// longer constant start, then those with more constant text.
func byPrecision(a, b documentedFailure) int {
	nested := func(d documentedFailure) int { return strings.Count(d.reason, "<failure") }
	start := func(d documentedFailure) int { return strings.Index(d.text()+"...", "...") }
	return cmp.Or(nested(b)-nested(a), start(b)-start(a), len(b.text())-len(a.text()))
}

// parseFailures returns the rows of a document's table of failures, the more precise ones first.
func parseFailures(document string) (rows []documentedFailure, err error) {
	_, table, found := strings.Cut(document, "### What each failure comes to\n")
	if !found {
		return nil, errors.New("the document has no table of failures")
	}
	table, _, _ = strings.Cut(table, "\n#")
	seen := make(map[string]bool)
	for line := range strings.Lines(table) {
		m := documentedRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		row := documentedFailure{reason: m[1], verdict: m[2]}
		if seen[row.text()] {
			return nil, fmt.Errorf("two rows for %s", row.reason)
		}
		seen[row.text()] = true
		row.compile()
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, byPrecision)
	return rows, nil
}

// readFailures returns the rows of the document. It reads them once.
var readFailures = sync.OnceValues(func() ([]documentedFailure, error) {
	b, err := os.ReadFile(healthDocument)
	if err != nil {
		return nil, err
	}
	return parseFailures(string(b))
})

// A codeReader collects the texts of failures, and their verdicts, from Go code.
type codeReader struct {
	constants map[string]string
	texts     map[string]string
	mistakes  []string
}

// verdictsOfTexts returns the verdicts of the functions that make a failure from a format, and of the functions
// ...Words whose verdict is not unhealthy.
func verdictsOfTexts() map[string]string {
	return map[string]string{
		"unhealthyf": "unhealthy", "wrongRolef": "wrong_role", "laggingf": "lagging",
		"fallbackf": "fallback", "cannotCheckf": "inconclusive",
		"refusedf": "refused", "redisRefusalWords": "refused",
		"staleWords": "unknown", "rivalWords": "wrong_role", "laterWords": "wrong_role",
		"namedWords": "wrong_role", "unnamedWords": "wrong_role", "nobodyWords": "unknown", "memberWords": "wrong_role",
	}
}

// text adds the text of a format. A format that is just "%s" has no text of its own.
func (r *codeReader) text(format, verdict string) {
	if verdict == "inconclusive" {
		format = "cannot check: " + format
	}
	if text := formatVerb.ReplaceAllString(format, "..."); text != "..." && text != "" {
		r.texts[text] = verdict
	}
}

// value returns the text of a literal or of a constant.
func (r *codeReader) value(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, err == nil && e.Kind == token.STRING
	case *ast.Ident:
		s, ok := r.constants[e.Name]
		return s, ok
	}
	return "", false
}

// call adds the format of a call that makes a failure.
func (r *codeReader) call(call *ast.CallExpr) {
	name, ok := call.Fun.(*ast.Ident)
	if !ok || !strings.HasSuffix(name.Name, "f") || verdictsOfTexts()[name.Name] == "" || len(call.Args) == 0 {
		return
	}
	if format, ok := r.value(call.Args[0]); ok {
		r.text(format, verdictsOfTexts()[name.Name])
	} else if _, passedOn := call.Args[0].(*ast.Ident); !passedOn {
		if _, sum := call.Args[0].(*ast.BinaryExpr); !sum || name.Name != "unhealthyf" {
			r.mistakes = append(r.mistakes, name.Name+" has a format that is no text")
		}
	}
}

// words adds the texts that a function ...Words returns.
func (r *codeReader) words(f *ast.FuncDecl) {
	verdict := verdictsOfTexts()[f.Name.Name]
	if verdict == "" {
		verdict = "unhealthy"
	}
	ast.Inspect(f.Body, func(n ast.Node) bool {
		ret, ok := n.(*ast.ReturnStmt)
		if !ok || len(ret.Results) != 1 {
			return true
		}
		result := ret.Results[0]
		if call, ok := result.(*ast.CallExpr); ok { // fmt.Sprintf
			result = call.Args[0]
		}
		if s, ok := r.value(result); ok {
			r.text(s, verdict)
		} else {
			r.mistakes = append(r.mistakes, f.Name.Name+" returns what is no text")
		}
		return true
	})
}

// codeFailures returns the texts of failures in Go files with their verdicts, and the places that hide a text from it.
func codeFailures(files map[string]string) (texts map[string]string, mistakes []string, err error) {
	r := codeReader{constants: make(map[string]string), texts: make(map[string]string)}
	parsed := make(map[string]*ast.File)
	for name, source := range files {
		if parsed[name], err = parser.ParseFile(token.NewFileSet(), name, source, 0); err != nil {
			return nil, nil, err
		}
		ast.Inspect(parsed[name], func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && len(v.Names) == len(v.Values) {
				for i := range v.Names {
					if s, ok := r.value(v.Values[i]); ok {
						r.constants[v.Names[i].Name] = s
					}
				}
			}
			return true
		})
	}
	for name, file := range parsed {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if strings.HasSuffix(n.Name.Name, "Words") {
					r.words(n)
				}
			case *ast.CompositeLit:
				if t, ok := n.Type.(*ast.Ident); ok && t.Name == "checkError" && name != "failure.go" {
					r.mistakes = append(r.mistakes, name+" makes a checkError by itself")
				}
			case *ast.CallExpr:
				r.call(n)
			}
			return true
		})
	}
	slices.Sort(r.mistakes)
	return r.texts, r.mistakes, nil
}

// readCode is codeFailures for the files that match the patterns, without tests.
func readCode(patterns ...string) (texts map[string]string, mistakes []string, err error) {
	files := make(map[string]string)
	for _, pattern := range patterns {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return nil, nil, err
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") || name == "agent.go" { // an agent gives no verdict
				continue
			}
			b, err := os.ReadFile(name)
			if err != nil {
				return nil, nil, err
			}
			files[name] = string(b)
		}
	}
	return codeFailures(files)
}

// undocumented returns the differences between the texts of the code and the rows of the document.
func undocumented(texts map[string]string, rows []documentedFailure) (differences []string) {
	left := maps.Clone(texts)
	for _, row := range rows {
		verdict, known := left[row.text()]
		delete(left, row.text())
		switch nested := strings.Contains(row.reason, "<failure"); {
		case !known:
			differences = append(differences, "only in the document: "+row.reason)
		case nested && row.verdict != ofAnother, !nested && row.verdict != verdict:
			differences = append(differences,
				fmt.Sprintf("%s is %s, in the document %s", row.reason, verdict, row.verdict))
		}
	}
	for text := range left {
		differences = append(differences, "not in the document: "+text)
	}
	slices.Sort(differences)
	return differences
}

func TestFailuresAreDocumented(t *testing.T) {
	sample := map[string]string{"sample.go": `package p
const short = "short words"
func fooWords(n int) string { if n > 0 { return short }; return "other words" }
func rivalWords(a string) string { return fmt.Sprintf("as %s does", a) }
func hiddenWords() string { return strings.ToUpper(x + y) }
func f() error {
	if a { return unhealthyf("got %s, wanted %d", x, y).because(err) }
	if b { return laggingf("late by %v", x) }
	if c { return cannotCheckf("%s", x) }
	if d { return unhealthyf("%s", fooWords(1)) }
	if e { return unhealthyf(strings.ToUpper(x)) }
	if f { return unhealthyf("step %d: %v", n, err).because(err) }
	if g { return refusedf("no %s", x) }
	return &checkError{words: "secret"}
}`}
	texts, mistakes, err := codeFailures(sample)
	must(t, err)
	wantTexts := map[string]string{
		"short words": "unhealthy", "other words": "unhealthy", "as ... does": "wrong_role",
		"got ..., wanted ...": "unhealthy",
		"late by ...":         "lagging", "cannot check: ...": "inconclusive", "step ...: ...": "unhealthy",
		"no ...": "refused",
	}
	wantMistakes := []string{"hiddenWords returns what is no text", "sample.go makes a checkError by itself",
		"unhealthyf has a format that is no text"}
	if !maps.Equal(texts, wantTexts) || !slices.Equal(mistakes, wantMistakes) {
		t.Fatalf("the guard finds %q and %q in the bad sample, want %q and %q", texts, mistakes, wantTexts,
			wantMistakes)
	}
	rows, err := parseFailures("# Doc\n### What each failure comes to\n| reason | verdict | x |\n|---|---|---|\n" +
		"| `short words` | lagging | |\n| `other words` | unhealthy | |\n| `as <name> does` | wrong_role | |\n" +
		"| `late by <time>` | lagging | |\n" +
		"| `got <a>, wanted <b>` | unhealthy | |\n| `never said` | unhealthy | |\n" +
		"| `step <n>: <failure>` | unhealthy | |\n| `no <right>` | refused | |\n## Next\n| `no row` | unhealthy | |\n")
	must(t, err)
	want := []string{
		"not in the document: cannot check: ...", "only in the document: never said",
		"short words is unhealthy, in the document lagging",
		"step <n>: <failure> is unhealthy, in the document unhealthy",
	}
	if got := undocumented(texts, rows); !slices.Equal(got, want) {
		t.Fatalf("the guard finds %q in the bad sample, want %q", got, want)
	}

	texts, mistakes, err = readCode("*.go", "../*.go")
	must(t, err)
	rows, err = readFailures()
	must(t, err)
	for _, what := range append(mistakes, undocumented(texts, rows)...) {
		t.Error(what)
	}
}

// provoked has the reasons of the rows that a test has provoked.
var provoked sync.Map

// lookUp returns the row of a reason: the first one that matches, which is the most precise one. If the reason quotes
// failures, they must have rows as well.
func lookUp(rows []documentedFailure, reason string) (documentedFailure, error) {
	for _, row := range rows {
		within, ok := row.matches(reason)
		for _, failure := range within {
			if _, err := lookUp(rows, failure); err != nil {
				ok = false
			}
		}
		if ok {
			provoked.Store(row.reason, true)
			return row, nil
		}
	}
	return documentedFailure{}, fmt.Errorf("the reason %q is in no row of %s", reason, healthDocument)
}

// documented fails the test unless the document has a row for a check's error, with its verdict.
func documented(t testing.TB, err error) {
	t.Helper()
	var said *checkError
	if !errors.As(err, &said) || said != err || said.words == "cancelled" ||
		strings.HasSuffix(said.words, ": cancelled, received nothing") {
		return // what no operator reads
	}
	rows, readErr := readFailures()
	if readErr != nil {
		t.Fatal(readErr)
	}
	row, lookErr := lookUp(rows, said.words)
	if lookErr != nil {
		t.Error(lookErr)
		return
	}
	verdict := "unhealthy"
	switch {
	case errors.Is(err, healthcheck.ErrCredentials):
		verdict = "refused"
	case errors.Is(err, healthcheck.ErrInconclusive):
		verdict = "inconclusive"
	case errors.Is(err, healthcheck.ErrWrongRole):
		verdict = "wrong_role"
	case errors.Is(err, healthcheck.ErrLagging):
		verdict = "lagging"
	case errors.Is(err, healthcheck.ErrFallback):
		verdict = "fallback"
	}
	if row.verdict != verdict && row.verdict != ofAnother {
		t.Errorf("%q is %s, in the document %s", said.words, verdict, row.verdict)
	}
}

func TestLookUp(t *testing.T) {
	document := "### What each failure comes to\n"
	for reason, verdict := range map[string]string{
		"<answer>, wanted <answer>": "unhealthy", "is <number>, wanted <numbers>": "unhealthy", "bad": "unhealthy",
		"no <text>, got <answer>": "unhealthy",
		"step <n>: <failure>":     ofAnother, "<failure>, got <answer>": ofAnother, "none of these: <failures>": ofAnother,
	} {
		document += fmt.Sprintf("| `%s` | %s | | |\n", reason, verdict)
	}
	rows, err := parseFailures(document)
	must(t, err)
	for reason, want := range map[string]string{
		"bad": "bad", "bad luck": "", "step 3: no x, got y": "step <n>: <failure>",
		"step 3: bad, got y": "step <n>: <failure>", "is 9, wanted 8": "is <number>, wanted <numbers>",
		"x, wanted y": "<answer>, wanted <answer>",
		"step 3: bad": "step <n>: <failure>", "step 3: worse": "",
		"none of these: bad; x, wanted y": "none of these: <failures>", "none of these: bad; worse": "",
	} {
		if row, err := lookUp(rows, reason); err == nil && row.reason != want || (err != nil) != (want == "") {
			t.Errorf("%q is in the row %q, %v; want %q", reason, row.reason, err, want)
		}
	}
}

// unprovoked returns the rows of this package's failures that no test has provoked. It returns nothing unless all tests
// ran.
func unprovoked() (left []string, err error) {
	for _, name := range []string{"test.run", "test.skip", "test.fuzz", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return nil, nil
		}
	}
	rows, err := readFailures()
	if err != nil {
		return nil, err
	}
	ofScheduler, _, err := readCode("../*.go") // its own tests provoke them
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		_, met := provoked.Load(row.reason)
		if _, its := ofScheduler[row.text()]; !met && !its {
			left = append(left, row.reason)
		}
	}
	return left, nil
}
