package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/limeload/limeload-l4/healthcheck"
)

// Postgres checks that a PostgreSQL server (10 or newer) accepts a login, answers a query and has the wanted role. It
// is a plain value; its zero value lacks a User.
//
// It reads no environment variable and no file. The user needs no rights except to log in. The password is sent in the
// way that the server asks for, even in clear text: use TLS, so that only the holder of the certificate can read it.
//
// A server without a free connection slot is unhealthy, since a client could not log in either.
type Postgres struct {
	Port     uint16 // instead of the target's; 0 = the target's
	User     string
	Database string           // "" = the one with the name of the user
	Password string           // "" = none; then a server that wants one refuses the credentials
	Role     healthcheck.Role // wanted; RoleUnknown = any
	Fallback bool             // with Role RoleReplica: a primary is ErrFallback, and not ErrWrongRole

	// MaxLag is how much older a replica's data may be than its primary's; 0 = any lag will do.
	//
	// A replica that streams and has replayed all that it received has no lag, however long ago the last transaction
	// was. Otherwise its lag is the age of the last transaction that it has replayed, by the clocks of both machines.
	// This has limits:
	//   - A replica fed from an archive seems to lag behind an idle primary.
	//   - After a long idle time, a check between the arrival of a transaction and its replay sees the whole idle time.
	//     The transaction is replayed within milliseconds, so a Policy.Fall above 1 is enough to ignore this.
	//   - A replica whose primary has vanished has no lag until wal_receiver_timeout (60 s by default), since only
	//     members of pg_monitor can see when the last message came.
	MaxLag time.Duration

	// TLS is required if it is not nil. Without a ServerName the certificate must be for the target's address.
	TLS *tls.Config
}

// postgresQuery asks for everything in one round trip. All users can see whether there is a WAL receiver; only members
// of pg_monitor can see more of it than its process id.
//
// A receiver that has just started claims to have received up to the start of a WAL segment, which is less than what
// was replayed. Therefore the query compares by <= and not by =.
const postgresQuery = `SELECT r.replica,
	CASE WHEN NOT r.replica THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
	CASE WHEN NOT r.replica THEN pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') END,
	CASE WHEN NOT r.replica THEN (SELECT count(*) FROM pg_stat_replication) END,
	CASE WHEN NOT r.replica THEN NULL
		WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
		ELSE ceil(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000) END::bigint
FROM (SELECT pg_is_in_recovery() AS replica) r`

// Check logs in to t, asks for its role and lag, and logs out. Its errors wrap their cause; if the cause is on this
// machine, they wrap ErrInconclusive as well.
func (c Postgres) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	return check(ctx, c, t)
}

// Ask does all of Check that needs the network.
func (c Postgres) Ask(ctx context.Context, t healthcheck.Target) (any, error) {
	k, err := openConn(ctx, t, c.Port, nil, "")
	if err != nil {
		return nil, err
	}
	defer k.finish(ctx)
	if c.TLS != nil {
		if err := c.secure(ctx, k, t); err != nil {
			return nil, err
		}
	}
	s, err := c.login(k)
	if err != nil {
		return nil, k.unanswered(ctx, err)
	}
	report, err := s.ask()
	if err != nil {
		return nil, k.unanswered(ctx, err)
	}
	report.latency = time.Since(k.start)
	_ = s.send(&pgproto3.Terminate{}) // without it the server logs an unexpected end; an error here does not matter
	return report, nil
}

// Judge judges what a server has reported.
func (c Postgres) Judge(answer any) (healthcheck.Result, error) {
	report := answer.(postgresReport)
	result := healthcheck.Result{
		Role: report.role, Epoch: report.timeline, Offset: report.offset, Replicas: report.replicas,
	}
	if report.role == healthcheck.RoleReplica && report.lag >= 0 {
		result.Lag, result.KnowsLag = report.lag, true
	}
	if err := c.judge(report); err != nil {
		return result, err
	}
	result.Latency, result.Detail = report.latency, report.String()
	return result, nil
}

// Join returns c, which always asks everything.
func (c Postgres) Join(healthcheck.Checker) healthcheck.Checker { return c }

// A postgresReport is what a server said of itself.
type postgresReport struct {
	role     healthcheck.Role
	timeline uint64        // primary
	offset   uint64        // primary: the position of the next WAL record
	replicas int           // primary: the number of replicas that stream, and of base backups
	lag      time.Duration // replica; -1 = not known
	latency  time.Duration // of the answer
}

// String describes a healthy server.
func (r postgresReport) String() string {
	switch {
	case r.role == healthcheck.RolePrimary && r.replicas == 1:
		return fmt.Sprintf("primary of timeline %d with 1 replica", r.timeline)
	case r.role == healthcheck.RolePrimary:
		return fmt.Sprintf("primary of timeline %d with %d replicas", r.timeline, r.replicas)
	case r.lag < 0:
		return "replica of unknown lag"
	}
	return fmt.Sprintf("replica with a lag of %v", r.lag)
}

// judge returns what is wrong with a server that reported r.
func (c Postgres) judge(r postgresReport) error {
	if err := judgeRole(r.role, c.Role, c.Fallback); err != nil {
		return err
	}
	switch {
	case c.MaxLag > 0 && r.role == healthcheck.RoleReplica && r.lag < 0:
		return laggingf("replica: no transaction replayed since its start, lag unknown")
	case c.MaxLag > 0 && r.role == healthcheck.RoleReplica && r.lag > c.MaxLag:
		return laggingf("replica: lags by %v, at most %v allowed", r.lag, c.MaxLag)
	}
	return fallsBack(r.role, c.Role, c.Fallback)
}

// ask sends the query and reads the whole answer.
func (s *postgresSession) ask() (report postgresReport, err error) {
	if err := s.send(&pgproto3.Query{String: postgresQuery}); err != nil {
		return postgresReport{}, err
	}
	rows := 0
	for {
		message, err := s.receive()
		if err != nil {
			return postgresReport{}, err
		}
		switch m := message.(type) {
		case *pgproto3.RowDescription, *pgproto3.CommandComplete:
		case *pgproto3.DataRow:
			if report, err = parsePostgresRow(m.Values); err != nil {
				return postgresReport{}, err
			}
			rows++
		case *pgproto3.ReadyForQuery:
			if rows != 1 {
				return postgresReport{}, unhealthyf("not a postgresql server: answered %d rows instead of 1", rows)
			}
			return report, nil
		default:
			return postgresReport{}, unhealthyf("not a postgresql server: unexpected answer to a query")
		}
	}
}

// parsePostgresRow parses the only row of postgresQuery. A NULL is nil.
func parsePostgresRow(values [][]byte) (postgresReport, error) {
	nonsense := unhealthyf("not a postgresql server: nonsense in the answer to a query")
	if len(values) != 5 {
		return postgresReport{}, nonsense
	}
	if string(values[0]) == "t" {
		if values[4] == nil {
			return postgresReport{role: healthcheck.RoleReplica, lag: -1}, nil
		}
		ms, err := strconv.ParseInt(string(values[4]), 10, 64)
		if err != nil {
			return postgresReport{}, nonsense
		}
		const century = 100 * 365 * 24 * 3600 * 1000 // a longer time says no more, and may overflow a Duration
		ms = max(0, min(ms, century))                // it is below 0 if the primary's clock is ahead
		return postgresReport{role: healthcheck.RoleReplica, lag: time.Duration(ms) * time.Millisecond}, nil
	}
	timeline, err1 := strconv.ParseUint(string(values[1]), 16, 32)
	offset, err2 := strconv.ParseUint(string(values[2]), 10, 64)
	replicas, err3 := strconv.ParseUint(string(values[3]), 10, 31)
	if string(values[0]) != "f" || err1 != nil || err2 != nil || err3 != nil {
		return postgresReport{}, nonsense
	}
	return postgresReport{
		role: healthcheck.RolePrimary, timeline: timeline, offset: offset, replicas: int(replicas),
	}, nil
}
