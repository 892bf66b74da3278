// Bench measures limeload-l4 beside HAProxy, nginx stream, dnsdist and no balancer at all
// (make bench, or go run ./test/bench).
//
// Every contender does the same work for the same client and the same backends on the same CPUs. In each round they run
// one after the other, in changing order, each measurement in a fresh process that is warmed up first. The client and
// the backends are two more processes, this program under -role, each one loop; only the balancers have several. For
// name service they are dnsperf and NSD, and for Postgres pgbench and a PostgreSQL server. Nothing is pinned and
// nothing is logged. Figures are medians over the rounds, and ratios are taken within a round, since a machine drifts
// by more than the differences that matter. The client reports when it is ready and then gets the command to start.
// Before and after, no work is pending, so the CPU time in between belongs to the counted work only.
//
// The client of TLS uses crypto/tls. It costs about as much as a balancer, so in handshakes it has a thread for each
// CPU; the CPU time for each handshake says more than their rate. Its hello is the same for everyone and the report
// says what each contender negotiated. A handshake counts once a request on its connection is answered, and includes
// the close. Certificates are made for each run. Backends always get plain TCP. The client that floods has the lowest
// priority, since it stands for another machine: it gets what CPU time the others leave.
//
// The bars that limeload-l4 is held against are in bars.go; -only bars runs all that they need. -only growth measures
// how the cost of work grows with sessions, backends, loops and sizes, and -only feature what each feature costs.
// Reports of the same programs on the same machine can be put together: with -json, scenarios that are not measured
// now stay as they were. `go run ./test/bench plot` draws the report, and writes its tables into docs/performance.md.
//
// Scenarios about limits run only if -only names them, best with -duration 10s (rates) and 20s (flood). A flood comes
// from addresses of its own and at the lowest priority. What it does to another client of the same listener is compared
// with the same client alone, in the same round. The CPU time of a refused connect is the balancer's, less what it uses
// for that client alone. HAProxy refuses by a stick table, nginx by limit_conn and dnsdist by MaxQPSIPRule, each set to
// what is closest to limeload-l4's limit; limitation.go says where they differ. Rates are offered twice as much as they
// allow. Bandwidths are measured where the bytes arrive, in parts of 10 ms, and the largest tenth of a second is that
// of any 10 parts in a row.
//
// The package is larger than others: most of it is contenders' configurations and load generators, which share one
// protocol and nothing with the rest of the repository. What draws the report is a package of its own, chart.
//
// It is a program for Linux, run by hand; nothing imports it, and it imports
// nothing of limeload-l4: the balancers are black boxes to it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 2 && args[0] == "-role" {
		if err := runRole(args[1], stdin, stdout); err != nil {
			fmt.Fprintln(stderr, err) // into the log that the bench quotes under our role's name
			return exitFailed
		}
		return exitDone
	}
	if len(args) > 0 && args[0] == "plot" {
		return runPlot(args[1:], stdout, stderr)
	}
	o, err := parseOptions(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		return exitUsage
	}
	if err := measureAll(ctx, o, stdout, stderr); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitFailed
	}
	return exitDone
}

func runPlot(args []string, stdout, stderr io.Writer) int {
	p, err := parsePlot(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		return exitUsage
	}
	if err := p.run(stdout); err != nil {
		fmt.Fprintf(stderr, "bench plot: %v\n", err)
		return exitFailed
	}
	return exitDone
}

// measureAll runs the bench and writes its reports.
func measureAll(ctx context.Context, o options, stdout, stderr io.Writer) error {
	b, err := newBench(ctx, o, stderr)
	if err != nil {
		return err
	}
	started := time.Now()
	var earlier *report
	if o.jsonFile != "" { // before the work: it may be of no use
		if earlier, err = earlierReport(o.jsonFile, newReport(b, started, nil), stderr); err != nil {
			return errors.Join(err, b.close())
		}
	}
	all, err := b.run(ctx)
	r := newReport(b, started, all)
	if err := errors.Join(err, b.close()); err != nil {
		return err
	}
	if earlier != nil {
		r = r.merge(*earlier)
	}
	if err := r.writeTables(stdout); err != nil {
		return err
	}
	if o.jsonFile != "" {
		if err := r.writeJSON(o.jsonFile); err != nil {
			return err
		}
	}
	if n := len(r.failures()); n > 0 {
		return fmt.Errorf("%d of %d measurements failed", n, len(r.Rounds))
	}
	return nil
}
