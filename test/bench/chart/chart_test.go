package chart

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// elements returns how many elements of each kind a file has. The file must be well-formed XML, and everything that is
// drawn must be within its view box.
func elements(t *testing.T, svg []byte) (counts map[string]int, texts []string) {
	t.Helper()
	counts = map[string]int{}
	var w, h float64
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return counts, texts
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		switch e := token.(type) {
		case xml.CharData:
			if text := strings.TrimSpace(string(e)); text != "" {
				texts = append(texts, text)
			}
		case xml.StartElement:
			counts[e.Name.Local]++
			for _, a := range e.Attr {
				switch a.Name.Local {
				case "viewBox":
					f := strings.Fields(a.Value)
					w, h = parse(t, f[2]), parse(t, f[3])
				case "x", "cx":
					if v := parse(t, a.Value); v < 0 || v > w {
						t.Errorf("%s is at x %v, outside of 0 to %v", e.Name.Local, v, w)
					}
				case "y", "cy":
					if v := parse(t, a.Value); v < 0 || v > h {
						t.Errorf("%s is at y %v, outside of 0 to %v", e.Name.Local, v, h)
					}
				}
			}
		}
	}
}

func parse(t *testing.T, s string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPlot(t *testing.T) {
	p := Plot{
		Title: "Cost <of> work & more", X: "sessions", Y: "us",
		Lines: []Line{
			{"ours", []Point{{1, 20}, {10, 15}, {9000, 30}}},
			{"theirs", []Point{{1, 25}, {9000, 20}}},
		},
		FormatY: func(v float64) string { return strconv.FormatFloat(v, 'f', 0, 64) + "us" },
	}
	counts, texts := elements(t, p.SVG())
	if counts["circle"] != 5 {
		t.Errorf("%d points are drawn, want 5", counts["circle"])
	}
	for _, want := range []string{"Cost <of> work & more", "sessions", "ours", "theirs", "9000", "10us"} {
		if !slices.Contains(texts, want) {
			t.Errorf("no text %q in %q", want, texts)
		}
	}
	p.LogY = true
	counts, texts = elements(t, p.SVG())
	if counts["circle"] != 5 || !slices.Contains(texts, "100us") {
		t.Errorf("over decades: %d points, texts %q", counts["circle"], texts)
	}
	if !bytes.Equal(p.SVG(), p.SVG()) {
		t.Error("the same plot is drawn in two ways")
	}
}

func TestEmpty(t *testing.T) {
	if counts, _ := elements(t, Plot{Title: "nothing"}.SVG()); counts["circle"] != 0 {
		t.Errorf("%d points of none", counts["circle"])
	}
	elements(t, Rows{Title: "nothing"}.SVG())
	one := Plot{Lines: []Line{{"one", []Point{{4, 0}}}}} // one value on each axis
	if counts, _ := elements(t, one.SVG()); counts["circle"] != 1 {
		t.Errorf("%d points, want 1", counts["circle"])
	}
}

func TestRows(t *testing.T) {
	r := Rows{Title: "bars", Axis: "ratio", End: 1.5, Rows: []Row{
		{Label: "a", Note: "met", Value: 0.5, Mark: 0.8, Good: true}, {Label: "b", Note: "missed", Value: 2.3, Mark: 1},
	}}
	svg := r.SVG()
	counts, texts := elements(t, svg)
	if counts["rect"] != 3 { // with the page
		t.Errorf("%d rectangles, want 3", counts["rect"])
	}
	for _, want := range []string{"a", "b", "met", "missed", "1.5"} {
		if !slices.Contains(texts, want) {
			t.Errorf("no text %q in %q", want, texts)
		}
	}
	full := float64(rowsWidth - rowsRight - rowsLeft)
	for _, want := range []float64{full / 3, full} { // the second is cut
		if text := `width="` + number(want) + `"`; !strings.Contains(string(svg), text) {
			t.Errorf("no bar with %s in\n%s", text, svg)
		}
	}
	if strings.Count(string(svg), `class="good"`) != 1 || strings.Count(string(svg), `class="bad"`) != 1 {
		t.Errorf("want one good and one bad bar in\n%s", svg)
	}
}

// Both schemes have a colour for everything that one of them colours.
func TestSchemes(t *testing.T) {
	light, dark, found := strings.Cut(style(), "@media(prefers-color-scheme:dark){")
	if !found {
		t.Fatal("no dark scheme")
	}
	for _, class := range []string{".page{fill", "text{fill", ".grid{stroke", ".mark{stroke", ".good{fill", ".bad{fill",
		".l0{stroke", ".p4{fill"} {
		if !strings.Contains(light, class) || !strings.Contains(dark, class) {
			t.Errorf("%s is not in both schemes", class)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		most float64
		want []float64
	}{
		{0, []float64{0, 1}},
		{1, []float64{0, 0.2, 0.4, 0.6, 0.8, 1}},
		{25, []float64{0, 5, 10, 15, 20, 25}},
		{31, []float64{0, 10, 20, 30, 40}},
	} {
		got := steps(c.most)
		same := slices.EqualFunc(got, c.want, func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 })
		if !same {
			t.Errorf("heights up to %v: %v, want %v", c.most, got, c.want)
		}
	}
	if got, want := decades(0.2, 30), []float64{0.1, 1, 10, 100}; !slices.Equal(got, want) {
		t.Errorf("decades %v, want %v", got, want)
	}
	if got, want := decades(10, 10), []float64{10, 100}; !slices.Equal(got, want) {
		t.Errorf("decades of one value %v, want %v", got, want)
	}
}
