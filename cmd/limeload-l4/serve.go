package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/daemon"
)

// serve runs the balancer until a signal ends it; see package daemon for what the signals do. It starts nothing before
// everything has been done that can fail.
func serve(ctx context.Context, file string, stderr io.Writer) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR2) // they wait until it serves, instead of ending it
	defer signal.Stop(signals)
	old, err := daemon.MeetOldProcess(version())
	if err != nil {
		return err
	}
	if err := serveFrom(ctx, old, file, signals, stderr); err != nil {
		old.Refuse(err)
		return err
	}
	return nil
}

// serveFrom is serve, for a process that takes over from old; nil for a start.
func serveFrom(
	ctx context.Context, old *daemon.OldProcess, file string, signals chan os.Signal, stderr io.Writer,
) error {
	cfg, err := daemon.Load(ctx, file)
	if err != nil {
		return err
	}
	log, writer := newLog(cfg.Log, stderr)
	go writer.run()
	defer writer.Close()
	program, err := daemon.ThisProgram(os.Args)
	if err != nil { // such as without /proc: it can serve, and be restarted
		log.Warn().AnErr("err", err).Str("event", "upgrade_impossible").
			Msg("no upgrade is possible: where this program is cannot be found out")
	}
	d, err := daemon.New(daemon.Options{
		Config: cfg, Version: version(), Log: log, LogDropped: writer.dropped.Load, Program: program, From: old,
	})
	if err != nil {
		return err
	}
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGPIPE) // a reader of the log may leave, and sessions go on
	defer signal.Reset(syscall.SIGPIPE)

	return d.Run(ctx, signals)
}
