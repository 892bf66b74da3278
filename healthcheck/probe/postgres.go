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

// Postgres checks that a PostgreSQL server (10 or newer) takes a login, answers a query and has the wanted role. It is a
// plain value; its zero value lacks a User.
//
// It reads no environment variable and no file. Any role that may log in will do, without further rights. Passwords are
// sent the way the server asks for, in clear if it wants that: with TLS only the holder of the certificate gets it.
//
// A server without a free connection slot is unhealthy, since a client would get the same answer.
type Postgres struct {
	Port     uint16 // instead of the target's; 0 = the target's
	User     string
	Database string           // "" = the one that is called as the user
	Password string           // "" = none, and a server that wants one is unhealthy
	Role     healthcheck.Role // wanted; RoleUnknown = any

	// MaxLag is by how much a replica's data may be older than its primary's; 0 = not looked at.
	//
	// A replica that streams and has replayed what it received has no lag, however long ago the last transaction was.
	// Otherwise its lag is the age of the last transaction replayed, by both machines' clocks. This has limits:
	//   - A replica fed from an archive seems to lag behind an idle primary.
	//   - After a long idle time, a check between the arrival of a transaction and its replay sees the whole idle time.
	//     That is a matter of milliseconds, and what more than one failure in Policy.Fall is for.
	//   - One whose primary is gone without a word has no lag until wal_receiver_timeout (60 s unless configured), since
	//     when a message came last is for members of pg_monitor only.
	MaxLag time.Duration

	// TLS is asked for when not nil, and then required. Without a ServerName the certificate has to be for the target's
	// address.
	TLS *tls.Config
}

// postgresQuery asks in one round trip for everything. Whether there is a WAL receiver is seen by everybody, although
// only members of pg_monitor see more of it than its process id.
//
// A receiver that was just started claims to have received from the start of a WAL segment, which is less than what was
// replayed: hence <= and not =.
const postgresQuery = `SELECT r.replica,
	CASE WHEN NOT r.replica THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
	CASE WHEN NOT r.replica THEN pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') END,
	CASE WHEN NOT r.replica THEN (SELECT count(*) FROM pg_stat_replication) END,
	CASE WHEN NOT r.replica THEN NULL
		WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
		ELSE ceil(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000) END::bigint
FROM (SELECT pg_is_in_recovery() AS replica) r`

// Check logs in to t, asks for its role and lag, and logs out.
func (c Postgres) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	k, err := openTalk(ctx, t, c.Port, nil, "")
	if err != nil {
		return healthcheck.Result{}, err
	}
	defer k.part(ctx)
	if c.TLS != nil {
		if err := c.secure(ctx, k, t); err != nil {
			return healthcheck.Result{}, err
		}
	}
	s, err := c.login(k)
	if err != nil {
		return healthcheck.Result{}, k.unanswered(ctx, err)
	}
	report, err := s.ask()
	if err != nil {
		return healthcheck.Result{}, k.unanswered(ctx, err)
	}
	latency := time.Since(k.start)
	_ = s.send(&pgproto3.Terminate{}) // or the server logs an unexpected end; what goes wrong here is not its health
	result := healthcheck.Result{Role: report.role, Epoch: report.timeline, Offset: report.offset, Replicas: report.replicas}
	if err := c.judge(report); err != nil {
		return result, err
	}
	result.Latency, result.Detail = latency, report.String()
	return result, nil
}

// A postgresReport is what a server said of itself.
type postgresReport struct {
	role     healthcheck.Role
	timeline uint64        // of a primary
	offset   uint64        // of a primary, where the next WAL record goes
	replicas int           // of a primary, those that stream, and base backups
	lag      time.Duration // of a replica; -1 = not known
}

// String returns what a person may want to read of a healthy server.
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

// judge says what is wrong with a server that reported so.
func (c Postgres) judge(r postgresReport) error {
	switch {
	case c.Role != healthcheck.RoleUnknown && r.role != c.Role:
		return wrongRolef("is a %v, wanted a %v", r.role, c.Role)
	case c.MaxLag > 0 && r.role == healthcheck.RoleReplica && r.lag < 0:
		return laggingf("replica: no transaction replayed since its start, lag unknown")
	case c.MaxLag > 0 && r.role == healthcheck.RoleReplica && r.lag > c.MaxLag:
		return laggingf("replica: lags by %v, at most %v allowed", r.lag, c.MaxLag)
	}
	return nil
}

// ask sends the query and reads its answer to the end.
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

// parsePostgresRow reads the one row of postgresQuery, in which NULL is nil.
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
		const century = 100 * 365 * 24 * 3600 * 1000 // as bad as more, and fits into a Duration
		ms = max(0, min(ms, century))                // below 0 when the primary's clock is ahead
		return postgresReport{role: healthcheck.RoleReplica, lag: time.Duration(ms) * time.Millisecond}, nil
	}
	timeline, err1 := strconv.ParseUint(string(values[1]), 16, 32)
	offset, err2 := strconv.ParseUint(string(values[2]), 10, 64)
	replicas, err3 := strconv.ParseUint(string(values[3]), 10, 31)
	if string(values[0]) != "f" || err1 != nil || err2 != nil || err3 != nil {
		return postgresReport{}, nonsense
	}
	return postgresReport{role: healthcheck.RolePrimary, timeline: timeline, offset: offset, replicas: int(replicas)}, nil
}
