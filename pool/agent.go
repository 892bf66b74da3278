package pool

import (
	"fmt"
	"strings"
)

// An Agent is what the program on a backend's host has said about it, as far as that is in force. It never changes what
// the operator has said; both count, and the stricter one decides. It is a plain value, and its zero value says
// nothing.
type Agent struct {
	Mode   Mode   // Ready if it says nothing
	Down   bool   // it says that the backend does not work
	Reason string // of Down, in the agent's words; may be empty

	Weighs  bool // Percent counts
	Percent int  // of the weight that the configuration or the operator gives, 0 to MaxAgentPercent

	MaxSessions int // the lower one of this and the backend's own limit counts; 0 is no limit
}

// MaxAgentPercent is the highest percentage that has an effect: that of MaxWeight for a weight of 1.
const MaxAgentPercent = 100 * MaxWeight

// String returns what the agent says in the words of its protocol; "" if it says nothing.
func (a Agent) String() string {
	var words []string
	switch a.Mode {
	case Drain:
		words = append(words, "drain")
	case Maintenance:
		words = append(words, "maint")
	}
	if a.Down {
		words = append(words, "down")
	}
	if a.Weighs {
		words = append(words, fmt.Sprintf("%d%%", a.Percent))
	}
	if a.MaxSessions > 0 {
		words = append(words, fmt.Sprintf("maxconn:%d", a.MaxSessions))
	}
	if a.Down && a.Reason != "" {
		words = append(words, "#"+a.Reason)
	}
	return strings.Join(words, " ")
}

// Withdraws reports whether the agent wants the backend to get nothing new: it says drain, maint or 0%. Down is no
// wish.
func (a Agent) Withdraws() bool { return a.Mode != Ready || a.Weighs && a.Percent == 0 }

// weigh returns a backend's weight in force: at least 1 unless the weight or the percentage is 0, and at most
// MaxWeight.
func (a Agent) weigh(weight uint32) uint32 {
	if !a.Weighs || weight == 0 {
		return weight
	}
	if a.Percent == 0 {
		return 0
	}
	return min(max(weight*uint32(a.Percent)/100, 1), MaxWeight)
}

// limit returns a backend's limit of sessions in force.
func (a Agent) limit(n int) int {
	switch {
	case a.MaxSessions == 0:
		return n
	case n == 0:
		return a.MaxSessions
	}
	return min(n, a.MaxSessions)
}

// checked returns an *InvalidBackendError for an Agent that no agent can mean.
func (a Agent) checked() error {
	if err := validateMode(a.Mode); err != nil {
		return err
	}
	if err := upTo("agent's percentage", a.Percent, MaxAgentPercent); err != nil {
		return err
	}
	return CheckMaxSessions(a.MaxSessions)
}

// The settings in force are those that the agent leaves.

func (m *member) weightInForce() uint32   { return m.agent.weigh(m.weight) }
func (m *member) maxSessionsInForce() int { return m.agent.limit(m.maxSessions) }
func (m *member) modeInForce() Mode       { return max(m.mode, m.agent.Mode) } // the stricter one is the greater

// SetAgent sets what the agent of a backend says. Saying the same again changes nothing. The error wraps an
// *InvalidBackendError or ErrUnknownBackend.
func (p *Pool) SetAgent(id string, a Agent) error {
	const doing = "set agent of"
	if err := a.checked(); err != nil {
		return p.failed(doing, id, err)
	}
	return p.edit(doing, id, func(e *edit) { e.note(e.next.setAgent(a)) })
}

func (m *member) setAgent(a Agent) func(Change) Event {
	from := m.agent
	m.agent = a
	return unless(from == a, func(c Change) Event { return AgentChanged{c, from, a} })
}
