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
	cfg, err := daemon.Load(ctx, file)
	if err != nil {
		return err
	}
	log, writer := newLog(cfg.Log, stderr)
	go writer.run()
	defer writer.Close()
	d, err := daemon.New(daemon.Options{Config: cfg, Version: version(), Log: log, LogDropped: writer.dropped.Load})
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	signal.Ignore(syscall.SIGPIPE) // a reader of the log may leave, and sessions go on
	defer signal.Reset(syscall.SIGPIPE)

	d.Run(ctx, signals)
	return nil
}
