package probe

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// MySQL checks that a MySQL server (5.7 or newer), or a compatible one (MariaDB, Percona Server, Aurora), accepts a
// login, answers a query and has the wanted role. It is a plain value; its zero value lacks a User.
//
// A server is a replica if it is read only (read_only, super_read_only or innodb_read_only), and otherwise a primary.
// In a group replication it is what the group says. A member that is not ONLINE, or sees no majority of its group, is
// unhealthy. A Galera node must belong to the primary component and be synced. A donor or desynced node, and one that
// has joined and catches up, are lagging: they work, and it passes. The same holds for a node of Percona XtraDB Cluster
// that is in maintenance (pxc_maint_mode), also before it shuts down. The nodes of a Galera cluster all take writes, as
// do the members of a group in multi-primary mode: Result.Cluster names their cluster.
//
// The user needs the right to log in. MaxLag needs REPLICATION CLIENT (MySQL) or SLAVE MONITOR (MariaDB) as well, and
// group replication needs SELECT on performance_schema.replication_group_members.
//
// It knows mysql_native_password, caching_sha2_password, and over TLS mysql_clear_password. Without TLS, the password
// may go to whoever has taken the server's place: caching_sha2_password encrypts it with a key that nobody verifies.
//
// It completes each login, also one that it gives up, so that the server never blocks this host for interrupted
// connections.
type MySQL struct {
	Port     uint16 // instead of the target's; 0 = the target's
	User     string
	Password string           // "" = none
	Database string           // "" = none
	Query    string           // must succeed and return a row, if it is one that returns rows; "" = none
	Role     healthcheck.Role // wanted; RoleUnknown = any
	Fallback bool             // with Role RoleReplica: a primary is ErrFallback, and not ErrWrongRole

	// MaxLag is how far a replica may be behind its primary by SHOW REPLICA STATUS, in whole seconds; 0 = any lag will
	// do. A replica whose replication does not run is lagging. The members of a group replication do not report this.
	MaxLag time.Duration

	AllowDonor bool // a Galera node that is a donor or desynced is healthy

	// TLS is required if it is not nil. Without a ServerName the certificate must be for the target's address.
	TLS *tls.Config

	also []MySQL // other checks that judge the same answer
}

// Check logs in to t, asks for its role and state, and logs out. Its errors wrap their cause; if the cause is on this
// machine, they wrap ErrInconclusive as well.
func (c MySQL) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	return check(ctx, c, t)
}

// Ask does all of Check that needs the network.
func (c MySQL) Ask(ctx context.Context, t healthcheck.Target) (any, error) {
	k, err := openConn(ctx, t, c.Port, nil, "")
	if err != nil {
		return nil, err
	}
	defer k.finish(ctx)
	s, version, err := c.login(ctx, k, t)
	if err != nil {
		return nil, k.unanswered(ctx, err)
	}
	report, err := c.ask(s, version)
	if err == nil && c.Query != "" && c.anyOf(func(c MySQL) bool { return mayServe(c.judge(report)) }) {
		report.query = s.returnsRow(c.Query)
		if report.query != nil {
			report.query = k.unanswered(ctx, report.query)
		}
	}
	if report.lagError != nil {
		report.lagError = k.unanswered(ctx, report.lagError)
	}
	report.latency = time.Since(k.start)
	const comQuit = 1
	s.sequence = 0
	_ = s.write([]byte{comQuit}) // without it the server logs an unexpected end; an error here does not matter
	if err != nil {
		return nil, k.unanswered(ctx, err)
	}
	return report, nil
}

// mayServe reports whether a finding lets a target serve, perhaps for want of others.
func mayServe(err error) bool { return err == nil || errors.Is(err, healthcheck.ErrFallback) }

// Judge judges what a server has reported.
func (c MySQL) Judge(answer any) (healthcheck.Result, error) {
	report := answer.(mysqlReport)
	result := healthcheck.Result{
		Role: report.role, Offset: report.offset, Replicas: report.replicas, Cluster: report.cluster,
	}
	if l := report.lag; report.role == healthcheck.RoleReplica && l != nil && l.sources > 0 && !l.stopped {
		result.Lag, result.KnowsLag = l.lag, true
	}
	err := c.judge(report)
	if mayServe(err) {
		err = cmp.Or(report.query, err)
	}
	switch {
	case err == nil:
		result.Latency, result.Detail = report.latency, report.String()
	case !isReport(err):
		result = healthcheck.Result{}
	}
	return result, err
}

// Join returns c, which asks what other needs as well.
func (c MySQL) Join(other healthcheck.Checker) healthcheck.Checker {
	o := other.(MySQL)
	c.also = append(slices.Clip(c.also), o)
	return c
}

// anyOf reports whether a statement is true of c or of a check that it has joined.
func (c MySQL) anyOf(is func(MySQL) bool) bool { return is(c) || slices.ContainsFunc(c.also, is) }

// looksAtLag reports whether the check judges the lag of a server that has this role. The answer of a server with the
// wrong role would change nothing.
func (c MySQL) looksAtLag(r healthcheck.Role) bool {
	return c.MaxLag > 0 && r == healthcheck.RoleReplica && c.Role != healthcheck.RolePrimary
}

// A mysqlReport is what a server said of itself.
type mysqlReport struct {
	role     healthcheck.Role
	offset   uint64 // the number of its transactions by their GTIDs; 0 = not known
	replicas int    // primary: the number of connected replicas, as far as the server counts them
	cluster  string // see healthcheck.Result
	galera   *galeraNode
	group    *mysqlGroup
	lag      *mysqlLag // replica, if a MaxLag is set
	lagError error     // why the lag is not known
	query    error     // what is wrong with the answer to the operator's query
	latency  time.Duration
}

// A galeraNode is the state of a node by its status variables wsrep_...
type galeraNode struct {
	state     string // a number
	comment   string // the state in words
	component string // "Primary" if it belongs to the primary component
	ready     bool
	rejects   bool   // queries, by the operator's wish
	leaving   string // why Percona's node wants no new sessions: MAINTENANCE or SHUTDOWN; "" = it does
}

// The states of a Galera node in which it works.
const (
	galeraDonor  = "2" // or desynced by the operator
	galeraJoined = "3"
	galeraSynced = "4"
)

// A mysqlGroup is a member's view of its group replication.
type mysqlGroup struct {
	state              string // its own; "ONLINE" if all is well
	members, reachable int
}

// A mysqlLag is how far a replica is behind the slowest of its sources.
type mysqlLag struct {
	sources int
	lag     time.Duration
	stopped bool
	io, sql string // whether the parts of a replication that has stopped are running
}

// String describes a healthy server.
func (r mysqlReport) String() string {
	switch {
	case r.galera != nil:
		return "galera node, " + escaped(strings.ToLower(r.galera.comment))
	case r.group != nil:
		return fmt.Sprintf("%v of a group of %d", r.role, r.group.members)
	case r.role == healthcheck.RolePrimary && r.replicas == 1:
		return "primary with 1 replica"
	case r.role == healthcheck.RolePrimary && r.replicas > 0:
		return fmt.Sprintf("primary with %d replicas", r.replicas)
	case r.lag != nil:
		return fmt.Sprintf("replica with a lag of %v", r.lag.lag)
	}
	return r.role.String()
}

// judge returns what is wrong with a server that reported r: the role first, then everything else.
func (c MySQL) judge(r mysqlReport) error {
	if err := judgeRole(r.role, c.Role, c.Fallback); err != nil {
		return err
	}
	if r.galera != nil {
		if err := r.galera.judge(c.AllowDonor); err != nil {
			return err
		}
	}
	l := r.lag
	if !c.looksAtLag(r.role) {
		l = nil
	}
	switch g := r.group; {
	case g != nil && g.state != "ONLINE":
		return unhealthyf("group replication: the member is %s", escaped(g.state))
	case g != nil && 2*g.reachable <= g.members:
		return unhealthyf("group replication: no majority, %d of %d members are reachable", g.reachable, g.members)
	case c.looksAtLag(r.role) && r.lagError != nil:
		return r.lagError
	case l != nil && l.sources == 0 && g == nil && r.galera == nil:
		return laggingf("replica: it follows no primary, lag unknown")
	case l != nil && l.stopped:
		return laggingf("replica: replication is not running (io %s, sql %s), lag unknown", escaped(l.io), escaped(l.sql))
	case l != nil && l.lag > c.MaxLag:
		return laggingf("replica: lags by %v, at most %v allowed", l.lag, c.MaxLag)
	}
	return fallsBack(r.role, c.Role, c.Fallback)
}

// judge returns what is wrong with a node.
func (g galeraNode) judge(allowDonor bool) error {
	switch {
	case g.component != "Primary":
		return unhealthyf("galera: not in the primary component (%s)", escaped(g.component))
	case g.state == galeraDonor && !allowDonor:
		return laggingf("galera: the node is a donor or desynced")
	case g.state == galeraJoined:
		return laggingf("galera: the node has joined and is not yet synced")
	case g.state != galeraSynced && g.state != galeraDonor:
		return unhealthyf("galera: the node is not synced (%s)", escaped(g.comment))
	case !g.ready:
		return unhealthyf("galera: the node is not ready")
	case g.rejects: // SHOW is answered nevertheless
		return unhealthyf("galera: the node rejects queries")
	case g.leaving != "":
		return laggingf("galera: the node is in maintenance (%s)", escaped(g.leaving))
	}
	return nil
}

// The variables that a check asks for. SHOW leaves out those that the server does not have.
const (
	mysqlVariables = `SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'super_read_only', 'innodb_read_only',
	'wsrep_on', 'wsrep_provider', 'wsrep_reject_queries', 'pxc_maint_mode', 'group_replication_group_name',
	'gtid_executed', 'gtid_current_pos')`
	mysqlStatus = `SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_local_state', 'wsrep_local_state_comment',
	'wsrep_cluster_status', 'wsrep_cluster_state_uuid', 'wsrep_ready', 'Slaves_connected',
	'Rpl_semi_sync_source_clients', 'Rpl_semi_sync_master_clients')`
	mysqlMembers = `SELECT MEMBER_ID = @@server_uuid, MEMBER_STATE, MEMBER_ROLE
	FROM performance_schema.replication_group_members`
	mysqlOldMembers = `SELECT MEMBER_ID = @@server_uuid, MEMBER_STATE, ''
	FROM performance_schema.replication_group_members` // MySQL 5.7: the secondary ones are read only there, too
)

// ask asks for everything that the check looks at. It takes two round trips, and one more for each of MaxLag and a
// group replication.
func (c MySQL) ask(s *mysqlSession, version string) (r mysqlReport, err error) {
	variables, err := s.values(mysqlVariables)
	if err != nil {
		return mysqlReport{}, err
	}
	status, err := s.values(mysqlStatus)
	if err != nil {
		return mysqlReport{}, err
	}
	r.role = healthcheck.RolePrimary
	for _, name := range []string{"read_only", "super_read_only", "innodb_read_only"} {
		// MariaDB 12 has more words than ON.
		if v := variables[name]; v != "" && v != "OFF" && v != "0" {
			r.role = healthcheck.RoleReplica
		}
	}
	r.offset = gtidCount(variables["gtid_executed"]) + gtidCount(variables["gtid_current_pos"])
	for _, name := range []string{"slaves_connected", "rpl_semi_sync_source_clients", "rpl_semi_sync_master_clients"} {
		if n, err := strconv.ParseUint(status[name], 10, 31); err == nil {
			r.replicas = max(r.replicas, int(n))
		}
	}
	if variables["wsrep_on"] == "ON" && variables["wsrep_provider"] != "none" { // none: a server by itself
		r.lookAtGalera(variables, status)
	}
	if name := variables["group_replication_group_name"]; name != "" {
		if err := r.askGroup(s, name); err != nil {
			return mysqlReport{}, err
		}
	}
	if c.anyOf(func(c MySQL) bool { return c.looksAtLag(r.role) }) {
		r.lag, r.lagError = s.lag(strings.Contains(strings.ToLower(version), "mariadb"))
	}
	return r, nil
}

// lookAtGalera adds what a node says of itself to the report.
func (r *mysqlReport) lookAtGalera(variables, status map[string]string) {
	set := func(name, not string) string {
		if variables[name] == not {
			return ""
		}
		return variables[name]
	}
	r.galera = &galeraNode{
		state: status["wsrep_local_state"], comment: status["wsrep_local_state_comment"],
		component: status["wsrep_cluster_status"], ready: status["wsrep_ready"] == "ON",
		rejects: set("wsrep_reject_queries", "NONE") != "", leaving: set("pxc_maint_mode", "DISABLED"),
	}
	if id := status["wsrep_cluster_state_uuid"]; id != "" {
		r.cluster = "galera " + id
	}
}

// values returns the two columns of an answer as a map. The names are in lower case.
func (s *mysqlSession) values(query string) (map[string]string, error) {
	table, err := s.query(query)
	if err != nil {
		return nil, err
	}
	if len(table.columns) != 2 {
		return nil, unhealthyf("not a mysql server: nonsense in the answer to a query")
	}
	values := make(map[string]string)
	for _, row := range table.rows {
		values[strings.ToLower(string(row[0]))] = string(row[1])
	}
	return values, nil
}

// askGroup adds the member's view of its group to the report.
func (r *mysqlReport) askGroup(s *mysqlSession, name string) error {
	table, err := s.query(mysqlMembers)
	if errors.Is(err, mysqlServerError{1054}) { // ER_BAD_FIELD_ERROR
		table, err = s.query(mysqlOldMembers)
	}
	if err != nil {
		return err
	}
	if len(table.columns) != 3 {
		return unhealthyf("not a mysql server: nonsense in the answer to a query")
	}
	r.group = &mysqlGroup{state: "OFFLINE", members: len(table.rows)} // also of one that is in no group any more
	role, primaries := healthcheck.RoleReplica, 0
	for _, row := range table.rows {
		state, is := string(row[1]), string(row[2])
		if state != "UNREACHABLE" {
			r.group.reachable++
		}
		if is == "PRIMARY" {
			primaries++
		}
		if string(row[0]) != "1" {
			continue
		}
		r.group.state = state
		if is == "PRIMARY" || is == "" {
			role = r.role // a primary of the group is read only until it has applied what came before
		}
	}
	if primaries > 1 { // in multi-primary mode; in the other mode, two that take writes are an accident
		r.cluster = "group " + name
	}
	r.role = role
	return nil
}

// lag asks for the lag of a replica.
func (s *mysqlSession) lag(mariadb bool) (*mysqlLag, error) {
	query := "SHOW REPLICA STATUS" // MySQL 8.0.22; 8.4 has no other
	if mariadb {
		query = "SHOW ALL SLAVES STATUS" // of all connections, and not only of the one without a name
	}
	table, err := s.query(query)
	if errors.Is(err, mysqlServerError{1064}) { // ER_PARSE_ERROR
		table, err = s.query("SHOW SLAVE STATUS")
	}
	if err != nil {
		return nil, err
	}
	l := new(mysqlLag)
	for _, row := range table.rows {
		var seconds []byte
		var io, sql, channel string
		for i, name := range table.columns {
			switch strings.ToLower(name) {
			case "seconds_behind_source", "seconds_behind_master":
				seconds = row[i]
			case "replica_io_running", "slave_io_running":
				io = string(row[i])
			case "replica_sql_running", "slave_sql_running":
				sql = string(row[i])
			case "channel_name":
				channel = string(row[i])
			}
		}
		if strings.HasPrefix(channel, "group_replication_") { // the server has them for itself, without a lag
			continue
		}
		l.sources++
		n, err := strconv.ParseUint(string(seconds), 10, 31)
		if err != nil { // NULL
			l.stopped, l.io, l.sql = true, io, sql
		}
		l.lag = max(l.lag, time.Duration(n)*time.Second)
	}
	return l, nil
}

// gtidCount returns how many transactions a set of GTIDs has. For MariaDB ("0-1-77,1-1-5") that is the sum of the
// sequence numbers, for MySQL ("UUID:1-77:80,UUID:1-5") that of the lengths of the intervals. A server cuts a long
// text: then the count is lower.
func gtidCount(set string) (n uint64) {
	number := func(text string) uint64 {
		n, _ := strconv.ParseUint(strings.TrimSpace(text), 10, 63)
		return n
	}
	for one := range strings.SplitSeq(set, ",") {
		server, intervals, mysql := strings.Cut(one, ":")
		if !mysql {
			n += number(server[strings.LastIndex(server, "-")+1:])
			continue
		}
		for interval := range strings.SplitSeq(intervals, ":") {
			from, to, several := strings.Cut(interval, "-")
			first, last := number(from), number(to)
			switch {
			case first == 0: // no number: a tag, which names what follows
			case !several:
				n++
			case last >= first:
				n += last - first + 1
			}
		}
	}
	return n
}

// returnsRow runs the query of the operator.
func (s *mysqlSession) returnsRow(query string) error {
	table, err := s.query(query)
	if err == nil && len(table.columns) > 0 && len(table.rows) == 0 {
		return unhealthyf("the query returned no row")
	}
	return err
}
