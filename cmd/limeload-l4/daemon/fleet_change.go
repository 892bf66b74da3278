package daemon

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/fleet"
	"github.com/limeload/limeload-l4/pool"
)

const (
	// maxChangeBytes bounds the value of a shared change. One of a backend with the longest texts has less than 2 KiB for
	// each source that names it.
	maxChangeBytes = 16 << 10
	// maxSharedName bounds the names in a shared change. Discovered backends may have host names.
	maxSharedName = 300
)

// The first parts of the keys of shared changes, below fleet.Changes:
//
//	backends/POOL/BACKEND/FIELD    a setting of a backend, see pool.OverrideFields
//	access/LISTENER/PREFIX         an access rule; LISTENER may be empty
const (
	backendsPart = "backends"
	accessPart   = "access"
)

// whatAccess is what a shared change of an access rule is about, in the API.
const whatAccess = "access"

// A sharedValue is the value of a shared change, as etcd has it. Overrides is for a setting, Rule for an access rule.
type sharedValue struct {
	Overrides []savedOverride `json:"overrides,omitempty"` // see pool.FieldOverrides
	// Deadline is when the sessions of a backend that drains are ended; zero for never.
	Deadline time.Time        `json:"deadline,omitzero"`
	Rule     *savedAccessRule `json:"rule,omitempty"`
}

// A changeID tells changes of one setting apart. It stays the same when the record gets another serial.
type changeID string

func idOf(r fleet.Record) changeID {
	return changeID(r.At.UTC().Format(time.RFC3339Nano) + " " + r.Node)
}

// A sharedChange is a run-time change of one setting that the nodes of a fleet share. It is immutable.
type sharedChange struct {
	id     changeID
	record fleet.Record

	// of a setting
	pool     string
	setting  pool.FieldOverrides // without overrides if it was undone
	deadline time.Time

	// of an access rule
	isRule bool
	rule   accessRule // only its ruleKey if it was undone
}

// settingKey returns the key of a setting of a backend.
func settingKey(pool, backend, field string) string {
	return fleet.Changes + fleet.Key(backendsPart, pool, backend, field)
}

// accessKey returns the key of an access rule.
func accessKey(k ruleKey) string {
	return fleet.Changes + fleet.Key(accessPart, k.listener, k.prefix.String())
}

// parseChange parses a shared change. Anybody who may write to etcd can have made it, so it must pass what a request of
// the API and a state file must.
func parseChange(key string, r fleet.Record) (*sharedChange, error) {
	c := &sharedChange{id: idOf(r), record: r}
	parts, is := fleet.Parts(strings.TrimPrefix(key, fleet.Changes))
	if !is {
		return nil, errors.New("its key is not one of this program")
	}
	for _, part := range parts {
		if !isPrintable(part, maxSharedName) {
			return nil, fmt.Errorf("its key has a name that is too long, or not printable: %q", short(part))
		}
	}
	var v sharedValue
	switch {
	case len(r.Value) > maxChangeBytes:
		return nil, fmt.Errorf("its value has more than %d bytes", maxChangeBytes)
	case r.Undone:
	default:
		if err := json.Unmarshal(r.Value, &v); err != nil {
			return nil, fmt.Errorf("its value cannot be understood: %w", err)
		}
	}
	switch {
	case len(parts) == 4 && parts[0] == backendsPart:
		c.pool, c.deadline = parts[1], v.Deadline
		c.setting = pool.FieldOverrides{ID: parts[2], Field: parts[3]}
		return c, c.takeOverrides(v.Overrides)
	case len(parts) == 3 && parts[0] == accessPart:
		c.isRule = true
		return c, c.takeRule(parts[1], parts[2], v.Rule)
	}
	return nil, errors.New("its key is not one of this version of the program")
}

// takeOverrides sets the overrides of a setting, as they were saved.
func (c *sharedChange) takeOverrides(saved []savedOverride) error {
	if len(saved) == 0 && !c.record.Undone {
		return errors.New("its value has no change of a backend")
	}
	for _, s := range saved {
		o, err := fromSaved(s)
		if err == nil && o.Kind == pool.OverrideAdded {
			o.Base, err = addedSpec(o.Base)
		}
		if err == nil && !(isPrintable(o.Source, maxSharedName) && isPrintable(o.Base.Zone, maxSharedName)) {
			err = errors.New("it has a name that is too long, or not printable")
		}
		if err != nil {
			return err
		}
		c.setting.Overrides = append(c.setting.Overrides, o)
	}
	return c.setting.Check()
}

// addedSpec returns the description of a backend that another node has added, if this node's API would add it too.
func addedSpec(s pool.Spec) (pool.Spec, error) {
	weight := int(s.Weight)
	b := admin.NewBackend{
		Name: s.ID, Address: s.Addr.String(), Weight: &weight, MaxSessions: s.MaxSessions, MaxRate: s.MaxRate.String(),
		Tier: s.Tier, Zone: s.Zone, Mode: s.Mode.String(),
	}
	if b.Name == b.Address {
		b.Name = "" // the default, which is no name that could be given
	}
	if s.Check.IsValid() {
		b.Check = s.Check.String()
	}
	return newBackendSpec(b)
}

// takeRule sets the access rule, as it was saved.
func (c *sharedChange) takeRule(listener, prefix string, saved *savedAccessRule) error {
	if c.record.Undone {
		p, err := admin.ParsePrefix(prefix)
		c.rule = accessRule{ruleKey: ruleKey{prefix: p, listener: listener}}
		return err
	}
	if saved == nil || saved.Listener != listener {
		return errors.New("its value has no access rule of its key")
	}
	rules, err := parseSavedRules([]savedAccessRule{*saved})
	if err != nil {
		return err
	}
	if c.rule = rules[0]; c.rule.prefix.String() != prefix {
		return errors.New("its value has no access rule of its key")
	}
	return nil
}

// forgotten returns the end of a change that the fleet has forgotten.
func (c *sharedChange) forgotten(now time.Time) *sharedChange {
	end := *c
	end.record = fleet.Record{At: now, Undone: true}
	end.id, end.deadline, end.setting.Overrides = idOf(end.record), time.Time{}, nil
	return &end
}

// isForgotten reports whether the change is one of forgotten.
func (c *sharedChange) isForgotten() bool { return c.record.Serial == 0 }

// isOver reports whether the change is about an access rule whose time has passed.
func (c *sharedChange) isOver(now time.Time) bool {
	return c.isRule && !c.record.Undone && c.rule.over(now)
}

// drains reports whether the change is a drain with a deadline.
func (c *sharedChange) drains() bool {
	if c.setting.Field != fieldMode || c.deadline.IsZero() {
		return false
	}
	for _, o := range c.setting.Overrides {
		if o.Mode != nil && *o.Mode == pool.Drain {
			return true
		}
	}
	return false
}

// what says which kind of setting the change is about.
func (c *sharedChange) what() string {
	if c.isRule {
		return whatAccess
	}
	return c.setting.Field
}

// about says in words which setting the change is about.
func (c *sharedChange) about() string {
	switch {
	case c.isRule:
		return fmt.Sprintf("the access rule for %s %s", c.rule.prefix, c.rule.place())
	case c.setting.Field == pool.FieldThere:
		return fmt.Sprintf("backend %q of pool %q", c.setting.ID, c.pool)
	}
	return fmt.Sprintf("%s of backend %q of pool %q", c.setting.Field, c.setting.ID, c.pool)
}

// value says in words what the setting is changed to; "" if the change was undone.
func (c *sharedChange) value() string {
	switch {
	case c.record.Undone:
		return ""
	case c.isRule:
		return c.rule.action()
	}
	var words []string
	for _, o := range c.setting.Overrides {
		text := ""
		switch {
		case o.Kind == pool.OverrideAdded:
			text = "added at " + o.Base.Addr.String()
		case o.Kind == pool.OverrideRemoved:
			text = "removed"
		case o.Weight != nil:
			text = fmt.Sprint(*o.Weight)
		case o.MaxSessions != nil:
			text = fmt.Sprint(*o.MaxSessions)
		case o.MaxRate != nil:
			text = cmp.Or(o.MaxRate.String(), "no limit")
		case o.Mode != nil:
			text = o.Mode.String()
		}
		if len(words) == 0 || words[len(words)-1] != text { // several sources name the backend
			words = append(words, text)
		}
	}
	return strings.Join(words, ", ")
}

// isPrintable reports whether a text from etcd has at most so many bytes, all of printable characters.
func isPrintable(text string, most int) bool {
	return len(text) <= most && utf8.ValidString(text) &&
		!strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// short returns the beginning of a text from etcd for a message or an answer, quoted unless it is printable.
func short(text string) string {
	const most = 100
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	if !isPrintable(text, len(text)) {
		return fmt.Sprintf("%q", text)
	}
	return text
}
