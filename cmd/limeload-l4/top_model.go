package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// A topView is what the lower part of top's screen shows.
type topView int

const (
	viewPools topView = iota // with the listeners above
	viewBackends
	viewListeners
	topViews // how many there are
)

// noticeTime is how long the result of a change is shown. A mistake is shown until the next key.
const noticeTime = 5 * time.Second

// A topModel is the state of top. Only bubbletea's goroutine uses it; requests run in others and come back as messages.
// Its zero value is of no use, see newTopModel.
type topModel struct {
	// set once, then read-only
	ctx      context.Context // stored, since the commands of bubbletea get none
	remote   *remote
	interval time.Duration

	width, height int

	history topHistory
	shot    *topSnapshot // the last one
	failure error        // of the last request; nil if it was answered
	lost    time.Time    // since when it fails

	view     topView
	pool     string             // whose backends are shown; "" for those of all
	selected map[topView]string // the keys of the selected rows
	order    int                // of topOrders
	reverse  bool
	filter   string
	dialog   *topDialog // nil if none is open
	notice   string     // the result of the last change
	noticed  time.Time  // when it came
	mistake  bool       // it failed
}

func newTopModel(ctx context.Context, r *remote, interval time.Duration, pool string) *topModel {
	m := &topModel{ctx: ctx, remote: r, interval: interval, pool: pool, width: 80, height: 24,
		selected: map[topView]string{}}
	if pool != "" {
		m.view = viewBackends
	}
	return m
}

// The messages of top's own.
type (
	topTick   struct{}
	topAnswer struct {
		sample topSample
		err    error
	}
	topChanged struct {
		backend admin.Backend
		what    string
		err     error
	}
)

// Init starts the clock.
func (m *topModel) Init() tea.Cmd { return m.wait() }

func (m *topModel) wait() tea.Cmd {
	return tea.Tick(m.interval, func(time.Time) tea.Msg { return topTick{} })
}

// Update handles one message.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case topTick:
		return m, func() tea.Msg {
			s, err := m.remote.sample(m.ctx)
			return topAnswer{s, err}
		}
	case topAnswer:
		m.take(msg.sample, msg.err)
		return m, m.wait()
	case topChanged:
		m.changed(msg)
	case tea.PasteMsg:
		m.typed(msg.Content)
	case tea.KeyPressMsg:
		return m, m.key(msg)
	}
	return m, nil
}

// take takes up the answer to a request.
func (m *topModel) take(s topSample, err error) {
	if err != nil {
		if m.failure == nil {
			m.lost = time.Now()
		}
		m.failure = shown(err)
		return
	}
	m.shot, m.failure = m.history.measured(s), nil
	if !m.mistake && time.Since(m.noticed) > noticeTime {
		m.notice = ""
	}
}

// changed takes up the answer to a change. The next sample shows it anyway; this is for the eye.
func (m *topModel) changed(c topChanged) {
	if m.mistake = c.err != nil; m.mistake {
		m.notice = shown(c.err).Error()
		return
	}
	m.notice, m.noticed = c.what, time.Now()
	for i := range m.shot.Backends {
		if b := &m.shot.Backends[i]; b.Pool == c.backend.Pool && b.Name == c.backend.Name {
			b.Backend = c.backend
		}
	}
}

// change sends a change of a backend to the daemon.
func (m *topModel) change(b admin.Backend, change admin.BackendChange) tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := m.remote.bounded(m.ctx)
		defer cancel()
		now, err := m.remote.client.ChangeBackend(ctx, b.Pool, b.Name, change)
		return topChanged{now, fmt.Sprintf("%s of pool %s: weight %d, mode %s%s", b.Name, b.Pool, now.Weight, now.Mode,
			sharingText(now.Sharing)), err}
	}
}

func (m *topModel) poolNamed(name string) *topPool {
	if i := slices.IndexFunc(m.shot.Pools, func(p topPool) bool { return p.Name == name }); i >= 0 {
		return &m.shot.Pools[i]
	}
	return nil
}

// The rows of the screen, sorted and filtered.

func (m *topModel) pools() []topPool {
	return arrange(m.shot.Pools, topOrders()[m.order].pools, m.reverse, m.filter, func(p topPool) string {
		return strings.Join([]string{p.Name, p.Algorithm, p.Check, p.Discovery, strings.Join(p.Listeners, " "),
			poolNote(&p.Pool)}, " ")
	})
}

func (m *topModel) listeners() []topListener {
	filter := m.filter
	if m.view != viewListeners {
		filter = "" // above the pools they are no list to look for something in
	}
	return arrange(m.shot.Listeners, topOrders()[m.order].listeners, m.reverse, filter, func(l topListener) string {
		return strings.Join([]string{l.Name, l.Protocol, addressList(l.Addresses), strings.Join(l.Pools, " ")}, " ")
	})
}

func (m *topModel) backends() []topBackend {
	backends := m.shot.Backends
	if m.pool != "" {
		backends = slices.DeleteFunc(slices.Clone(backends), func(b topBackend) bool { return b.Pool != m.pool })
	}
	return arrange(backends, topOrders()[m.order].backends, m.reverse, m.filter, func(b topBackend) string {
		return strings.Join([]string{b.Pool, b.Name, b.Address, b.Verdict, b.Mode, b.Breaker, b.Zone, b.Source,
			whyOf(&b.Backend)}, " ")
	})
}

// rows returns the table of the view, and a key for each of its rows.
func (m *topModel) rows() (t *table, keys []string) {
	switch m.view {
	case viewBackends:
		backends := m.backends()
		for _, b := range backends {
			keys = append(keys, b.Pool+" "+b.Name)
		}
		return topBackendTable(backends, m.pool == ""), keys
	case viewListeners:
		listeners := m.listeners()
		for _, l := range listeners {
			keys = append(keys, l.Name+" "+l.Protocol)
		}
		return topListenerTable(listeners), keys
	}
	pools := m.pools()
	for _, p := range pools {
		keys = append(keys, p.Name)
	}
	return topPoolTable(pools), keys
}

// at returns the index of the selected row: the first if none is selected, or if it is gone.
func (m *topModel) at(keys []string) int { return max(slices.Index(keys, m.selected[m.view]), 0) }

// backend returns the selected backend; nil if there is none.
func (m *topModel) backend() *topBackend {
	if m.view != viewBackends {
		return nil
	}
	backends := m.backends()
	if len(backends) == 0 {
		return nil
	}
	i := slices.IndexFunc(backends, func(b topBackend) bool { return b.Pool+" "+b.Name == m.selected[m.view] })
	return &backends[max(i, 0)]
}

// title describes the rows of the view.
func (m *topModel) title(shownRows int) string {
	what := map[topView]string{viewPools: "pool", viewBackends: "backend", viewListeners: "listener"}[m.view]
	words := []string{counted(shownRows, what)}
	if m.view == viewBackends && m.pool != "" {
		words[0] += " of pool " + m.pool
	}
	if m.filter != "" {
		words = append(words, fmt.Sprintf("filter %q", m.filter))
	}
	if m.order > 0 || m.reverse {
		words = append(words, "by "+cmp.Or(topOrders()[m.order].name, "configuration"))
	}
	if m.reverse {
		words = append(words, "backwards")
	}
	return strings.Join(words, ", ")
}
