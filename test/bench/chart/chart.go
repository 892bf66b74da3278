// Package chart draws plots and rows of bars as SVG files that are readable on a light and on a dark page: they follow
// the reader's colour scheme. It knows nothing of what is drawn, and needs no other program. All of it may be used from
// any goroutine.
package chart

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A Point is one point of a line.
type Point struct{ X, Y float64 }

// A Line is one line of a plot: its points, from left to right.
type Line struct {
	Name   string
	Points []Point
}

// A Plot draws lines over a logarithmic axis X. Its zero value is an empty plot.
type Plot struct {
	Title, X, Y string // what the axes are
	LogY        bool   // for values above 0; otherwise Y begins at 0
	Lines       []Line // in the order of the legend; the first is the thickest

	// FormatX writes the label of a point, and FormatY that of a height; nil: as plain numbers.
	FormatX, FormatY func(float64) string
}

// A Row is one bar: how long it is, and a mark that it should not pass.
type Row struct {
	Label, Note string // left and right of it
	Value, Mark float64
	Good        bool // as green instead of as orange
}

// A Rows draws bars below each other. Its zero value is an empty one.
type Rows struct {
	Title string
	Axis  string  // what the length of a bar is
	End   float64 // where the axis ends; longer bars are cut there
	Rows  []Row
}

// Sizes of a plot, in pixels of its view box.
const (
	width, height            = 720, 400
	left, right, top, bottom = 70, 20, 72, 56
	fontSize                 = 12
)

// palette has the colours of lines on a light and on a dark page, and how they are dashed: colour alone says nothing to
// some readers.
var palette = []struct{ light, dark, dashes string }{
	{"#0550ae", "#79c0ff", ""},
	{"#953800", "#ffa657", "8 4"},
	{"#1a7f37", "#7ee787", "2 4"},
	{"#6639ba", "#d2a8ff", "8 4 2 4"},
	{"#57606a", "#8b949e", "4 4"},
}

// SVG returns the plot as a file.
func (p Plot) SVG() []byte {
	var d drawing
	d.begin(p.Title, width, height)
	xs, ys := p.values()
	if len(xs) > 0 {
		x := scale{from: xs[0], to: xs[len(xs)-1], start: left, end: width - right, log: true}
		ticks := p.ticks(ys)
		y := scale{from: ticks[0], to: ticks[len(ticks)-1], start: height - bottom, end: top, log: p.LogY}
		p.axes(&d, x, y, xs, ticks)
		for i, l := range p.Lines {
			d.line(l, i, x, y)
		}
	}
	d.legend(p.Lines)
	return d.end()
}

// values returns all values of both axes, sorted and each once.
func (p Plot) values() (xs, ys []float64) {
	for _, l := range p.Lines {
		for _, at := range l.Points {
			xs, ys = append(xs, at.X), append(ys, at.Y)
		}
	}
	slices.Sort(xs)
	slices.Sort(ys)
	return slices.Compact(xs), slices.Compact(ys)
}

// ticks returns the labelled heights; all values are between the first and the last of them.
func (p Plot) ticks(ys []float64) []float64 {
	if p.LogY {
		return decades(ys[0], ys[len(ys)-1])
	}
	return steps(ys[len(ys)-1])
}

// decades returns the powers of ten from the one that is not above least to the one that is not below most.
func decades(least, most float64) []float64 {
	var out []float64
	first, last := math.Floor(math.Log10(least)), math.Ceil(math.Log10(most))
	for e := first; e <= max(last, first+1); e++ {
		out = append(out, math.Pow(10, e))
	}
	return out
}

// steps returns about five round heights from 0 to one that is not below most.
func steps(most float64) []float64 {
	if most <= 0 {
		return []float64{0, 1}
	}
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for _, divided := range []float64{10, 5, 2} {
		if most/(step/divided) <= 6 {
			step /= divided
			break
		}
	}
	out := []float64{0}
	for n := 1.0; out[len(out)-1] < most; n++ {
		out = append(out, n*step)
	}
	return out
}

func (p Plot) axes(d *drawing, x, y scale, xs, ticks []float64) {
	for _, v := range ticks {
		d.put(`<path class="grid" d="M%s %sH%d"/>`, number(x.start), number(y.at(v)), width-right)
		d.text(left-8, y.at(v)+4, "end", "", label(p.FormatY, v))
	}
	for _, v := range xs {
		d.put(`<path class="grid" d="M%s %sv5"/>`, number(x.at(v)), number(y.start))
		d.text(x.at(v), y.start+18, "middle", "", label(p.FormatX, v))
	}
	d.text((left+width-right)/2, height-12, "middle", "dim", p.X)
	d.text(left-8, top-10, "start", "dim", p.Y)
}

// A scale maps values to pixels.
type scale struct {
	from, to   float64 // values
	start, end float64 // where they are
	log        bool
}

func (s scale) at(v float64) float64 {
	from, to := s.from, s.to
	if s.log {
		from, to, v = math.Log10(from), math.Log10(to), math.Log10(v)
	}
	if from == to {
		return (s.start + s.end) / 2
	}
	return s.start + (v-from)/(to-from)*(s.end-s.start)
}

func label(format func(float64) string, v float64) string {
	if format == nil {
		return strconv.FormatFloat(v, 'g', 4, 64)
	}
	return format(v)
}

// Sizes of rows.
const (
	rowsWidth  = 800
	rowHeight  = 22
	rowsLeft   = 260 // room for labels
	rowsRight  = 230 // room for notes
	rowsTop    = 60
	rowsBottom = 40
	barHeight  = 12
)

// SVG returns the rows as a file.
func (r Rows) SVG() []byte {
	var d drawing
	h := rowsTop + rowsBottom + rowHeight*len(r.Rows)
	d.begin(r.Title, rowsWidth, h)
	ticks := steps(r.End)
	end := ticks[len(ticks)-1]
	x := scale{from: 0, to: end, start: rowsLeft, end: rowsWidth - rowsRight}
	for _, v := range ticks {
		d.put(`<path class="grid" d="M%s %dV%d"/>`, number(x.at(v)), rowsTop, h-rowsBottom)
		d.text(x.at(v), float64(h-rowsBottom+16), "middle", "", label(nil, v))
	}
	d.text((rowsLeft+rowsWidth-rowsRight)/2, float64(h-8), "middle", "dim", r.Axis)
	for i, row := range r.Rows {
		y := float64(rowsTop + rowHeight*i + rowHeight/2)
		class := "bad"
		if row.Good {
			class = "good"
		}
		d.text(rowsLeft-8, y+4, "end", "", row.Label)
		d.put(`<rect class="%s" x="%d" y="%s" width="%s" height="%d"/>`, class, rowsLeft, number(y-barHeight/2),
			number(max(0, x.at(min(row.Value, end))-rowsLeft)), barHeight)
		d.put(`<path class="mark" d="M%s %sv%d"/>`, number(x.at(min(row.Mark, end))), number(y-barHeight/2-3),
			barHeight+6)
		d.text(rowsWidth-rowsRight+12, y+4, "start", "dim", row.Note)
	}
	return d.end()
}

// A drawing is a file that is being written.
type drawing struct{ b strings.Builder }

func (d *drawing) put(format string, args ...any) { fmt.Fprintf(&d.b, format+"\n", args...) }

func (d *drawing) begin(title string, w, h int) {
	d.put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" font-family="sans-serif" `+
		`font-size="%d">`, w, h, fontSize)
	d.put("<title>%s</title>", escape(title))
	d.put("<style>%s</style>", style())
	d.put(`<rect class="page" width="%d" height="%d"/>`, w, h)
	d.put(`<text class="title" x="12" y="22">%s</text>`, escape(title))
}

// style returns the colours of both schemes.
func style() string {
	light := ".page{fill:#fff}text{fill:#1f2328}.title{font-weight:bold;font-size:14px}.dim{fill:#57606a}" +
		".grid{stroke:#d0d7de;fill:none}.mark{stroke:#1f2328;stroke-width:2;fill:none}.good{fill:#2da44e}" +
		".bad{fill:#d4730c}"
	dark := ".page{fill:#0d1117}text{fill:#e6edf3}.dim{fill:#9198a1}.grid{stroke:#30363d}.mark{stroke:#e6edf3}" +
		".good{fill:#3fb950}.bad{fill:#f0883e}"
	for i, c := range palette {
		light += fmt.Sprintf(".l%d{stroke:%s;fill:none;stroke-width:2;stroke-dasharray:%s}.p%d{fill:%s}", i, c.light,
			dashes(c.dashes), i, c.light)
		dark += fmt.Sprintf(".l%d{stroke:%s}.p%d{fill:%s}", i, c.dark, i, c.dark)
	}
	return light + ".l0{stroke-width:3}@media(prefers-color-scheme:dark){" + dark + "}"
}

func dashes(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// line draws line number i of a plot.
func (d *drawing) line(l Line, i int, x, y scale) {
	i %= len(palette)
	path := ""
	for n, at := range l.Points {
		verb := "L"
		if n == 0 {
			verb = "M"
		}
		path += verb + number(x.at(at.X)) + " " + number(y.at(at.Y))
	}
	d.put(`<path class="l%d" d="%s"/>`, i, path)
	for _, at := range l.Points {
		d.put(`<circle class="p%d" cx="%s" cy="%s" r="3"/>`, i, number(x.at(at.X)), number(y.at(at.Y)))
	}
}

// legend names the lines, below the title.
func (d *drawing) legend(lines []Line) {
	at := float64(left)
	for i, l := range lines {
		d.put(`<path class="l%d" d="M%s 38h28"/>`, i%len(palette), number(at))
		d.text(at+34, 42, "start", "", l.Name)
		at += 34 + float64(len(l.Name))*fontSize*0.6 + 18
	}
}

func (d *drawing) text(x, y float64, anchor, class, text string) {
	if class != "" {
		class = fmt.Sprintf(` class="%s"`, class)
	}
	d.put(`<text x="%s" y="%s" text-anchor="%s"%s>%s</text>`, number(x), number(y), anchor, class, escape(text))
}

func (d *drawing) end() []byte { return []byte(d.b.String() + "</svg>\n") }

// number writes a coordinate: a tenth of a pixel is exact enough, and keeps files small.
func number(v float64) string {
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")

func escape(text string) string { return escaper.Replace(text) }
