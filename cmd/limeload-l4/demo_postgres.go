package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
)

const (
	// demoPostgresAddress is where the demo listens. If it is taken, another port is used.
	demoPostgresAddress = "127.0.0.1:7432"
	// demoPhase is how long clients commit before the failover, and after it.
	demoPhase = 8 * time.Second
	// demoPatience bounds the steps of the demo that should take a few seconds at most.
	demoPatience = time.Minute
)

func demoPostgresCommand() *cli.Command {
	var phase time.Duration
	return &cli.Command{
		Name:  "postgres",
		Usage: "show a failover of Postgres: a primary and a standby in a temporary folder, and clients that count",
		Description: `It needs a PostgreSQL server on this machine, and leaves its databases alone. As root, it runs
its own as the user postgres or nobody.`,
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "phase", Value: demoPhase, Destination: &phase,
				Usage: "how long clients commit before the failover, and after it, a `TIME`"},
		},
		HideHelpCommand: true,
		OnUsageError:    asUsageError,
		Action: noArguments(func(c *cli.Context) error {
			if phase <= 0 {
				return &usageError{fmt.Errorf("--phase %s: needs a time above 0", phase)}
			}
			return demoAction(func(ctx context.Context, out io.Writer) error {
				return demoPostgres(ctx, out, phase)
			})(c)
		}),
	}
}

const demoPostgresConfig = `[listener.postgres]
address = %q
pool    = "postgres"
profile = "postgres"

[pool.postgres]
hold     = { timeout = "20s" } # clients wait so long for a primary
backends = [{ name = "pg1", address = %q }, { name = "pg2", address = %q }]

[pool.postgres.health]
type          = "postgres"
role          = "primary"
user          = %q
database      = %q
interval      = "250ms"
fast_interval = "100ms"
timeout       = "250ms"
rise          = 1
fall          = 2
`

const demoPostgresWelcome = `limeload-l4 listens at %[1]s and sends clients to the primary.
%[2]d clients commit transactions through it. In another terminal, try:

  %[3]s top %[4]s
  %[3]s backends %[4]s
  %[3]s explain 127.0.0.1 %[4]s

%[5]s

After %[6]s the primary is killed. Ctrl-C ends the demo at any time.

`

// demoPostgres runs until the failover is over, or until ctx ends. Everything that it started is gone when it returns.
func demoPostgres(ctx context.Context, out io.Writer, phase time.Duration) (err error) {
	programs, err := findPostgres()
	if err != nil {
		return err
	}
	s, err := newDemoStage(out)
	if err != nil {
		return err
	}
	defer s.close()
	primary, err := newDemoPostgres(s.dir, "pg1", programs)
	if err != nil {
		return err
	}
	standby, err := newDemoPostgres(s.dir, "pg2", programs)
	if err != nil {
		return err
	}
	defer primary.stop()
	defer standby.stop()
	s.say.line("a primary and a standby are made in %s, by the programs in %s", s.dir, programs)
	if err := startPair(ctx, primary, standby); err != nil {
		if ctx.Err() != nil {
			return nil // it was interrupted
		}
		return err
	}
	if err := s.open(ctx, demoPostgresAddress, func(front string) string {
		return fmt.Sprintf(demoPostgresConfig, front, primary.address, standby.address, demoUser, demoDatabase)
	}); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n"+demoPostgresWelcome, s.front, demoWriterCount, programName(), s.flag(), s.page(), phase)

	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	writing, enough := context.WithCancel(ctx)
	defer enough()
	var serving, asking sync.WaitGroup
	serving.Go(func() { s.daemon.Run(running, nil) })
	writers := newDemoWriters(s.front, s.say)
	asking.Go(func() {
		if s.ready(writing) {
			writers.run(writing)
		}
	})
	asking.Go(func() { s.paint(writing, writers.line) })
	err = failOver(writing, s.say, primary, standby, writers, phase)
	enough()
	asking.Wait()
	missing := writers.missing(context.WithoutCancel(ctx), standby, primary)
	stop()
	serving.Wait()
	s.say.end()
	fmt.Fprint(out, "\n"+writers.summary(missing))
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// startPair starts a primary and its standby, which follows it when startPair returns.
func startPair(ctx context.Context, primary, standby *demoPostgresServer) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	if err := primary.initialize(ctx); err != nil {
		return err
	}
	if err := primary.start(ctx); err != nil {
		return err
	}
	if _, err := primary.query(ctx, demoTable); err != nil {
		return fmt.Errorf("make a table: %w", err)
	}
	if err := standby.copyOf(ctx, primary); err != nil {
		return err
	}
	if err := standby.start(ctx); err != nil {
		return err
	}
	// from now on a commit waits for the standby, so that none is lost with the primary
	for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"} {
		if _, err := primary.query(ctx, sql); err != nil {
			return fmt.Errorf("make the replication synchronous: %w", err)
		}
	}
	return waitUntil(ctx, "the standby follows the primary", func() bool {
		n, err := primary.query(ctx, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
		return err == nil && n == "1"
	})
}

// failOver kills the primary and promotes the standby, and returns when clients have committed again for a while. It
// returns nil if ctx ends.
func failOver(
	ctx context.Context, say *narrator, primary, standby *demoPostgresServer, w *demoWriters, phase time.Duration,
) error {
	bounded, cancel := context.WithTimeout(ctx, phase+demoPatience)
	defer cancel()
	err := waitUntil(bounded, "clients commit", func() bool { return w.committed() > 0 })
	if err != nil || !pause(ctx, phase) {
		return err
	}
	say.line("pg1, the primary, is killed: kill -9")
	primary.kill()
	killed := time.Now()
	bounded, cancel = context.WithTimeout(ctx, demoPatience)
	defer cancel()
	if _, err := standby.query(bounded, "SELECT pg_promote()"); err != nil {
		return fmt.Errorf("promote the standby: %w", err)
	}
	say.line("pg2 is promoted: SELECT pg_promote() took %s", duration(time.Since(killed)))
	before := w.committed()
	if err := waitUntil(bounded, "clients commit again", func() bool { return w.committed() > before }); err != nil {
		return err
	}
	say.line("clients commit again; the longest time without a commit was %s", duration(w.gap()))
	pause(ctx, phase)
	return nil
}

// pause waits, and reports whether ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// waitUntil waits until something holds.
func waitUntil(ctx context.Context, what string, holds func() bool) error {
	for !holds() {
		if !pause(ctx, 20*time.Millisecond) {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("wait until %s: not so after %s", what, demoPatience)
			}
			return ctx.Err()
		}
	}
	return nil
}

// folderOf makes a folder for a server, which its user may enter.
func folderOf(dir, name string, owner *demoOwner) (string, error) {
	path := filepath.Join(dir, name)
	if err := os.Mkdir(path, 0o700); err != nil {
		return "", err
	}
	if owner == nil {
		return path, nil
	}
	if err := os.Chmod(dir, 0o711); err != nil { // to pass through it
		return "", err
	}
	return path, os.Chown(path, owner.uid, owner.gid)
}
