package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/pool"
)

// maxTyped bounds what is typed into a dialog, in characters.
const maxTyped = 128

// A dialogKind is what the lowest line of top's screen asks for.
type dialogKind int

const (
	askFilter dialogKind = iota
	askMode
	askWeight
	askSure
	showHelp
)

// A topDialog is a question to the user, who answers it by keys.
type topDialog struct {
	kind    dialogKind
	typed   string
	mistake string // in what was typed
	target  admin.Backend
	change  admin.BackendChange
	what    string // what is going to be done, for askSure
	fleet   bool   // all nodes of the fleet do it
}

// typed adds a text to what the user types.
func (m *topModel) typed(text string) {
	d := m.dialog
	if d == nil || d.kind != askFilter && d.kind != askWeight {
		return
	}
	for _, r := range text {
		if r >= ' ' && !unprintable(r) && r != utf8.RuneError && utf8.RuneCountInString(d.typed) < maxTyped {
			d.typed += string(r)
		}
	}
	d.mistake = ""
	if d.kind == askFilter {
		m.filter = d.typed
	}
}

// key handles a key.
func (m *topModel) key(k tea.KeyPressMsg) tea.Cmd {
	if k.String() == "ctrl+c" {
		return tea.Quit
	}
	if m.dialog != nil {
		return m.answer(k)
	}
	m.notice = ""
	switch k.String() {
	case "q":
		return tea.Quit
	case "?", "h", "f1":
		m.dialog = &topDialog{kind: showHelp}
	case "/":
		m.dialog = &topDialog{kind: askFilter, typed: m.filter}
	case "s":
		m.order = (m.order + 1) % len(topOrders())
	case "S", "shift+s":
		m.order = (m.order + len(topOrders()) - 1) % len(topOrders())
	case "r":
		m.reverse = !m.reverse
	case "tab":
		m.view, m.pool = (m.view+1)%topViews, ""
	case "shift+tab":
		m.view, m.pool = (m.view+topViews-1)%topViews, ""
	case "enter", "right":
		m.open()
	case "esc", "left", "backspace":
		m.leave()
	case "m", "w":
		m.ask(k.String())
	default:
		m.move(k.String())
	}
	return nil
}

// open shows the backends of the selected pool.
func (m *topModel) open() {
	if m.view != viewPools {
		return
	}
	if _, keys := m.rows(); len(keys) > 0 {
		m.view, m.pool, m.filter = viewBackends, keys[m.at(keys)], ""
	}
}

// leave undoes the last step: the filter, or the view.
func (m *topModel) leave() {
	switch {
	case m.filter != "":
		m.filter = ""
	case m.pool != "":
		m.view, m.selected[viewPools], m.pool = viewPools, m.pool, ""
	default:
		m.view = viewPools
	}
}

// move moves the selection.
func (m *topModel) move(key string) {
	_, keys := m.rows()
	if len(keys) == 0 {
		return
	}
	at, page := m.at(keys), max(m.height/2, 1)
	switch key {
	case "up", "k":
		at--
	case "down", "j":
		at++
	case "pgup", "ctrl+b":
		at -= page
	case "pgdown", "ctrl+f", "space":
		at += page
	case "home", "g":
		at = 0
	case "end", "G", "shift+g":
		at = len(keys) - 1
	}
	m.selected[m.view] = keys[min(max(at, 0), len(keys)-1)]
}

// ask opens the dialog for a mode or weight.
func (m *topModel) ask(key string) {
	b := m.backend()
	switch {
	case b == nil:
		m.notice, m.mistake = "choose a backend first: Enter opens a pool, Tab shows all backends", true
	case key == "m":
		m.dialog = &topDialog{kind: askMode, target: b.Backend, fleet: m.shot.Fleet != nil}
	default:
		m.dialog = &topDialog{kind: askWeight, target: b.Backend, fleet: m.shot.Fleet != nil}
	}
}

// answer handles a key while a dialog is open.
func (m *topModel) answer(k tea.KeyPressMsg) tea.Cmd {
	d, key := m.dialog, k.String()
	if key == "esc" || d.kind == showHelp {
		if d.kind == askFilter {
			m.filter = ""
		}
		m.dialog = nil
		return nil
	}
	switch d.kind {
	case askMode:
		for _, mode := range modes() {
			if key == mode[:1] && mode != d.target.Mode {
				d.change.Mode = &mode
				d.sure(fmt.Sprintf("mode %s instead of %s", mode, d.target.Mode))
			}
		}
	case askSure:
		switch key {
		case "y":
			m.dialog = nil
			return m.change(d.target, d.change)
		case "n":
			m.dialog = nil
		}
	case askFilter, askWeight:
		m.edit(k)
	}
	return nil
}

// sure turns the dialog into the question whether to do it.
func (d *topDialog) sure(what string) { d.kind, d.what = askSure, what }

// edit handles a key of a text.
func (m *topModel) edit(k tea.KeyPressMsg) {
	d := m.dialog
	switch key := k.String(); {
	case key == "enter" && d.kind == askFilter:
		m.dialog = nil
	case key == "enter":
		d.weigh()
	case key == "backspace":
		_, n := utf8.DecodeLastRuneInString(d.typed)
		d.typed = d.typed[:len(d.typed)-n]
		m.typed("")
	case key == "ctrl+u":
		d.typed = ""
		m.typed("")
	default:
		m.typed(k.Text)
	}
}

// weigh reads the weight that was typed.
func (d *topDialog) weigh() {
	weight, err := strconv.Atoi(strings.TrimSpace(d.typed))
	switch {
	case err != nil || weight < 0 || weight > pool.MaxWeight:
		d.mistake = fmt.Sprintf("needs a number of 0 to %d", pool.MaxWeight)
	case weight == d.target.Weight:
		d.mistake = "that is its weight now"
	default:
		d.change.Weight = &weight
		d.sure(fmt.Sprintf("weight %d instead of %d", weight, d.target.Weight))
	}
}

// prompt returns what the lowest line asks.
func (d *topDialog) prompt() string {
	of := fmt.Sprintf("%s of pool %s", d.target.Name, d.target.Pool)
	switch d.kind {
	case askFilter:
		return "filter: " + d.typed + "_   (Enter keeps it, Esc removes it)"
	case askMode:
		var choice []string
		for _, mode := range modes() {
			if mode != d.target.Mode {
				choice = append(choice, mode[:1]+" "+mode)
			}
		}
		return fmt.Sprintf("%s is in mode %s: %s, Esc cancels", of, d.target.Mode, strings.Join(choice, ", "))
	case askWeight:
		text := fmt.Sprintf("%s has weight %d, new weight: %s_   (Enter, Esc cancels)", of, d.target.Weight, d.typed)
		if d.mistake != "" {
			text += ": " + d.mistake
		}
		return text
	case askSure:
		if d.change.Mode != nil && *d.change.Mode != pool.Ready.String() {
			of += ", with " + counted(d.target.Sessions, "session")
			if d.fleet {
				of += " here"
			}
		}
		where := ""
		if d.fleet {
			where = " on all nodes"
		}
		return fmt.Sprintf("%s: %s%s? y or n", of, d.what, where)
	}
	return ""
}
