package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A pgbench is the load generator for Postgres: one process for the warm-up, and one for the job, beside which a flood
// may run. It is for one goroutine; see newPGBench. The steps are those of client.
type pgbench struct {
	path  string
	dir   string // for its logs
	job   job
	used  cpuReading // of the processes that have ended
	proc  *process   // the last one; nil before the first
	flood *client    // nil without a flood
}

// newPGBench returns a load generator that sends transactions to the job's first target, and a flood, if there is one,
// to the second.
func newPGBench(p program, j job, dir string) (*pgbench, error) {
	if need := 1 + min(j.Flooders, 1); len(j.Targets) < need {
		return nil, fmt.Errorf("pgbench has %d listeners to ask, want %d", len(j.Targets), need)
	}
	dir, err := os.MkdirTemp(dir, "pgbench-")
	return &pgbench{path: p.path, dir: dir, job: j}, err
}

// wholeSeconds returns a duration of pgbench: it knows no parts of a second.
func wholeSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

func (p *pgbench) ready(ctx context.Context, within time.Duration) error {
	if _, err := p.ask(ctx, p.job.Warmup, 0, within); err != nil || p.job.Flooders == 0 {
		return err
	}
	var err error
	p.flood, err = startClient(job{
		Pattern: patternConnect, Targets: p.job.Targets[1:], Connections: p.job.Flooders, Answer: answerBytes,
		Warmup: 100 * time.Millisecond, Duration: time.Duration(wholeSeconds(p.job.Duration)+1) * time.Second,
		TLS: &tlsJob{Flood: true},
	}, p.dir)
	if err != nil {
		return err
	}
	return p.flood.ready(ctx, within)
}

// run lets pgbench do its job while the flood, if there is one, is under way.
func (p *pgbench) run(ctx context.Context, within time.Duration) (loadResult, error) {
	if p.flood == nil {
		return p.ask(ctx, p.job.Duration, p.job.Lead, within)
	}
	type outcome struct {
		result loadResult
		err    error
	}
	flooded := make(chan outcome, 1)
	go func() { // it ends within the given time
		r, err := p.flood.run(ctx, within)
		flooded <- outcome{r, err}
	}()
	r, err := p.ask(ctx, p.job.Duration, p.job.Lead, within)
	f := <-flooded
	if err := errors.Join(err, f.err); err != nil {
		return r, err
	}
	if f.result.Requests == 0 {
		return r, fmt.Errorf("no handshake of the flood succeeded, %d failed", f.result.Lost)
	}
	r.Handshakes = float64(f.result.Requests) / f.result.Elapsed.Seconds()
	return r, nil
}

// args returns pgbench's arguments for a run of that duration.
func (p *pgbench) args(duration time.Duration, logs string) []string {
	connections := strconv.Itoa(p.job.Connections)
	args := append(pgbenchServer(p.job.Targets[0]), "--no-vacuum", "--select-only", "--protocol", "prepared",
		"--client", connections, "--jobs", "1", "--time", strconv.Itoa(wholeSeconds(duration)),
		"--log", "--log-prefix", logs)
	if p.job.Rate > 0 {
		args = append(args, "--rate", strconv.Itoa(p.job.Rate))
	} else {
		args = append(args, "--sampling-rate", "0.05") // all lines would cost the client too much
	}
	return append(args, postgresDatabase)
}

var pgbenchCount = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)

// transactions reads from pgbench's output how many it has done.
func (p *pgbench) transactions() (uint64, error) {
	text, err := os.ReadFile(p.proc.log)
	if err != nil {
		return 0, err
	}
	return parsePGBench(text)
}

func parsePGBench(text []byte) (uint64, error) {
	m := pgbenchCount.FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("pgbench does not say how many transactions it has done: %.300q", text)
	}
	return strconv.ParseUint(string(m[1]), 10, 64)
}

// ask runs pgbench. With a lead it counts the transactions alone that are done in the given time after it.
func (p *pgbench) ask(ctx context.Context, duration, lead, within time.Duration) (loadResult, error) {
	dir, err := os.MkdirTemp(p.dir, "log-")
	if err != nil {
		return loadResult{}, err
	}
	cmd := exec.Command(p.path, p.args(lead+duration, filepath.Join(dir, "transactions"))...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PGSSLMODE=disable", "PGGSSENCMODE=disable")
	begun := time.Now()
	if p.proc, err = start("pgbench", cmd, p.dir); err != nil {
		return loadResult{}, err
	}
	if err := p.proc.end(ctx, within); err != nil {
		return loadResult{}, err
	}
	elapsed := time.Since(begun)
	p.used = p.used.plus(p.proc.used())
	var counted span
	if lead > 0 {
		elapsed = duration
		counted = span{begun.Add(lead), begun.Add(lead + duration)}
	}
	times, err := readPGBenchLogs(dir, counted)
	if err == nil && len(times) == 0 {
		err = p.proc.failure(errors.New("no transaction was done"))
	}
	if err != nil {
		return loadResult{}, err
	}
	slices.Sort(times)
	done := uint64(len(times))
	if p.job.Rate == 0 {
		elapsed = time.Duration(wholeSeconds(duration)) * time.Second
		if done, err = p.transactions(); err != nil {
			return loadResult{}, err
		}
	}
	return loadResult{
		Requests: done, Elapsed: elapsed,
		P50: percentile(times, 50), P99: percentile(times, 99), Max: times[len(times)-1],
	}, nil
}

// A span is a time from one clock reading to another. The zero value is all time.
type span struct{ from, to time.Time }

func (s span) has(t time.Time) bool { return s == span{} || t.After(s.from) && !t.After(s.to) }

// readPGBenchLogs reads the latencies of transactions that were done within the span. pgbench's logs are all files in
// dir.
func readPGBenchLogs(dir string, counted span) ([]time.Duration, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var times []time.Duration
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		more, err := parsePGBenchLog(string(text), counted)
		if err != nil {
			return nil, err
		}
		times = append(times, more...)
	}
	return times, nil
}

// parsePGBenchLog reads the latencies of a log of transactions. Its third field has microseconds since the transaction
// was due, so a late start counts, as in paced; without a rate, since it began. The fifth and the sixth have the time
// when it was done.
func parsePGBenchLog(text string, counted span) ([]time.Duration, error) {
	var times []time.Duration
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 6 {
			return nil, fmt.Errorf("pgbench's log has the line %q", lines.Text())
		}
		us, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("pgbench's log has the line %q: %w", lines.Text(), err)
		}
		seconds, err := strconv.ParseInt(f[4], 10, 64)
		micros, microsErr := strconv.ParseInt(f[5], 10, 64)
		if err := errors.Join(err, microsErr); err != nil {
			return nil, fmt.Errorf("pgbench's log has the line %q: %w", lines.Text(), err)
		}
		if !counted.has(time.Unix(seconds, micros*1000)) {
			continue
		}
		times = append(times, time.Duration(us)*time.Microsecond)
	}
	return times, nil
}

func (p *pgbench) cpu() (cpuReading, error) {
	r := p.used
	if p.flood == nil {
		return r, nil
	}
	f, err := p.flood.cpu()
	return cpuReading{clock: r.clock + f.clock, stat: r.stat + f.stat}, err
}

func (p *pgbench) finish(ctx context.Context, within time.Duration) error {
	if p.flood == nil {
		return nil
	}
	return p.flood.finish(ctx, within)
}

func (p *pgbench) close() error {
	var errs []error
	if p.flood != nil {
		errs = append(errs, p.flood.close())
	}
	if p.proc != nil {
		errs = append(errs, p.proc.stop())
	}
	return errors.Join(errs...)
}
