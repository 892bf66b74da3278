package daemon

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A board is what Grafana needs of a dashboard, version 10 or later.
type board struct {
	Title, UID    string
	SchemaVersion int
	Templating    struct {
		List []struct {
			Name, Type, Query any
			Datasource        *source
			Definition        string
			Multi             bool
			IncludeAll        bool
			AllValue          string
		}
	}
	Annotations struct {
		List []struct{ Datasource *source }
	}
	Panels []struct {
		ID          int
		Type, Title string
		Datasource  *source
		FieldConfig *struct{ Defaults json.RawMessage }
		GridPos     place4
		Targets     []struct {
			RefID      string
			Datasource *source
			Expr       string
		}
	}
}

// A source is where a panel has its data from.
type source struct{ Type, UID string }

// chosen reports whether the data is from the source that the reader of the board chooses.
func (s *source) chosen() bool { return s != nil && *s == source{"prometheus", "${datasource}"} }

// A place4 is the place of a panel in the grid, which is 24 columns wide.
type place4 struct{ X, Y, W, H int }

func (a place4) overlaps(b place4) bool {
	return a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H
}

// violations returns what Grafana would not take, or would show wrongly.
func (b *board) violations() (wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if b.Title == "" || b.UID == "" || b.SchemaVersion < 36 {
		complain("its title is %q, its uid %q, its schema %d", b.Title, b.UID, b.SchemaVersion)
	}
	known := []string{"__rate_interval", "__interval", "__range"}
	use := func(where, text string) {
		for _, m := range regexp.MustCompile(`\$(\w+|\{\w+\})`).FindAllStringSubmatch(text, -1) {
			if name := strings.Trim(m[1], "{}"); !slices.Contains(known, name) {
				complain("%s: there is no variable %s before it", where, name)
			}
		}
	}
	for i, v := range b.Templating.List {
		where := fmt.Sprint("variable ", v.Name)
		if i == 0 != (v.Type == "datasource") {
			complain("%s: the first variable is the data source, and no other", where)
		}
		if v.Type == "query" {
			use(where, v.Definition)
			query, _ := v.Query.(map[string]any)
			several := v.Multi && v.IncludeAll && v.AllValue == ".*"
			if !v.Datasource.chosen() || query["query"] != v.Definition || !several {
				complain("%s: it is not a choice of several values of the chosen source", where)
			}
		}
		known = append(known, fmt.Sprint(v.Name))
	}
	for _, a := range b.Annotations.List {
		if !a.Datasource.chosen() {
			complain("an annotation has another data source")
		}
	}
	for i, p := range b.Panels {
		where := fmt.Sprintf("panel %d, %s", p.ID, p.Title)
		if g := p.GridPos; p.ID <= 0 || g.X < 0 || g.Y < 0 || g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			complain("%s: its place is %+v", where, g)
		}
		for _, other := range b.Panels[:i] {
			if other.ID == p.ID {
				complain("%s: there are two", where)
			}
			if p.GridPos.overlaps(other.GridPos) {
				complain("%s: it overlaps panel %d, %s", where, other.ID, other.Title)
			}
		}
		if p.Type == "row" {
			continue
		}
		if !slices.Contains([]string{"timeseries", "stat", "table", "gauge", "bargauge", "heatmap"}, p.Type) {
			complain("%s: Grafana has no panel of type %s", where, p.Type)
		}
		if !p.Datasource.chosen() || p.FieldConfig == nil {
			complain("%s: it has no data source, or no fields", where)
		}
		refs := make(map[string]bool)
		for _, target := range p.Targets {
			use(where, target.Expr)
			if target.RefID == "" || refs[target.RefID] || !target.Datasource.chosen() {
				complain("%s: query %q is there twice, or of another source", where, target.RefID)
			}
			if !strings.Contains(target.Expr, `job=~"$job",instance=~"$instance"`) {
				complain("%s: it is of all jobs: %s", where, target.Expr)
			}
			refs[target.RefID] = true
		}
	}
	return wrong
}

// TestBoard checks the structure of the packaged board, as far as Grafana needs it.
func TestBoard(t *testing.T) {
	read := func(text []byte) *board {
		b := new(board)
		if err := json.Unmarshal(text, b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	text, err := os.ReadFile(metricsBoard)
	if err != nil {
		t.Fatal(err)
	}
	good := read(text)
	if len(good.Panels) < 60 || len(good.Templating.List) != 6 {
		t.Errorf("it has %d panels and %d variables", len(good.Panels), len(good.Templating.List))
	}
	for _, violation := range good.violations() {
		t.Error(violation)
	}
	for name, spoil := range map[string]func(b *board){
		"an overlap":           func(b *board) { b.Panels[3].GridPos = b.Panels[2].GridPos },
		"two panels of one id": func(b *board) { b.Panels[3].ID = b.Panels[2].ID },
		"a panel too wide":     func(b *board) { b.Panels[3].GridPos.W = 25 },
		"a fixed data source":  func(b *board) { b.Panels[3].Datasource.UID = "abc" },
		"a variable too early": func(b *board) { slices.Reverse(b.Templating.List) },
		"an unknown variable":  func(b *board) { b.Panels[3].Targets[0].Expr += "$zone" },
		"a query of all jobs":  func(b *board) { b.Panels[1].Targets[0].Expr = "limeload_ready" },
		"two queries of one id": func(b *board) {
			b.Panels[1].Targets = append(b.Panels[1].Targets, b.Panels[1].Targets[0])
		},
		"a type that is unknown": func(b *board) { b.Panels[1].Type = "graph" },
	} {
		bad := read(text)
		if spoil(bad); len(bad.violations()) == 0 {
			t.Errorf("the guard does not find %s", name)
		}
	}
}
