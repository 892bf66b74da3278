package conf

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// compiledSchema returns the schema as a library of JSON Schema understands it.
func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("lb.schema.json", document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("lb.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// againstSchema returns why the schema refuses a text of TOML; nil if it does not.
func againstSchema(t *testing.T, s *jsonschema.Schema, text string) error {
	t.Helper()
	found := map[string]any{}
	if _, err := toml.Decode(text, &found); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	asJSON, err := json.Marshal(found)
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(document)
}

// TestSchemaAccepts: the schema refuses no configuration that is one: the reference, all keys with their values in
// effect, the examples, and what the documents show.
func TestSchemaAccepts(t *testing.T) {
	s := compiledSchema(t)
	texts := map[string]string{"reference.toml": string(Reference)}
	c, err := Parse("reference.toml", Reference)
	if err != nil {
		t.Fatal(err)
	}
	texts["in effect"] = string(c.Effective())
	examples, err := filepath.Glob("../cmd/limeload-l4/packaging/configurations/*.toml")
	if err != nil || len(examples) < 7 {
		t.Fatalf("%d examples, %v", len(examples), err)
	}
	for _, file := range examples {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[file] = string(text)
	}
	for name, text := range texts {
		if err := againstSchema(t, s, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSchemaAcceptsDocuments: the schema refuses no block of TOML in the documents that begins with a table.
func TestSchemaAcceptsDocuments(t *testing.T) {
	s := compiledSchema(t)
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, page := range append(pages, "../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			if !regexp.MustCompile(`^(#.*\n|\n)*\[`).MatchString(block[1]) {
				continue // keys of a table that the text names
			}
			n++
			if err := againstSchema(t, s, block[1]); err != nil {
				t.Errorf("%s: %v in\n%s", filepath.Base(page), err, block[1])
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d blocks", n)
	}
}

const schemaGood = `
[listener.a]
address = ":1"
pool = "a"
[pool.a]
backends = ["10.0.0.1:1", { address = "${HOST}:1" }]
connect_timeout = "${TIMEOUT:-3s}"
algorithm = "${ALGORITHM:-random}"
`

// TestSchemaRefuses: the schema refuses what an editor should mark.
func TestSchemaRefuses(t *testing.T) {
	s := compiledSchema(t)
	if err := againstSchema(t, s, schemaGood); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"[globl]\nworkers = 1",
		"workers = 1",
		"[global]\nworkrs = 1",
		"[global]\nworkers = \"2\"",
		"[global]\nworkers = 2.5",
		"[global]\nworkers = 1025",
		"[global]\ndrain_timeout = 30",
		"[global]\ndrain_timeout = \"30\"",
		"[global]\nwatch = \"yes\"",
		"[log]\nlevel = \"verbose\"",
		"[listener]\nname = \"a\"",
		"[listener.\"a b\"]\naddress = \":1\"\npool = \"a\"",
		"[listener.a]\npool = \"a\"",     // address is missing
		"[listener.a]\naddress = \":1\"", // pool, or routes
		"[listener.a]\naddress = 80\npool = \"a\"",
		"[listener.a]\naddress = []\npool = \"a\"",
		"[listener.a]\naddress = \":1\"\npool = \"a\"\nreceive_buffer = \"4 MiB\"",
		"[listener.a]\naddress = \":1\"\npool = \"a\"\nlimits = { client_rate = \"100\" }",
		"[listener.a]\naddress = \":1\"\npool = \"a\"\nlimits = { client_bandwidth = \"1MiB\" }",
		"[listener.a]\naddress = \":1\"\npool = \"a\"\nlimits = { tracked_clients = 1 }",
		"[pool.a]\nalgorithm = \"random\"", // backends, or discovery
		"[pool.a]\nbackends = [1]",
		"[pool.a]\nbackends = [{ addres = \"10.0.0.1:1\" }]",
		"[pool.a]\nbackends = [{ address = \"10.0.0.1:1\", weight = 257 }]",
		"[pool.a]\nbackends = \"10.0.0.1:1\"",
		"[pool.a]\nbackends = [\"10.0.0.1:1\"]\nalgorithm = \"least_con\"",
		"[pool.a]\nbackends = [\"10.0.0.1:1\"]\nhealth = \"tcp\"",
		"[pool.a]\nbackends = [\"10.0.0.1:1\"]\nhealth = { type = \"ping\" }",
		"[pool.a]\nbackends = [\"10.0.0.1:1\"]\nhealth = { steps = [{ send = \"a\", expect = \"b\" }] }",
		"[pool.a]\nbackends = [\"10.0.0.1:1\"]\nhealth = { type = \"dns\", query = \"a\", expect = [\"OK\"] }",
		"[pool.a]\nbackends = [\"10.0.0.1:1\"]\nrebalance = { rate = \"1%\" }",
		"[pool.a]\ndiscovery = { name = \"a\" }", // type is missing
	} {
		if againstSchema(t, s, bad) == nil {
			t.Errorf("the schema accepts\n%s", bad)
		}
	}
}

// schemaPaths returns the paths of all keys of a table.
func schemaPaths(t reflect.Type, path string) (paths []string) {
	for _, f := range fieldsOf(t) {
		sub, sort := join(path, f.key), t.FieldByIndex(f.index).Type
		paths = append(paths, sub)
		for sort.Kind() == reflect.Pointer {
			sort = sort.Elem()
		}
		switch {
		case f.named:
			paths = append(paths, schemaPaths(sort.Elem(), sub+".*")...)
		case sort.Kind() == reflect.Slice && sort.Elem().Kind() == reflect.Struct:
			paths = append(paths, schemaPaths(sort.Elem(), sub+"[]")...)
		case isTable(sort):
			paths = append(paths, schemaPaths(sort, sub)...)
		}
	}
	return paths
}

// TestSchemaDescribesAll: each key has a description, and each text of schemaTexts is of a key. A description can be
// read alone.
func TestSchemaDescribesAll(t *testing.T) {
	s := &schema{texts: schemaTexts(), reference: referenceTexts()}
	if s.describe("pool.*.nothing") != "" {
		t.Fatal("the guard misses no key")
	}
	paths := schemaPaths(reflect.TypeFor[Config](), "")
	if len(paths) < 250 {
		t.Fatalf("only %d keys", len(paths))
	}
	known := map[string]bool{}
	for _, path := range paths {
		known[path] = true
		text := s.describe(path)
		if len(text) < 15 && !strings.Contains(text, ",") {
			t.Errorf("%s has the description %q", path, text)
		}
		if strings.Contains(text, "the same of") || strings.HasSuffix(text, ";") {
			t.Errorf("%s: the description %q is only a part", path, text)
		}
	}
	for path := range s.texts {
		if !known[path] {
			t.Errorf("%s is no key", path)
		}
	}
	if n := bytes.Count(Schema(), []byte(`"description"`)); n != len(paths) {
		t.Errorf("%d descriptions of %d keys", n, len(paths))
	}
}

// TestSchemaPatterns: the patterns allow what the types read, and no more than that without a unit.
func TestSchemaPatterns(t *testing.T) {
	for _, test := range []struct {
		t    reflect.Type
		text string
		ok   bool
	}{
		{reflect.TypeFor[Duration](), "1h30m", true}, {reflect.TypeFor[Duration](), "1.5s", true},
		{reflect.TypeFor[Duration](), ".5s", true}, {reflect.TypeFor[Duration](), "0s", true},
		{reflect.TypeFor[Duration](), "0", false}, {reflect.TypeFor[Duration](), "5 s", false},
		{reflect.TypeFor[Duration](), "1d", false},
		{reflect.TypeFor[Size](), "64KiB", true}, {reflect.TypeFor[Size](), "10kB", true},
		{reflect.TypeFor[Size](), "10", false}, {reflect.TypeFor[Size](), "1.5MB", false},
		{reflect.TypeFor[Rate](), "", true}, {reflect.TypeFor[Rate](), "100/s burst 200", true},
		{reflect.TypeFor[Rate](), "100", false}, {reflect.TypeFor[Rate](), "100/d", false},
		{reflect.TypeFor[Bandwidth](), "10MiB/s", true}, {reflect.TypeFor[Bandwidth](), "10MiB", false},
		{reflect.TypeFor[Percent](), "0.5%/s", true}, {reflect.TypeFor[Percent](), "1%", false},
	} {
		err := assign(reflect.New(test.t).Elem(), test.text)
		fits := regexp.MustCompile(patternOf(test.t)).MatchString(test.text)
		if (err == nil) != test.ok || fits != test.ok {
			t.Errorf("%v %q: the pattern says %v, the type %v", test.t, test.text, fits, err)
		}
	}
}
