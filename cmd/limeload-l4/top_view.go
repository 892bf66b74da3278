package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

const (
	// leastHeight is the least number of lines that top can show something in.
	leastHeight = 8
	// roomyHeight is the number of lines from which on top shows details of a backend, and empty lines.
	roomyHeight = 16
)

const topHelp = `Up Down PgUp PgDn Home End   choose a row (also k, j, g, G)
Enter      the backends of the pool
Esc        remove the filter, or go back
Tab        the next view: pools, all backends, listeners
s, S       the next or previous order; r turns it round
/          show only the rows that contain a text
m          set the backend's mode: ready, drain, maintenance
w          set the backend's weight
q, Ctrl-C  end

What is set here is in force at once, overrides the configuration file, and
is listed by "limeload-l4 status". Rates of new sessions are means of three
seconds, those of bytes of ten.

Any key goes back.`

// View draws the screen.
func (m *topModel) View() tea.View {
	v := tea.NewView(strings.Join(m.lines(), "\n"))
	v.AltScreen = true
	v.WindowTitle = "limeload-l4 top"
	return v
}

// lines returns the lines of the screen, which fill it.
func (m *topModel) lines() []string {
	if m.width < leastWidth || m.height < leastHeight {
		text := fmt.Sprintf("The terminal is too small: top needs %d columns and %d lines.", leastWidth, leastHeight)
		return m.fill(wrapped(text, max(m.width, 1), 0), nil)
	}
	head := m.head()
	foot := m.foot()
	if m.dialog != nil && m.dialog.kind == showHelp {
		for line := range strings.SplitSeq(topHelp, "\n") {
			head = append(head, wrapped(line, m.width, 2)...)
		}
		return m.fill(head, nil)
	}
	return m.fill(append(head, m.body(m.height-len(head)-len(foot))...), foot)
}

// fill puts lines at the top and at the bottom of the screen. Where there are too many, those at the bottom stay.
func (m *topModel) fill(top, bottom []string) []string {
	bottom = bottom[max(len(bottom)-m.height, 0):]
	top = top[:min(len(top), m.height-len(bottom))]
	lines := slices.Concat(top, make([]string, m.height-len(top)-len(bottom)), bottom)
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, m.width, "")
	}
	return lines
}

// head returns the lines about the whole daemon.
func (m *topModel) head() []string {
	s, sc := m.shot, m.remote.screen
	first := fmt.Sprintf("limeload-l4 %s  %s  up %s", clean(s.Version), sc.paint(stateTint(s.State), clean(s.State)),
		s.uptime())
	if pid := fmt.Sprintf("  pid %d", s.PID); ansi.StringWidth(first)+len(pid) <= m.width {
		first += pid
	}
	clock := s.At.Format(time.TimeOnly)
	if free := m.width - ansi.StringWidth(first) - len(clock); free > 1 {
		first += strings.Repeat(" ", free) + clock
	}
	lines := []string{first, fmt.Sprintf("sessions %s  new %s  in %s  out %s", ofLimit(int64(s.Sessions), s.MaxSessions),
		cmp.Or(s.Rates.new(), "-"), cmp.Or(s.Rates.in(), "-"), cmp.Or(s.Rates.out(), "-"))}
	if s.Fleet != nil {
		tinted := uncoloured
		if !s.Fleet.Connected || s.Fleet.OtherConfig {
			tinted = doubtful
		}
		lines = append(lines, sc.paint(tinted, ansi.Truncate("fleet "+clean(fleetText(s.Fleet)), m.width, "...")))
	}
	if m.failure != nil {
		text := fmt.Sprintf("not reachable since %s (%s), trying again: %s", m.lost.Format(time.TimeOnly), ago(m.lost),
			strings.TrimPrefix(clean(m.failure.Error()), admin.ErrUnreachable.Error()+": "))
		for _, line := range firstLines(wrapped(text, m.width, 2), 3) {
			lines = append(lines, sc.paint(bad, line))
		}
	}
	if m.height >= roomyHeight {
		lines = append(lines, "")
	}
	return lines
}

func firstLines(lines []string, n int) []string { return lines[:min(len(lines), n)] }

// body returns the tables, in so many lines.
func (m *topModel) body(height int) (lines []string) {
	if m.view == viewPools {
		// a third of the screen at most: pools are what one chooses from
		lines = m.table(topListenerTable(m.listeners()), -1, max(height/3, 2), len(m.shot.Listeners))
		if m.height >= roomyHeight {
			lines = append(lines, "")
		}
	}
	t, keys := m.rows()
	lines = append(lines, ansi.Truncate(m.remote.screen.paint(faint, clean(m.title(len(keys)))), m.width, ""))
	return append(lines, m.table(t, m.at(keys), height-len(lines), 0)...)
}

// table returns a table in at most so many lines. The selected row is in sight; -1 for none.
func (m *topModel) table(t *table, selected, height, of int) (lines []string) {
	const mark = 2
	l := t.layout(m.width - mark)
	for _, line := range l.head() {
		lines = append(lines, "  "+line)
	}
	body, room := l.body(m.remote.screen), max(height-len(lines), 0)
	from := 0
	if at := slices.IndexFunc(body, func(line tableLine) bool { return line.row == selected }); at >= 0 {
		from = min(max(at-room/2, 0), max(len(body)-room, 0))
	}
	if selected < 0 && len(body) > room && room > 0 {
		room--
		defer func() { lines = append(lines, fmt.Sprintf("  %d in all: Tab shows them", of)) }()
	}
	pointer := "> "
	for _, line := range body[from:min(from+room, len(body))] {
		if line.row != selected || selected < 0 {
			lines = append(lines, "  "+line.text)
			continue
		}
		text := pointer + ansi.Strip(line.text)
		pointer = "  " // only its first line has one
		lines = append(lines, inverse(text+strings.Repeat(" ", max(m.width-ansi.StringWidth(text), 0))))
	}
	return lines
}

// inverse shows a text in inverse video, which is no colour.
func inverse(text string) string { return "\x1b[7m" + text + "\x1b[0m" }

// foot returns the lines at the bottom: details of the selected backend, and what keys do.
func (m *topModel) foot() (lines []string) {
	if b := m.backend(); b != nil && m.height >= roomyHeight {
		lines = append(lines, "")
		lines = append(lines, firstLines(wrapped(details(b), m.width, 2), 4)...)
	}
	sc := m.remote.screen
	switch {
	case m.dialog != nil:
		return append(lines, wrapped(clean(m.dialog.prompt()), m.width, 2)...)
	case m.notice != "" && m.mistake:
		for _, line := range firstLines(wrapped(clean(m.notice), m.width, 2), 4) {
			lines = append(lines, sc.paint(bad, line))
		}
		return lines
	case m.notice != "":
		return append(lines, firstLines(wrapped(clean(m.notice), m.width, 2), 4)...)
	}
	keys := "? help  q quit  / filter  s sort  Tab view  "
	switch m.view {
	case viewPools:
		keys += "Enter backends"
	case viewBackends:
		keys += "m mode  w weight  Esc back"
	}
	return append(lines, sc.paint(faint, ansi.Truncate(keys, m.width, "")))
}

// details returns what the table does not say about a backend.
func details(b *topBackend) string {
	facts := []string{fmt.Sprintf("%s (%s): %s", b.Name, b.Address, b.Verdict)}
	if !b.Since.IsZero() {
		facts[0] += " for " + ago(b.Since)
	}
	if why := whyOf(&b.Backend); why != "" {
		facts[0] += ", " + why
	}
	facts = append(facts, fmt.Sprintf("mode %s, weight %d", b.Mode, b.Weight))
	if r := b.Rates; r != nil {
		facts = append(facts, fmt.Sprintf("new %s, in %s, out %s", r.new(), r.in(), r.out()))
	}
	if b.Check != nil && b.Check.At != nil {
		check := fmt.Sprintf("checked %s ago in %s", ago(*b.Check.At), seconds(b.Check.Took))
		if b.Check.Address != "" {
			check += " at " + b.Check.Address
		}
		facts = append(facts, check)
	}
	if b.Breaker != "closed" || b.Openings > 0 {
		facts = append(facts, fmt.Sprintf("breaker %s, opened %d times", b.Breaker, b.Openings))
	}
	var outcomes []string
	for _, name := range slices.Sorted(maps.Keys(b.Outcomes)) {
		if n := b.Outcomes[name]; n > 0 {
			outcomes = append(outcomes, fmt.Sprintf("%s %d", name, n))
		}
	}
	if outcomes != nil {
		facts = append(facts, "outcomes: "+strings.Join(outcomes, ", "))
	}
	if b.Agent != "" {
		facts = append(facts, "agent: "+b.Agent)
	}
	return clean(strings.Join(facts, "; "))
}
