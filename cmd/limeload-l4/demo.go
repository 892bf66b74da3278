package main

import (
	"context"
	"fmt"
	"io"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
)

// demoAddress is where the demo listens. If it is taken, another port is used.
const demoAddress = "127.0.0.1:7080"

// demoOutage is how long a backend of the demo is away after a failure on request.
const demoOutage = 10 * time.Second

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "balance over three small backends inside this process, to see it work",
		Description: `A client inside this process sends requests through the balancer, and counts them. "demo postgres"
shows a failover of a Postgres server.`,
		Action:      demoAction(demo),
		Subcommands: []*cli.Command{demoPostgresCommand()},
	}
}

// demoAction makes the action of a demo, which ends in order at a signal.
func demoAction(run func(ctx context.Context, out io.Writer) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		// the terminal may be closed, too: a demo leaves nothing behind
		ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		return run(ctx, c.App.Writer)
	}
}

const demoConfig = `[listener.demo]
address = %q
pool    = "demo"

[pool.demo]
algorithm = "round_robin"
backends  = [
  { name = %q, address = %q },
  { name = %q, address = %q },
  { name = %q, address = %q },
]
health    = { type = "tcp", interval = "1s", fast_interval = "250ms", timeout = "500ms" }
`

const demoWelcome = `limeload-l4 balances http://%[1]s over three small backends.
A client in this process sends it %[2]d requests a second.
In another terminal, try:

  curl http://%[1]s/      which backend answers? Ask again.
  curl http://%[1]s/fail  it goes away for %[3]s, and no request fails

  %[4]s top %[5]s
  %[4]s status %[5]s
  %[4]s explain 127.0.0.1 %[5]s
  %[4]s backends drain demo b1 %[5]s
  %[4]s backends set demo b1 --mode ready %[5]s

%[6]s

Ctrl-C ends it.

`

// demo runs until ctx ends. It writes a line to out for each change of a verdict and each answer to somebody else, and
// how the client fares.
func demo(ctx context.Context, out io.Writer) error {
	s, err := newDemoStage(out)
	if err != nil {
		return err
	}
	defer s.close()
	backends := make([]*demoBackend, 3)
	var addresses []any
	for i := range backends {
		if backends[i], err = newDemoBackend(fmt.Sprintf("b%d", i+1), s.say); err != nil {
			return err
		}
		defer backends[i].listener.Close() // in case that it never runs
		addresses = append(addresses, backends[i].name, backends[i].address)
	}
	if err := s.open(ctx, demoAddress, func(front string) string {
		return fmt.Sprintf(demoConfig, append([]any{front}, addresses...)...)
	}); err != nil {
		return err
	}
	fmt.Fprintf(out, demoWelcome, s.front, demoRate, demoOutage, programName(), s.flag(), s.page())

	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var serving, asking sync.WaitGroup
	for _, b := range backends {
		serving.Go(func() { b.run(running) })
	}
	serving.Go(func() { s.daemon.Run(running, nil) })
	client := newDemoClient("http://"+s.front+"/", s.say)
	asking.Go(func() {
		if s.ready(ctx) {
			client.run(ctx)
		}
	})
	asking.Go(func() { s.paint(ctx, client.line) })
	<-ctx.Done()
	asking.Wait() // the client ends before the balancer, so that its last request does not fail
	stop()
	serving.Wait()
	s.say.end()
	fmt.Fprint(out, "\n"+client.summary())
	return nil
}
