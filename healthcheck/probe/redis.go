package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// Redis checks that a Redis server (2.8.12 or newer, or what speaks as it does: Valkey, KeyDB, Dragonfly) answers PING and has the
// wanted role. It is a plain value; its zero value checks the target's own port without a password, for any role.
//
// It asks for ROLE, or INFO replication where the user may not run that (a user of its own needs no more than
// "+ping +role +info"). A user who may run neither is told the server's health only, and nothing when a Role or MaxLag is
// wanted.
//
// The role outranks whatever else is wrong: a replica that lost its primary is first of all a replica, so that nobody
// who wants a primary tries it. A replica whose link to its primary is down is unhealthy, with or without MaxLag: its data
// is as old as the link is down, nobody knows how much it missed, and it may refuse reads (replica-serve-stale-data).
type Redis struct {
	Port     uint16           // instead of the target's; 0 = the target's
	User     string           // "" = the default user
	Password string           // "" = no AUTH, unless there is a User
	Role     healthcheck.Role // wanted; RoleUnknown = any

	// MaxLag is how long a replica may not have heard from its primary; 0 = not looked at. Redis tells it in whole
	// seconds, and an idle primary speaks only every repl-ping-replica-period (10 s unless configured): less than that
	// would call the replicas of an idle primary lagging.
	MaxLag time.Duration

	TLS *tls.Config // nil = plain; without a ServerName the certificate has to be for the target's address
}

// Check asks t for its health and role.
func (c Redis) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	k, err := openTalk(ctx, t, c.Port, c.TLS, addressName(t))
	if err != nil {
		return healthcheck.Result{}, err
	}
	defer k.part(ctx)
	report, err := c.ask(redisSession{k, newRESPReader(k, c.Password != "")})
	if err != nil {
		return healthcheck.Result{}, k.unanswered(ctx, err)
	}
	latency := time.Since(k.start)
	report = c.seenAs(report)
	err = c.judge(report)
	if err != nil && !errors.Is(err, healthcheck.ErrWrongRole) && !errors.Is(err, healthcheck.ErrLagging) {
		return healthcheck.Result{}, err
	}
	result := healthcheck.Result{Role: report.role, Offset: report.offset, Replicas: report.replicas}
	if err == nil {
		result.Latency, result.Detail = latency, report.String()
	}
	return result, err
}

// A redisReport is what a server said of itself. Its zero value is a server that said nothing.
type redisReport struct {
	ping     error // nil after PONG
	role     healthcheck.Role
	active   bool          // of a replica: it takes writes, too
	strange  string        // what it calls its role, if that is none that is known here
	offset   uint64        // of a primary
	replicas int           // of a primary, those that are connected
	link     string        // of a replica, the state of the link to its primary: "connected" is the good one
	silence  time.Duration // of a replica, since it heard from its primary; -1 = not known
}

// redisLinkUp is how ROLE calls a link that is up; INFO's "up" is translated.
const redisLinkUp = "connected"

// String returns what a person may want to read of a healthy server.
func (r redisReport) String() string {
	switch {
	case r.role == healthcheck.RolePrimary && r.replicas == 1:
		return "primary with 1 replica"
	case r.role == healthcheck.RolePrimary:
		return fmt.Sprintf("primary with %d replicas", r.replicas)
	case r.active:
		return "active replica, takes writes"
	case r.strange != "":
		return "role " + quoted([]byte(r.strange))
	case r.role == healthcheck.RoleReplica && r.silence >= 0:
		return fmt.Sprintf("replica, heard from its primary %v ago", r.silence)
	case r.role == healthcheck.RoleReplica:
		return "replica"
	}
	return "role not allowed to see"
}

// seenAs returns r as this check takes it. An active replica does the work of both roles: it is the one that is wanted, and a primary
// if that is nobody's wish. What it is the primary of does not depend on its link.
func (c Redis) seenAs(r redisReport) redisReport {
	if r.active && c.Role != healthcheck.RoleReplica {
		r.role = healthcheck.RolePrimary
	}
	return r
}

// judge says what is wrong with a server that reported so, the role before everything else.
func (c Redis) judge(r redisReport) error {
	switch {
	case r.role == healthcheck.RoleUnknown && r.ping != nil:
		return r.ping
	case r.strange != "" && (c.Role != healthcheck.RoleUnknown || c.MaxLag > 0):
		return unhealthyf("unknown role %s", quoted([]byte(r.strange)))
	case c.Role != healthcheck.RoleUnknown && r.role == healthcheck.RoleUnknown, c.MaxLag > 0 && r.role == healthcheck.RoleUnknown:
		return refusedf("the user may run neither role nor info")
	case c.Role != healthcheck.RoleUnknown && r.role != c.Role:
		return wrongRolef("is a %v, wanted a %v", r.role, c.Role)
	case r.role == healthcheck.RoleReplica && r.link != redisLinkUp && r.silence >= 0:
		return unhealthyf("replica: link to its primary is down (%s for %v)", escaped(r.link), r.silence)
	case r.role == healthcheck.RoleReplica && r.link != redisLinkUp && !errors.Is(r.ping, redisReplyError{"LOADING"}):
		return unhealthyf("replica: link to its primary is down (%s)", escaped(r.link))
	case r.ping != nil:
		return r.ping
	case c.MaxLag > 0 && r.role == healthcheck.RoleReplica && r.silence < 0:
		return refusedf("the user may not run info, lag unknown")
	case c.MaxLag > 0 && r.role == healthcheck.RoleReplica && r.silence > c.MaxLag:
		return laggingf("replica: heard nothing from its primary for %v, at most %v allowed", r.silence, c.MaxLag)
	}
	return nil
}

// A redisSession sends commands and reads replies.
type redisSession struct {
	w io.Writer
	r *respReader
}

// ask gets the report, in one round trip unless ROLE is refused.
func (c Redis) ask(s redisSession) (redisReport, error) {
	var commands []byte
	authenticates := c.User != "" || c.Password != ""
	switch {
	case c.User != "":
		commands = appendRESP(commands, "AUTH", c.User, c.Password)
	case authenticates: // with one argument, since servers before 6.0 know no users
		commands = appendRESP(commands, "AUTH", c.Password)
	}
	commands = appendRESP(commands, "PING")
	commands = appendRESP(commands, "ROLE")
	if c.MaxLag > 0 {
		commands = appendRESP(commands, "INFO", "replication")
	}
	// A server that is full says so and closes: what it said can still be read when writing fails. When there is nothing,
	// the read fails, too.
	_, _ = s.w.Write(commands)

	if authenticates {
		if err := s.authenticated(); err != nil {
			return redisReport{}, err
		}
	}
	report := redisReport{silence: -1}
	ping, err := s.r.read()
	switch {
	case err != nil:
		return redisReport{}, err
	case ping.kind == '-':
		report.ping = redisError(ping.text)
		if code := redisErrorCode(ping.text); code == "NOAUTH" || code == "DENIED" || code == "ERR" {
			return redisReport{}, report.ping // it goes on to say nothing, or closes
		}
	case ping.kind != '+' || ping.text != "PONG":
		return redisReport{}, s.r.noRedis([]byte(ping.text))
	}
	return report, s.replication(&report, c.MaxLag > 0)
}

// authenticated reads the answer to AUTH.
func (s redisSession) authenticated() error {
	v, err := s.r.read()
	switch {
	case err != nil:
		return err
	case v.kind == '+' && v.text == "OK":
		return nil
	case v.kind != '-':
		return s.r.noRedis([]byte(v.text))
	}
	// Nothing else of the text is shown: a server that does not know AUTH repeats its arguments.
	if redisErrorWords(v.text) != "" || redisRefusalWords(v.text) != "" {
		return redisError(v.text)
	}
	return refusedf("authentication refused: wrong password, or the server has none") // before 6.0 there is no WRONGPASS
}

// replication reads the answers to ROLE and, where it was asked at once, INFO.
func (s redisSession) replication(report *redisReport, asked bool) error {
	role, err := s.r.read()
	if err != nil {
		return err
	}
	if !asked && role.kind == '-' {
		if _, err := s.w.Write(appendRESP(nil, "INFO", "replication")); err != nil {
			return err
		}
		asked = true
	}
	if asked {
		info, err := s.r.read()
		if err != nil {
			return err
		}
		if info.kind == '$' {
			report.addInfo(info.text)
		}
	}
	if role.kind == '-' {
		return nil // what INFO said, if anything, is all there is
	}
	return report.addRole(role)
}

// redisRole returns the role that servers call so: Redis and Valkey "master" and "slave", Dragonfly "replica" (in INFO, and by now
// in ROLE, too), KeyDB "active-replica" one that takes writes and follows another one that does.
func redisRole(name string) (r healthcheck.Role, active bool) {
	switch name {
	case "master", "primary":
		return healthcheck.RolePrimary, false
	case "slave", "replica":
		return healthcheck.RoleReplica, false
	case "active-replica":
		return healthcheck.RoleReplica, true
	}
	return healthcheck.RoleUnknown, false
}

// addRole adds what ROLE says (redis.io/commands/role).
func (r *redisReport) addRole(v respValue) error {
	if v.kind != '*' || len(v.items) == 0 {
		return unhealthyf("not a redis server: role is no list")
	}
	if v.items[0].kind == '*' { // KeyDB with several masters has a list for each
		for _, one := range v.items {
			if err := r.addRole(one); err != nil {
				return err
			}
		}
		return nil
	}
	name := v.items[0].text
	switch role, active := redisRole(name); {
	case role == healthcheck.RolePrimary && len(v.items) == 2: // Dragonfly's has no offset
		r.role, r.replicas = role, len(v.items[1].items)
	case role == healthcheck.RolePrimary && len(v.items) >= 3:
		r.role, r.offset, r.replicas = role, uint64(max(v.items[1].n, 0)), len(v.items[2].items)
	case role == healthcheck.RoleReplica && len(v.items) >= 4:
		r.role, r.active = role, active
		// INFO may have seen the link go down a moment later
		if link := redisLink(v.items[3].text); r.link == "" || link != redisLinkUp {
			r.link = link
		}
	case name == "sentinel":
		return unhealthyf("is a sentinel, not a data server")
	case name == "":
		return unhealthyf("unknown role %s", quoted(nil))
	default:
		r.strange = name
	}
	return nil
}

// redisLink returns the state of a replica's link in Redis' words. Dragonfly calls one that is up by what goes over it.
func redisLink(text string) string {
	if text == "stable_sync" || text == "online" {
		return redisLinkUp
	}
	return text
}

// addInfo adds what the replication section of INFO says (redis.io/commands/info). What it lacks stays as it was.
func (r *redisReport) addInfo(text string) {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			fields[name] = value
		}
	}
	number := func(name string) int64 {
		n, err := strconv.ParseInt(fields[name], 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	switch role, active := redisRole(fields["role"]); role {
	case healthcheck.RolePrimary:
		r.role, r.offset = healthcheck.RolePrimary, uint64(max(number("master_repl_offset"), 0))
		r.replicas = int(max(number("connected_slaves"), 0))
	case healthcheck.RoleReplica:
		r.role, r.link, r.active = healthcheck.RoleReplica, redisLinkUp, active
		seconds := number("master_last_io_seconds_ago")
		if fields["master_link_status"] != "up" {
			r.link = "down"
			if fields["master_sync_in_progress"] == "1" {
				r.link = "sync"
			}
			seconds = number("master_link_down_since_seconds") // -1 when it was never up
		}
		if seconds >= 0 {
			const century = 100 * 365 * 24 * 3600 // as bad as more, and fits into a Duration
			r.silence = time.Duration(min(seconds, century)) * time.Second
		}
	}
}

// redisErrorCode returns the first word of an error reply, which says what kind of error it is.
func redisErrorCode(text string) string {
	code, _, _ := strings.Cut(text, " ")
	return code
}

// A redisReplyError is an error reply to PING.
type redisReplyError struct{ code string }

// Error returns the code.
func (e redisReplyError) Error() string { return e.code }

// redisError puts an error reply into words.
func redisError(text string) error {
	said := unhealthyf("answered with an error: %s", escaped(text))
	if words := redisErrorWords(text); words != "" {
		said = unhealthyf("%s", words)
	}
	if words := redisRefusalWords(text); words != "" {
		said = refusedf("%s", words)
	}
	return said.because(redisReplyError{redisErrorCode(text)})
}

// redisRefusalWords returns what is known of an error that is about the credentials of the check; "" of any other.
func redisRefusalWords(text string) string {
	switch redisErrorCode(text) {
	case "NOAUTH":
		return "the server wants a password"
	case "WRONGPASS":
		return "authentication refused"
	case "NOPERM":
		return "the user may not run ping"
	}
	return ""
}

// redisErrorWords returns what is known of a kind of error; "" if it is none that a check meets.
func redisErrorWords(text string) string {
	switch redisErrorCode(text) {
	case "LOADING":
		return "loading its data"
	case "MASTERDOWN":
		return "replica: link to its primary is down"
	case "DENIED":
		return "refused: the server is in protected mode"
	case "MISCONF":
		return "takes no writes: it cannot save its data"
	case "BUSY":
		return "busy running a script"
	case "ERR":
		if strings.HasPrefix(text, "ERR max number of clients") { // it has no code of its own
			return "its maximum of clients is reached"
		}
	}
	return ""
}
