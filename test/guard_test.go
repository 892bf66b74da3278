package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// The guards check the rules of the repository. Each first proves on a bad sample that it can fail. They read files
// that the test cache does not track, and so need -count=1.

const module = "github.com/limeload/limeload-l4"

// A listed is a package as `go list -json` shows it.
type listed struct {
	ImportPath   string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
}

func listPackages(t *testing.T) []listed {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list",
		"-json=ImportPath,Dir,Imports,TestImports,XTestImports,GoFiles", module+"/...")
	out, err := list.Output()
	check(t, err)
	var packages []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		check(t, err)
		packages = append(packages, p)
	}
}

// houseImports returns which of our packages each package may import. All our packages must be in it.
func houseImports() map[string][]string {
	return map[string][]string{
		"cmd/limeload-l4": {
			"conf", "conf/file", "algo", "pool", "l4", "cmd/limeload-l4/admin", "cmd/limeload-l4/convert",
			"cmd/limeload-l4/daemon",
		},
		"cmd/limeload-l4/convert": nil, // knows texts only: whether a result is good, package conf says
		"cmd/limeload-l4/admin":   {"pool"},
		"cmd/limeload-l4/fdconn":  nil,
		"cmd/limeload-l4/daemon": {
			"conf", "conf/file", "algo", "pool", "pool/discovery", "pool/rate", "healthcheck", "healthcheck/probe", "l4",
			"cmd/limeload-l4/admin", "cmd/limeload-l4/fdconn", "cmd/limeload-l4/fleet", "pool/discovery/etcd",
		},
		"cmd/limeload-l4/fleet":             {"algo", "pool/discovery/etcd"},
		"cmd/limeload-l4/packaging/release": nil,

		"conf":                 {"conf/file", "algo"}, // for the names of the algorithms
		"conf/file":            nil,                   // knows nothing of conf: how files are read, whoever reads them
		"algo":                 nil,
		"pool":                 {"algo", "pool/rate"},
		"pool/rate":            nil,
		"pool/discovery":       {"pool", "conf/file", "pool/discovery/etcd", "pool/discovery/reach"},
		"pool/discovery/etcd":  {"pool/discovery/reach"},
		"pool/discovery/reach": nil, // knows no protocol: how an endpoint is reached, whoever wants to
		"healthcheck":          nil,
		"healthcheck/probe":    {"healthcheck"},
		"l4": inL4(
			"dial", "dns", "dns/dnscache", "farewell", "flow", "gate", "listen", "loop", "postgres", "session", "sock",
			"tally", "tlsconn",
		),
		"l4/internal/dns":          inL4("dial", "dns/dnscache", "flow", "gate", "loop", "session", "sock", "tally", "wire"),
		"l4/internal/farewell":     inL4("loop", "session", "sock", "tally", "wire"),
		"l4/internal/postgres":     inL4("dial", "loop", "session", "sock", "tally", "wire"),
		"l4/internal/flow":         inL4("dial", "gate", "listen", "loop", "sock", "tally", "wire"),
		"l4/internal/session":      inL4("dial", "gate", "listen", "loop", "sock", "tally", "tlsconn", "wire"),
		"l4/internal/gate":         inL4("dial", "sock", "tally"),
		"l4/internal/dial":         inL4("sock"),
		"l4/internal/tally":        inL4("sock"),
		"l4/internal/listen":       {"l4/internal/sock"},
		"l4/internal/loop":         {"l4/internal/sock"},
		"l4/internal/sock":         nil,
		"l4/internal/tlsconn":      inL4("loop", "sock"),
		"l4/internal/wire":         nil,
		"l4/internal/dns/dnscache": nil,
		// For tests only.
		"l4/internal/l4test": append(
			inL4("dns", "flow", "gate", "listen", "loop", "session", "sock", "tally"), "l4", "test/harness",
		),
		"test":             {"test/harness"},
		"test/bench":       {"test/harness", "test/bench/chart"},
		"test/bench/chart": nil, // knows nothing of what it draws
		"test/counts":      {"test/harness"},
		"test/harness":     nil,
		"test/install":     nil,
		"test/vm":          nil,
		"test/fleetsim":    {"algo", "pool", "cmd/limeload-l4/fleet"},
		"test/packaging":   {"test/harness"},
	}
}

// inL4 returns rooms of the data plane, and pool.
func inL4(rooms ...string) []string {
	names := []string{"pool", "pool/rate"}
	for _, room := range rooms {
		names = append(names, "l4/internal/"+room)
	}
	return names
}

// importViolations returns the imports of these packages that break the import graph.
func importViolations(packages []listed) []string {
	allowed := houseImports()
	var violations []string
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		own, known := allowed[name]
		if !known {
			violations = append(violations, "package "+name+" has no place in the house")
			continue
		}
		for _, imported := range p.Imports {
			if !mayImport(name, imported, own) {
				violations = append(violations, name+" imports "+imported)
			}
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			// tests may also use the harness, and an external test imports its own package
			may := append([]string{name, "test/harness"}, own...)
			if strings.HasPrefix(name, "l4") { // tests of a room may start the whole data plane
				may = append(append(may, "l4", "l4/internal/l4test"), houseImports()["l4"]...)
				may = append(may, "l4/internal/wire")
			}
			if !mayImport(name, imported, may) {
				violations = append(violations, "tests of "+name+" import "+imported)
			}
		}
	}
	return violations
}

func mayImport(name, imported string, own []string) bool {
	if imported == "golang.org/x/sys/unix" {
		return name == "l4/internal/sock" || strings.HasPrefix(name, "test/")
	}
	ours, isOurs := strings.CutPrefix(imported, module+"/")
	return !isOurs || slices.Contains(own, ours)
}

func TestImportGraph(t *testing.T) {
	t.Parallel()
	bad := []listed{
		{ImportPath: module + "/pool", Imports: []string{"fmt", module + "/algo", module + "/l4"}},
		{ImportPath: module + "/healthcheck", Imports: []string{module + "/conf"}},
		{ImportPath: module + "/l4", Imports: []string{module + "/l4/internal/sock", "golang.org/x/sys/unix"}},
		{ImportPath: module + "/conf", TestImports: []string{module + "/test/harness", module + "/pool"}},
		{ImportPath: module + "/test/harness", Imports: []string{module + "/l4"}},
		{ImportPath: module + "/util"},
	}
	got := importViolations(bad)
	expected := []string{
		"pool imports " + module + "/l4",
		"healthcheck imports " + module + "/conf",
		"l4 imports golang.org/x/sys/unix",
		"tests of conf import " + module + "/pool",
		"test/harness imports " + module + "/l4",
		"package util has no place in the house",
	}
	if !slices.Equal(got, expected) {
		t.Fatalf("the guard finds %q in the bad sample, expected %q", got, expected)
	}

	packages := listPackages(t)
	var names []string
	for _, p := range packages {
		names = append(names, strings.TrimPrefix(p.ImportPath, module+"/"))
	}
	slices.Sort(names)
	if house := slices.Sorted(maps.Keys(houseImports())); !slices.Equal(names, house) {
		t.Errorf("the packages are %q, expected %q", names, house)
	}
	for _, violation := range importViolations(packages) {
		t.Error(violation)
	}
}

// folderViolations returns the top-level folders that should not exist.
func folderViolations(folders []string) []string {
	// make creates build
	house := []string{"cmd", "conf", "algo", "pool", "healthcheck", "l4", "test", "docs", "build"}
	return slices.DeleteFunc(slices.Clone(folders), func(name string) bool {
		return strings.HasPrefix(name, ".") || slices.Contains(house, name)
	})
}

func TestTopLevelFolders(t *testing.T) {
	t.Parallel()
	if got := folderViolations([]string{"algo", ".ci", "internal", "l4"}); !slices.Equal(got, []string{"internal"}) {
		t.Fatalf("the guard finds %q in the bad sample", got)
	}
	entries, err := os.ReadDir("..")
	check(t, err)
	var folders []string
	for _, e := range entries {
		if e.IsDir() {
			folders = append(folders, e.Name())
		}
	}
	for _, folder := range folderViolations(folders) {
		t.Errorf("top-level folder %s has no place in the house", folder)
	}
}

// sourceViolations returns the violations of the rules on comments and forbidden words in one package's files, without
// tests.
func sourceViolations(fset *token.FileSet, files []*ast.File) []string {
	var violations []string
	report := func(at token.Pos, format string, args ...any) {
		violations = append(violations, fmt.Sprintf("%s: %s", fset.Position(at), fmt.Sprintf(format, args...)))
	}
	var comments int
	for _, file := range files {
		if file.Doc != nil {
			comments++
		}
		for _, decl := range file.Decls {
			documentedDecl(decl, report)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, is := n.(*ast.CallExpr); is {
				if name, is := call.Fun.(*ast.Ident); is && name.Name == "recover" {
					report(call.Pos(), "recover")
				}
			}
			return true
		})
	}
	if comments != 1 {
		report(files[0].Package, "%d package comments, expected one", comments)
	}
	return violations
}

// documentedDecl reports exported names without a doc comment, and functions named init.
func documentedDecl(decl ast.Decl, report func(token.Pos, string, ...any)) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil && d.Name.Name == "init" {
			report(d.Pos(), "func init")
		}
		if d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiverName(d.Recv.List[0].Type))) && d.Doc == nil {
			report(d.Pos(), "%s has no comment", d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
					report(s.Pos(), "%s has no comment", s.Name.Name)
				}
			case *ast.ValueSpec:
				for _, name := range s.Names { // a group may have one comment for all
					if name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						report(name.Pos(), "%s has no comment", name.Name)
					}
				}
			}
		}
	}
}

func receiverName(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.StarExpr:
		return receiverName(x.X)
	case *ast.IndexExpr:
		return receiverName(x.X)
	case *ast.Ident:
		return x.Name
	}
	return ""
}

const badSource = `package bad

func init() {}

func Exported() { defer func() { _ = recover() }() }

type Thing struct{}

func (t *Thing) Method() {}

type hidden struct{}

func (h hidden) Method() {}

const One = 1

// Good has one.
func Good() {}
`

func TestSourceRules(t *testing.T) {
	t.Parallel()
	fset := token.NewFileSet()
	bad, err := parser.ParseFile(fset, "bad.go", badSource, parser.ParseComments)
	check(t, err)
	expected := []string{
		"bad.go:3:1: func init",
		"bad.go:5:1: Exported has no comment",
		"bad.go:7:6: Thing has no comment",
		"bad.go:9:1: Method has no comment",
		"bad.go:15:7: One has no comment",
		"bad.go:5:38: recover",
		"bad.go:1:1: 0 package comments, expected one",
	}
	if got := sourceViolations(fset, []*ast.File{bad}); !slices.Equal(got, expected) {
		t.Fatalf("the guard finds %q in the bad sample, expected %q", got, expected)
	}

	for _, p := range listPackages(t) {
		var files []*ast.File
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
			check(t, err)
			files = append(files, file)
		}
		if len(files) == 0 {
			continue // test holds tests alone
		}
		for _, violation := range sourceViolations(fset, files) {
			t.Error(violation)
		}
	}
}

// TestReadmeExamples checks every configuration in the README with the binary.
func TestReadmeExamples(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	check(t, err)
	checkConfig := func(config string) (string, int) {
		file := filepath.Join(t.TempDir(), "lb.toml")
		check(t, os.WriteFile(file, []byte(config), 0o600))
		_, stderr, code := harness.Run(t, harness.Command{
			Path: harness.Binary(t, false), Args: []string{"check", "--syntax", "--config", file},
		})
		return stderr, code
	}
	if _, code := checkConfig("[listener.a]\n"); code != 1 {
		t.Fatalf("the guard accepts the bad sample, exit code %d", code)
	}
	examples := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(examples) == 0 {
		t.Error("the README shows no configuration")
	}
	for _, example := range examples {
		if stderr, code := checkConfig(example[1]); code != 0 {
			t.Errorf("exit code %d for\n%s\n%s", code, example[1], stderr)
		}
	}
}
