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

// Redis checks that a Redis server (2.8.12 or newer, or a compatible one: Valkey, KeyDB, Dragonfly) answers PING and
// has the wanted role. It is a plain value; its zero value checks the target's own port without a password, for any
// role.
//
// It sends ROLE, and INFO replication if the user may not run ROLE (a user for checks needs no more than
// "+ping +role +info"). If the user may run neither, the check succeeds without a role, or fails if a Role or MaxLag is
// wanted.
//
// A wrong role comes before any other failure: a replica that has lost its primary is first of all a replica, so that
// no session that needs a primary tries it. A replica whose link to its primary is down is unhealthy, with or without
// MaxLag: its data gets older, nobody knows how much it lacks, and it may refuse reads (replica-serve-stale-data).
type Redis struct {
	Port     uint16           // instead of the target's; 0 = the target's
	User     string           // "" = the default user
	Password string           // "" = no AUTH, unless there is a User
	Role     healthcheck.Role // wanted; RoleUnknown = any
	Fallback bool             // with Role RoleReplica: a primary is ErrFallback, and not ErrWrongRole

	// MaxLag is for how long a replica may have received nothing from its primary; 0 = for ever. Redis reports that in
	// whole seconds. An idle primary sends something every repl-ping-replica-period (10 s by default); with a lower
	// MaxLag the replicas of an idle primary would be lagging.
	MaxLag time.Duration

	TLS *tls.Config // nil = plain; without a ServerName the certificate must be for the target's address

	asksLag bool // what a MaxLag needs is asked for another check, too
}

// Check asks t for its health and role. Its errors wrap their cause; if the cause is on this machine, they wrap
// ErrInconclusive as well.
func (c Redis) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	return check(ctx, c, t)
}

// Ask does all of Check that needs the network.
func (c Redis) Ask(ctx context.Context, t healthcheck.Target) (any, error) {
	k, err := openConn(ctx, t, c.Port, c.TLS, addressName(t))
	if err != nil {
		return nil, err
	}
	defer k.finish(ctx)
	report, err := c.ask(redisSession{k, newRESPReader(k, c.Password != "")})
	if err != nil {
		return nil, k.unanswered(ctx, err)
	}
	report.latency = time.Since(k.start)
	return report, nil
}

// Join returns c, which asks for the lag as well if other needs it.
func (c Redis) Join(other healthcheck.Checker) healthcheck.Checker {
	o := other.(Redis)
	c.asksLag = c.needsLag() || o.needsLag()
	return c
}

// needsLag reports whether the lag is asked for.
func (c Redis) needsLag() bool { return c.MaxLag > 0 || c.asksLag }

// Judge judges what a server has reported.
func (c Redis) Judge(answer any) (healthcheck.Result, error) {
	report := c.seenAs(answer.(redisReport))
	err := c.judge(report)
	if err != nil && !isReport(err) {
		return healthcheck.Result{}, err
	}
	result := healthcheck.Result{Role: report.role, Offset: report.offset, Replicas: report.replicas}
	if report.role == healthcheck.RoleReplica && report.silence >= 0 {
		result.Lag, result.KnowsLag = report.silence, true
	}
	if err == nil {
		result.Latency, result.Detail = report.latency, report.String()
	}
	return result, err
}

// A redisReport is what a server said of itself. It is a plain value.
type redisReport struct {
	ping     error // nil after PONG
	role     healthcheck.Role
	active   bool          // replica: it takes writes, too
	strange  string        // the server's word for its role, if it is none of those known here
	offset   uint64        // primary: the replication offset
	replicas int           // primary: the number of connected replicas
	link     string        // replica: the state of the link to its primary; redisLinkUp if all is well
	silence  time.Duration // replica: since when it has received nothing from its primary; -1 = not known
	latency  time.Duration // of the answer
}

// redisLinkUp is the word of ROLE for a link that is up. INFO's word, "up", is translated to it.
const redisLinkUp = "connected"

// String describes a healthy server.
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

// seenAs returns r with the role that counts for this check. An active replica works in both roles: it has the wanted
// role, and is a primary if none is wanted. As a primary it does not depend on its link.
func (c Redis) seenAs(r redisReport) redisReport {
	if r.active && c.Role != healthcheck.RoleReplica {
		r.role = healthcheck.RolePrimary
	}
	return r
}

// judge returns what is wrong with a server that reported r: the role first, then everything else.
func (c Redis) judge(r redisReport) error {
	switch {
	case r.role == healthcheck.RoleUnknown && r.ping != nil:
		return r.ping
	case r.strange != "" && (c.Role != healthcheck.RoleUnknown || c.MaxLag > 0):
		return unhealthyf("unknown role %s", quoted([]byte(r.strange)))
	case r.role == healthcheck.RoleUnknown && (c.Role != healthcheck.RoleUnknown || c.MaxLag > 0):
		return refusedf("the user may run neither role nor info")
	case judgeRole(r.role, c.Role, c.Fallback) != nil:
		return judgeRole(r.role, c.Role, c.Fallback)
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
	return fallsBack(r.role, c.Role, c.Fallback)
}

// A redisSession sends commands and reads replies over one connection.
type redisSession struct {
	w io.Writer
	r *respReader
}

// ask returns the server's report. It takes one round trip, and two if the user may not run ROLE.
func (c Redis) ask(s redisSession) (redisReport, error) {
	var commands []byte
	authenticates := c.User != "" || c.Password != ""
	switch {
	case c.User != "":
		commands = appendRESP(commands, "AUTH", c.User, c.Password)
	case authenticates: // with one argument, since servers before 6.0 have no users
		commands = appendRESP(commands, "AUTH", c.Password)
	}
	commands = appendRESP(commands, "PING")
	commands = appendRESP(commands, "ROLE")
	if c.needsLag() {
		commands = appendRESP(commands, "INFO", "replication")
	}
	// A server that has reached its maximum of clients says so and closes. Its answer can be read even if the write
	// fails. If there is no answer, the read fails, too.
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
			return redisReport{}, report.ping // the server sends nothing else, or closes
		}
	case ping.kind != '+' || ping.text != "PONG":
		return redisReport{}, s.r.noRedis([]byte(ping.text))
	}
	return report, s.replication(&report, c.needsLag())
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
	// No other text is shown: a server that does not know AUTH repeats its arguments, and with them the password.
	if redisErrorWords(v.text) != "" || redisRefusalWords(v.text) != "" {
		return redisError(v.text)
	}
	// Before 6.0 there is no WRONGPASS.
	return refusedf("authentication refused: wrong password, or the server has none")
}

// replication reads the answer to ROLE, and to INFO. asked says that INFO was sent already; else it is sent if ROLE is
// refused.
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
		return nil // the report has what INFO said, if anything
	}
	return report.addRole(role)
}

// redisRole returns the role for a server's word. Redis and Valkey say "master" and "slave", Dragonfly says "replica"
// (in INFO, and recent versions also in ROLE). KeyDB says "active-replica" for a server that takes writes and follows
// another one that does, too.
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

// addRole adds the answer to ROLE (redis.io/commands/role) to the report.
func (r *redisReport) addRole(v respValue) error {
	if v.kind != '*' || len(v.items) == 0 {
		return unhealthyf("not a redis server: role is no list")
	}
	if v.items[0].kind == '*' { // KeyDB with several masters returns a list for each
		for _, one := range v.items {
			if err := r.addRole(one); err != nil {
				return err
			}
		}
		return nil
	}
	name := v.items[0].text
	switch role, active := redisRole(name); {
	case role == healthcheck.RolePrimary && len(v.items) == 2: // Dragonfly reports no offset
		r.role, r.replicas = role, len(v.items[1].items)
	case role == healthcheck.RolePrimary && len(v.items) >= 3:
		r.role, r.offset, r.replicas = role, uint64(max(v.items[1].n, 0)), len(v.items[2].items)
	case role == healthcheck.RoleReplica && len(v.items) >= 4:
		r.role, r.active = role, active
		// INFO ran a moment later, and may have found the link down.
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

// redisLink returns the state of a replica's link in Redis' words. Dragonfly has other words for a link that is up.
func redisLink(text string) string {
	if text == "stable_sync" || text == "online" {
		return redisLinkUp
	}
	return text
}

// addInfo adds the replication section of INFO (redis.io/commands/info) to the report. Fields that are missing there
// stay as they are.
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
			const century = 100 * 365 * 24 * 3600 // a longer time says no more, and may overflow a Duration
			r.silence = time.Duration(min(seconds, century)) * time.Second
		}
	}
}

// redisErrorCode returns the first word of an error reply, which is the kind of error.
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

// redisRefusalWords returns words for an error about the credentials of the check, and "" for any other error.
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

// redisErrorWords returns words for the other errors that a check may get, and "" for any other error.
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
