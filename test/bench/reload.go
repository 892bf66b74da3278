package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// A reloader is a load generator meanwhile a balancer reloads. It is for one goroutine. The steps are those of client.
type reloader struct {
	loader
	after  time.Duration // the reload begins so long after the work
	reload func(ctx context.Context) error
}

// run lets the load generator do its job, and reloads meanwhile. The result says how long that took.
func (r *reloader) run(ctx context.Context, within time.Duration) (loadResult, error) {
	type outcome struct {
		result loadResult
		err    error
		at     time.Time
	}
	worked := make(chan outcome, 1)
	go func() { // it ends within the given time
		result, err := r.loader.run(ctx, within)
		worked <- outcome{result, err, time.Now()}
	}()
	err := pause(ctx, r.after)
	begun := time.Now()
	if err == nil {
		err = r.reload(ctx)
	}
	done := time.Now()
	w := <-worked
	if err == nil && w.err == nil && done.After(w.at) {
		err = fmt.Errorf("the reload took %s, which is longer than the work: ask for a longer -duration",
			done.Sub(begun).Round(time.Millisecond))
	}
	w.result.Reload = done.Sub(begun)
	return w.result, errors.Join(err, w.err)
}

// reloadPoll is the pause between two looks whether the balancer has its new configuration.
const reloadPoll = 20 * time.Millisecond

// reloading returns what makes a balancer reload, as its own documentation says, and waits until a client is served by
// a listener that only the new configuration has. There is also one backend less.
func (b *bench) reloading(c contender, proc *process, file string, s setup) (func(context.Context) error, error) {
	extra, err := b.ports.find()
	if err != nil {
		return nil, err
	}
	s.extra, s.backends = extra, s.backends[:len(s.backends)-1]
	text := c.config(b.programs[c.name], s)
	return func(ctx context.Context) error {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
		if err := proc.cmd.Process.Signal(c.reload); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("reload %s: %w", c.name, err)
		}
		ctx, cancel := context.WithTimeout(ctx, readyTimeout)
		defer cancel()
		for {
			err := ask(ctx, extra)
			if err == nil {
				return nil
			}
			if err := proc.running(); err != nil {
				return err
			}
			if pauseErr := pause(ctx, reloadPoll); pauseErr != nil {
				err = errors.Join(pauseErr, err)
				return proc.failure(fmt.Errorf("has not reloaded within %s: %w", readyTimeout, err))
			}
		}
	}, nil
}

// startEtcd runs an etcd of one member for a fleet.
func startEtcd(ctx context.Context, etcd program, ports *portFinder, logs string) (*server, error) {
	clients, err := ports.find()
	if err != nil {
		return nil, err
	}
	peers, err := ports.find()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(logs, "etcd-")
	if err != nil {
		return nil, err
	}
	s := &server{}
	s.addrs = append(s.addrs, clients)
	client, peer := "http://"+clients.String(), "http://"+peers.String()
	if s.proc, err = start("etcd", exec.Command(etcd.path, "--name", "bench", "--data-dir", dir,
		"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "bench="+peer), logs); err != nil {
		return nil, err
	}
	if err := waitEtcd(ctx, s.proc, client+"/health"); err != nil {
		return nil, errors.Join(err, s.proc.stop())
	}
	return s, nil
}
