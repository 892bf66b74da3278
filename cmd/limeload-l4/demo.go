package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/daemon"
	"github.com/limeload/limeload-l4/conf"
)

// demoAddress is where the demo listens. If it is taken, another port is used.
const demoAddress = "127.0.0.1:7080"

// demoOutage is how long a backend of the demo is away after a failure on request.
const demoOutage = 10 * time.Second

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "balance over three small backends inside this process, to see it work",
		Action: func(c *cli.Context) error {
			ctx, stop := signal.NotifyContext(c.Context, syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return demo(ctx, c.App.Writer)
		},
	}
}

// demo runs until ctx ends. It writes one line to out for each answer and each change of a verdict.
func demo(ctx context.Context, out io.Writer) error {
	say := &narrator{out: out}
	backends := make([]*demoBackend, 3)
	var addresses []any
	for i := range backends {
		b, err := newDemoBackend(fmt.Sprintf("b%d", i+1), say)
		if err != nil {
			return err
		}
		backends[i] = b
		addresses = append(addresses, b.name, b.address)
	}
	front := demoAddress
	d, err := newDemo(front, addresses, say)
	if errors.Is(err, syscall.EADDRINUSE) {
		if front, err = freeAddress(); err != nil {
			return err
		}
		d, err = newDemo(front, addresses, say)
	}
	if err != nil {
		return err
	}
	var serving sync.WaitGroup
	for _, b := range backends {
		serving.Go(func() { b.run(ctx) })
	}
	fmt.Fprintf(out, demoWelcome, front, front, front, demoOutage, front)
	err = d.Run(ctx, nil)
	serving.Wait()
	fmt.Fprintln(out, "\nThe demo has ended.")
	return err
}

const demoConfig = `
[log]
access = false
[admin]
address = ""
[listener.demo]
address = %q
pool = "demo"
[pool.demo]
algorithm = "round_robin"
backends = [{ name = %q, address = %q }, { name = %q, address = %q }, { name = %q, address = %q }]
[pool.demo.health]
type = "tcp"
interval = "1s"
fast_interval = "250ms"
timeout = "500ms"
`

const demoWelcome = `limeload-l4 balances http://%s over three small backends. In another terminal, try:

  curl http://%s/          which backend answers? Ask again.
  curl http://%s/fail      the backend that answers goes away for %s. Go on asking: no request fails.
  for i in $(seq 9); do curl -s http://%s/; done

Ctrl-C ends it.

`

// newDemo makes the demo's balancer at the address front. backends has names and addresses in turn.
func newDemo(front string, backends []any, say *narrator) (*daemon.Daemon, error) {
	cfg, err := conf.Parse("demo", fmt.Appendf(nil, demoConfig, append([]any{front}, backends...)...))
	if err != nil {
		return nil, err
	}
	return daemon.New(daemon.Options{Config: cfg, Version: version(), Log: zerolog.New(say).Level(zerolog.InfoLevel)})
}

// freeAddress returns an address of this machine with a free port.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
