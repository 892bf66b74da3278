package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// findRedis looks up the programs that the Redis scenarios need.
func (b *bench) findRedis(ctx context.Context) error {
	server, _, serverErr := lookUp(ctx, b.opts.redisServer, "apt-get install redis-server", "--version")
	client, _, clientErr := lookUp(ctx, b.opts.redisBenchmark, "apt-get install redis-tools", "--version")
	b.tools["redis-server"], b.tools["redis-benchmark"] = server, client
	return errors.Join(serverErr, clientErr)
}

// startRedis runs a Redis server that keeps nothing on disk.
func startRedis(ctx context.Context, redis program, ports *portFinder, logs string) (*server, error) {
	listen, err := ports.find()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(redis.path, "--bind", listen.Addr().String(), "--port", strconv.Itoa(int(listen.Port())),
		"--save", "", "--appendonly", "no", "--dir", logs)
	s := &server{addrs: []netip.AddrPort{listen}}
	if s.proc, err = start("redis-server", cmd, logs); err != nil {
		return nil, err
	}
	if s.pids, err = waitReady(ctx, s.proc, trafficRedis, listen, one(1)); err != nil {
		return nil, errors.Join(err, s.proc.stop())
	}
	return s, nil
}

// askRedis sends a PING and waits for its answer.
func askRedis(ctx context.Context, addr netip.AddrPort) error {
	conn, err := connect(ctx, new(net.Dialer), addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer := make([]byte, 64)
	n, err := conn.Read(answer)
	if err != nil {
		return err
	}
	if string(answer[:n]) != "+PONG\r\n" {
		return fmt.Errorf("answer %q to PING", answer[:n])
	}
	return nil
}

// A redisJob says what redis-benchmark asks.
type redisJob struct {
	Test     string `json:"test"`     // get or set
	Pipeline int    `json:"pipeline"` // commands in one write
}

// A redisBenchmark is the load generator for Redis: processes of redis-benchmark for the warm-up, and one for the job.
// redis-benchmark takes a number of commands and no duration, so the warm-up finds out how many the job has. It is for
// one goroutine; see newRedisBenchmark. The steps are those of client.
type redisBenchmark struct {
	path     string
	dir      string // for its logs
	job      job
	commands int        // of the job, once the warm-up is over
	used     cpuReading // of the processes that have ended
	proc     *process   // the last one; nil before the first
}

func newRedisBenchmark(p program, j job, dir string) (*redisBenchmark, error) {
	if len(j.Targets) == 0 {
		return nil, errors.New("redis-benchmark has nobody to ask")
	}
	return &redisBenchmark{path: p.path, dir: dir, job: j}, nil
}

// redisProbe is how many commands the first run of the warm-up has: a tenth of a second's, or less.
const redisProbe = 2000

// ready does the work for about the time of the warm-up.
func (r *redisBenchmark) ready(ctx context.Context, within time.Duration) error {
	commands := redisProbe
	for _, d := range []time.Duration{r.job.Warmup, r.job.Duration} {
		result, err := r.ask(ctx, commands, within)
		if err != nil {
			return err
		}
		rate := float64(result.Requests) / result.Elapsed.Seconds()
		commands = max(redisProbe, int(rate*d.Seconds()))
	}
	r.commands = commands
	return nil
}

func (r *redisBenchmark) run(ctx context.Context, within time.Duration) (loadResult, error) {
	return r.ask(ctx, r.commands, within)
}

func (r *redisBenchmark) args(commands int) []string {
	target := r.job.Targets[0]
	return []string{"-h", target.Addr().String(), "-p", strconv.Itoa(int(target.Port())), "-t", r.job.Redis.Test,
		"-c", strconv.Itoa(r.job.Connections), "-n", strconv.Itoa(commands), "-P", strconv.Itoa(r.job.Redis.Pipeline),
		"--csv"}
}

func (r *redisBenchmark) ask(ctx context.Context, commands int, within time.Duration) (loadResult, error) {
	out, err := os.CreateTemp(r.dir, "redis-benchmark-*.csv")
	if err != nil {
		return loadResult{}, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := exec.Command(r.path, r.args(commands)...)
	cmd.Stdout = out
	if r.proc, err = start("redis-benchmark", cmd, r.dir); err != nil {
		return loadResult{}, err
	}
	if err := r.proc.end(ctx, within); err != nil {
		return loadResult{}, err
	}
	r.used = r.used.plus(r.proc.used())
	text, err := os.ReadFile(out.Name())
	if err != nil {
		return loadResult{}, err
	}
	return parseRedisBenchmark(string(text), commands)
}

// parseRedisBenchmark reads the CSV of one test: a line of titles and a line of figures, in milliseconds.
func parseRedisBenchmark(text string, commands int) (loadResult, error) {
	lines, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		return loadResult{}, fmt.Errorf("redis-benchmark's output: %w", err)
	}
	if len(lines) != 2 {
		return loadResult{}, fmt.Errorf("redis-benchmark printed %d lines, want titles and one test: %.200q",
			len(lines), text)
	}
	figures := map[string]float64{}
	for i, title := range lines[0] {
		if i == 0 {
			continue // the name of the test
		}
		if figures[title], err = strconv.ParseFloat(lines[1][i], 64); err != nil {
			return loadResult{}, fmt.Errorf("redis-benchmark's %s: %w", title, err)
		}
	}
	rate := figures["rps"]
	if rate <= 0 {
		return loadResult{}, fmt.Errorf("redis-benchmark printed no rate: %.200q", text)
	}
	millis := func(title string) time.Duration { return time.Duration(figures[title] * float64(time.Millisecond)) }
	return loadResult{
		Requests: uint64(commands), Elapsed: time.Duration(float64(commands) / rate * float64(time.Second)),
		P50: millis("p50_latency_ms"), P99: millis("p99_latency_ms"), Max: millis("max_latency_ms"),
	}, nil
}

func (r *redisBenchmark) cpu() (cpuReading, error) { return r.used, nil }

func (r *redisBenchmark) finish(context.Context, time.Duration) error { return nil } // each process has ended

func (r *redisBenchmark) close() error {
	if r.proc == nil {
		return nil
	}
	return r.proc.stop()
}
