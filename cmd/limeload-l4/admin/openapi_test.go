package admin

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/limeload/limeload-l4/pool"
)

// openAPI is the part of an OpenAPI document that is compared with the code.
type openAPI struct {
	OpenAPI    string                          `yaml:"openapi"`
	Paths      map[string]map[string]yaml.Node `yaml:"paths"`
	Components struct {
		Schemas map[string]schema `yaml:"schemas"`
	} `yaml:"components"`
}

type operation struct {
	ID         string      `yaml:"operationId"`
	Security   *[]any      `yaml:"security"`
	Parameters []parameter `yaml:"parameters"`
	Body       struct {
		Content map[string]media `yaml:"content"`
	} `yaml:"requestBody"`
	Responses map[string]struct {
		Description string           `yaml:"description"`
		Content     map[string]media `yaml:"content"`
		Ref         string           `yaml:"$ref"`
	} `yaml:"responses"`
}

type parameter struct {
	Name string `yaml:"name"`
	In   string `yaml:"in"`
}

type media struct {
	Schema schema `yaml:"schema"`
}

type schema struct {
	Ref        string            `yaml:"$ref"`
	Type       string            `yaml:"type"`
	Format     string            `yaml:"format"`
	Enum       []string          `yaml:"enum"`
	Required   []string          `yaml:"required"`
	Properties map[string]schema `yaml:"properties"`
	Items      *schema           `yaml:"items"`
	Additional yaml.Node         `yaml:"additionalProperties"`
	Minimum    *float64          `yaml:"minimum"`
	Maximum    *float64          `yaml:"maximum"`
}

// wire returns the body and the answer of each route in JSON; nil for none.
func wire() map[string][2]any {
	return map[string][2]any{
		"GET /v1/status":                                 {nil, Status{}},
		"GET /v1/listeners":                              {nil, listenerList{}},
		"POST /v1/listeners/{listener}/dns/purge":        {DNSPurge{}, purgedDNS{}},
		"GET /v1/pools":                                  {nil, poolList{}},
		"GET /v1/pools/{pool}":                           {nil, Pool{}},
		"GET /v1/backends":                               {nil, backendList{}},
		"GET /v1/pools/{pool}/backends":                  {nil, backendList{}},
		"POST /v1/pools/{pool}/backends":                 {NewBackend{}, Backend{}},
		"GET /v1/pools/{pool}/backends/{backend}":        {nil, Backend{}},
		"PATCH /v1/pools/{pool}/backends/{backend}":      {BackendChange{}, Backend{}},
		"DELETE /v1/pools/{pool}/backends/{backend}":     {nil, removal{}},
		"POST /v1/pools/{pool}/backends/{backend}/drain": {Drain{}, Backend{}},
		"GET /v1/sessions":                               {nil, SessionList{}},
		"DELETE /v1/sessions":                            {nil, endedSessions{}},
		"DELETE /v1/sessions/{id}":                       {nil, endedSessions{}},
		"GET /v1/clients":                                {nil, ClientList{}},
		"GET /v1/access":                                 {nil, accessRuleList{}},
		"POST /v1/access":                                {NewAccessRule{}, AccessRule{}},
		"DELETE /v1/access":                              {nil, removal{}},
		"GET /v1/access/check":                           {nil, AccessCheck{}},
		"GET /v1/fleet/changes":                          {nil, fleetChangeList{}},
		"GET /v1/explain":                                {nil, Explanation{}},
		"GET /v1/fleet":                                  {nil, Fleet{}},
		"GET /v1/fleet/verify":                           {nil, FleetComparison{}},
		"POST /v1/reload":                                {nil, Reloaded{}},
		"POST /v1/upgrade":                               {Upgrade{}, Upgraded{}},
		"POST /v1/plan":                                  {nil, Plan{}},
		"GET /v1/log":                                    {nil, LogLevel{}},
		"PUT /v1/log":                                    {logLevelChange{}, LogLevel{}},
	}
}

// closedSets returns the values of all fields that have a closed set of them.
func closedSets() map[string][]string {
	var types []string
	for _, p := range ProblemTypes() {
		types = append(types, p.Type)
	}
	words := func(all ...fmt.Stringer) []string {
		var list []string
		for _, w := range all {
			list = append(list, w.String())
		}
		return list
	}
	return map[string][]string{
		"EventKind":            EventKinds(),
		"Problem.type":         types,
		"LogLevel.level":       logLevels(),
		"LogLevelChange.level": logLevels(),
		"Status.log_level":     logLevels(),
		"Status.state":         {"starting", "serving", "handing_over", "draining"},
		"FleetNode.state":      {"starting", "serving", "handing_over", "draining", "left", "gone", "unknown"},
		"NewBackend.mode":      modes(),
		"BackendChange.mode":   modes(),
		"Backend.mode":         words(pool.Ready, pool.Drain, pool.Maintenance),
		"Backend.verdict":      words(pool.Unknown, pool.Healthy, pool.Unhealthy, pool.WrongRole, pool.Lagging, pool.Fallback),
		"Backend.breaker":      words(pool.Closed, pool.Open, pool.HalfOpen),
		"LastCheck.role":       {"primary", "replica"},
		"Backend.source_role":  words(pool.RoleUnknown, pool.RolePrimary, pool.RoleReplica),
		"Difference.what":      {"added", "removed", "weight", "max_sessions", "max_rate", "mode"},
		"FleetChange.what":     append(pool.OverrideFields(), "access"),
		"Dropped.what":         {"added", "removed", "weight", "max_sessions", "max_rate", "mode"},
		"Listener.protocol":    {"tcp", "udp"},
		"Pool.on_remove":       {"drain", "close"},
		"Pool.drain":           {"plain", "safe"},
		"Session.phase": {
			"proxy_header", "starting", "cancelling", "handshaking", "asking", "inspecting", "queued", "connecting", "relaying",
			"refusing",
		},
		"AccessRule.action":         {ActionAllow, ActionDeny},
		"NewAccessRule.action":      {ActionAllow, ActionDeny},
		"AccessDecision.decided_by": {"rule", "list", "default"},
		"TrackedClient.protocol":    {"tcp", "udp"},
		"ClientTable.protocol":      {"tcp", "udp"},
		"Explanation.decided_by":    {"algorithm", "sticky", "trial", "nothing"},
		"ListenerChange.protocol":   {"tcp", "udp"},
		"ListenerChange.what":       {"kept", "changed", "added", "removed", "rebound"},
		"PoolChange.what":           {"kept", "changed", "added", "removed"},
		"BackendPlan.what":          {"added", "removed", "changed", "replaced"},
	}
}

// A documentCheck compares a document with the code.
type documentCheck struct {
	doc        openAPI
	violations []string
	seen       map[string]bool // schemas that a route uses
	closed     map[string]bool // closed sets that the document has
}

func (c *documentCheck) report(format string, args ...any) {
	c.violations = append(c.violations, fmt.Sprintf(format, args...))
}

// documentViolations returns the differences between a document and the code.
func documentViolations(text []byte) []string {
	c := &documentCheck{seen: make(map[string]bool), closed: make(map[string]bool)}
	if err := yaml.Unmarshal(text, &c.doc); err != nil {
		return []string{err.Error()}
	}
	if c.doc.OpenAPI != "3.1.0" {
		c.report("it is of OpenAPI %q", c.doc.OpenAPI)
	}
	undocumented := make(map[string]route)
	for _, r := range routes() {
		undocumented[r.method+" "+strings.TrimSuffix(r.path, "{$}")] = r
	}
	ids := make(map[string]bool)
	for path, members := range c.doc.Paths {
		var shared []parameter
		if node, has := members["parameters"]; has {
			c.decode(node, &shared)
		}
		for method, node := range members {
			if method == "parameters" {
				continue
			}
			name := strings.ToUpper(method) + " " + path
			var o operation
			c.decode(node, &o)
			r, exists := undocumented[name]
			delete(undocumented, name)
			if !exists {
				c.report("%s: there is no such route", name)
				continue
			}
			if ids[o.ID] || o.ID == "" {
				c.report("%s: operationId %q is empty or taken", name, o.ID)
			}
			ids[o.ID] = true
			c.operation(name, r, shared, o)
		}
	}
	for name := range undocumented {
		c.report("%s is not described", name)
	}
	c.schema("Problem", c.doc.Components.Schemas["Problem"], reflect.TypeFor[Problem]())
	c.schema("Event", c.doc.Components.Schemas["Event"], reflect.TypeFor[Event]())
	c.seen["Problem"], c.seen["Event"], c.seen["EventKind"] = true, true, true
	c.enum("EventKind", c.doc.Components.Schemas["EventKind"])
	for name := range c.doc.Components.Schemas {
		if !c.seen[name] {
			c.report("schema %s: nothing has it", name)
		}
	}
	for name := range closedSets() {
		if !c.closed[name] {
			c.report("%s has no enum", name)
		}
	}
	for _, ref := range regexp.MustCompile(`\$ref: '#/components/schemas/(\w+)'`).FindAllSubmatch(text, -1) {
		if _, has := c.doc.Components.Schemas[string(ref[1])]; !has {
			c.report("there is no schema %s", ref[1])
		}
	}
	slices.Sort(c.violations)
	return c.violations
}

func (c *documentCheck) decode(node yaml.Node, into any) {
	if err := node.Decode(into); err != nil {
		c.report("%v", err)
	}
}

// operation compares one route.
func (c *documentCheck) operation(name string, r route, shared []parameter, o operation) {
	var inPath, inQuery []string
	for _, p := range slices.Concat(shared, o.Parameters) {
		switch p.In {
		case "path":
			inPath = append(inPath, p.Name)
		case "query":
			inQuery = append(inQuery, p.Name)
		default:
			c.report("%s: %s is in %q", name, p.Name, p.In)
		}
	}
	var expected []string
	for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(r.path, -1) {
		expected = append(expected, m[1])
	}
	if !slices.Equal(inPath, expected) {
		c.report("%s: the path's parameters are %q, expected %q", name, inPath, expected)
	}
	if !slices.Equal(inQuery, r.query) {
		c.report("%s: the query's parameters are %q, expected %q", name, inQuery, r.query)
	}
	if isOpen := o.Security != nil && len(*o.Security) == 1; isOpen != r.open {
		c.report("%s: it needs no token: %t, expected %t", name, isOpen, r.open)
	}
	if o.Responses["default"].Ref == "" {
		c.report("%s: there is no default answer", name)
	}
	for status, answer := range o.Responses {
		c.problems(name, status, answer.Description)
	}
	types, isJSON := wire()[name]
	if isJSON == (r.raw != nil) {
		c.report("%s: whether it answers in JSON is not known", name)
	}
	if !isJSON {
		return
	}
	c.body(name+" body", o.Body.Content, types[0])
	for status, answer := range o.Responses {
		switch {
		case status == "204":
			c.body(name+" answer", answer.Content, nil)
		case strings.HasPrefix(status, "2"):
			c.body(name+" answer", answer.Content, types[1])
		}
	}
}

// problems compares the types of problem that a status may have.
func (c *documentCheck) problems(name, status, text string) {
	for _, kind := range regexp.MustCompile(`/problems/[a-z-]+`).FindAllString(text, -1) {
		if !slices.ContainsFunc(ProblemTypes(),
			func(p ProblemType) bool { return p.Type == kind && fmt.Sprint(p.Status) == status }) {
			c.report("%s: %s has not the status %s", name, kind, status)
		}
	}
}

// body compares a request's or an answer's content with a Go value.
func (c *documentCheck) body(name string, content map[string]media, value any) {
	m, has := content[mediaJSON]
	if value == nil {
		if has {
			c.report("%s: there is none", name)
		}
		return
	}
	if !has {
		c.report("%s: it is not described", name)
		return
	}
	c.value(name, m.Schema, reflect.TypeOf(value))
}

// value compares the schema of a value, which is a reference for structs.
func (c *documentCheck) value(name string, s schema, t reflect.Type) {
	kinds := map[reflect.Kind]string{
		reflect.String: "string", reflect.Int: "integer", reflect.Int64: "integer", reflect.Uint64: "integer",
		reflect.Float64: "number", reflect.Bool: "boolean", reflect.Slice: "array", reflect.Map: "object",
	}
	switch {
	case t.Kind() == reflect.Pointer:
		c.value(name, s, t.Elem())
	case s.Ref == "#/components/schemas/EventKind" && name == "Event.kind":
	case t == reflect.TypeFor[time.Time]():
		if s.Type != "string" || s.Format != "date-time" {
			c.report("%s: %s %s, expected a time", name, s.Type, s.Format)
		}
	case t.Kind() == reflect.Struct:
		called := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
		if s.Ref != "#/components/schemas/"+called {
			c.report("%s: it is %s%s, expected %s", name, s.Ref, s.Type, called)
			return
		}
		if !c.seen[called] {
			c.seen[called] = true
			c.schema(called, c.doc.Components.Schemas[called], t)
		}
	case s.Type != kinds[t.Kind()]:
		c.report("%s: it is %q, expected %q", name, s.Type, kinds[t.Kind()])
	case t.Kind() == reflect.Slice && s.Items != nil:
		c.value(name+"[]", *s.Items, t.Elem())
	case t.Kind() == reflect.Map:
		var of schema
		c.decode(s.Additional, &of)
		c.value(name+"{}", of, t.Elem())
	case t.Kind() == reflect.Slice:
		c.report("%s: of what is not said", name)
	}
	if t.Kind() != reflect.Pointer {
		c.enum(name, s)
	}
}

// enum compares the allowed values.
func (c *documentCheck) enum(name string, s schema) {
	expected := closedSets()[name]
	if len(s.Enum) > 0 {
		c.closed[name] = true
	}
	if !slices.Equal(s.Enum, expected) && (len(s.Enum) > 0 || s.Ref == "" && expected != nil) {
		c.report("%s: one of %q, expected %q", name, s.Enum, expected)
	}
}

// schema compares a named schema with a struct: its fields, and which of them are required.
func (c *documentCheck) schema(name string, s schema, t reflect.Type) {
	taken := t == reflect.TypeFor[NewBackend]() || t == reflect.TypeFor[BackendChange]() ||
		t == reflect.TypeFor[Drain]() ||
		t == reflect.TypeFor[DNSPurge]() || t == reflect.TypeFor[NewAccessRule]()
	needed := []string{"address", "prefix", "action"} // of a body
	var required []string
	left := maps.Clone(s.Properties)
	for i := range t.NumField() {
		field, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if field == "-" {
			continue // the server sets it
		}
		property, has := left[field]
		delete(left, field)
		if !has {
			c.report("%s.%s is not described", name, field)
			continue
		}
		c.value(name+"."+field, property, t.Field(i).Type)
		if options != "omitempty" && !taken || taken && slices.Contains(needed, field) {
			required = append(required, field)
		}
	}
	for field := range left {
		c.report("%s.%s: there is no such field", name, field)
	}
	if !slices.Equal(s.Required, required) {
		c.report("%s: required are %q, expected %q", name, s.Required, required)
	}
}

// TestOpenAPI compares the document with the routes and the types.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	for _, bad := range []struct{ old, changed, violation string }{
		{"  /v1/log:\n", "  /v1/logs:\n", "GET /v1/logs: there is no such route"},
		{"    put:\n", "    post:\n", "PUT /v1/log is not described"},
		{"        - name: min_age\n", "        - name: min_ages\n", "GET /v1/sessions: the query's parameters are"},
		{"        deadline_seconds:\n", "        deadline:\n", "Drain.deadline_seconds is not described"},
		{"enum: [ready, drain, maintenance]", "enum: [ready, drain]", "Backend.mode: one of"},
		{"          format: date-time\n", "", "a time"},
		{"required: [sessions, total]", "required: [sessions]", "SessionList: required are"},
		{"$ref: '#/components/schemas/Plan'", "$ref: '#/components/schemas/Plans'", "there is no schema Plans"},
		{"/problems/slow-body", "/problems/slow", "has not the status"},
		{"      security: [{}]\n", "", "it needs no token: false"},
		{"          type: boolean\n", "          type: string\n", "expected \"boolean\""},
	} {
		sample := bytes.ReplaceAll(openAPIDocument, []byte(bad.old), []byte(bad.changed))
		if got := strings.Join(documentViolations(sample), "\n"); !strings.Contains(got, bad.violation) {
			t.Errorf("with %q for %q the guard finds %q, expected %q", bad.changed, bad.old, got, bad.violation)
		}
	}
	for _, violation := range documentViolations(openAPIDocument) {
		t.Error(violation)
	}
}

// TestOpenAPIBounds compares the bounds of numbers with those of package pool, which checks the bodies.
func TestOpenAPIBounds(t *testing.T) {
	t.Parallel()
	var doc openAPI
	check(t, yaml.Unmarshal(openAPIDocument, &doc))
	for name, most := range map[string]float64{
		"NewBackend.weight": pool.MaxWeight, "NewBackend.max_sessions": pool.MaxSessionLimit,
		"NewBackend.tier": pool.MaxTier, "BackendChange.weight": pool.MaxWeight,
		"BackendChange.max_sessions": pool.MaxSessionLimit, "Drain.deadline_seconds": pool.MaxDrain.Seconds(),
	} {
		typeName, field, _ := strings.Cut(name, ".")
		s := doc.Components.Schemas[typeName].Properties[field]
		if s.Minimum == nil || *s.Minimum != 0 || s.Maximum == nil || *s.Maximum != most {
			t.Errorf("%s: its bounds are not 0 and %g", name, most)
		}
	}
	s := doc.Components.Schemas["NewAccessRule"].Properties["for_seconds"]
	least, most := MinRuleTime.Seconds(), MaxRuleTime.Seconds()
	if s.Minimum == nil || *s.Minimum != least || s.Maximum == nil || *s.Maximum != most {
		t.Errorf("NewAccessRule.for_seconds: its bounds are not %g and %g", least, most)
	}
}
