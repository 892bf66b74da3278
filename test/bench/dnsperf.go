package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A dnsperf is the load generator for name service: one process for the warm-up, and one for the job. It is for one
// goroutine; see newDNSPerf. The steps are those of client.
type dnsperf struct {
	path      string
	questions string // file
	dir       string
	job       job
	used      cpuReading // of the processes that have ended
	proc      *process   // the last one; nil before the first
}

func newDNSPerf(p program, j job, dir string) (*dnsperf, error) {
	if len(j.Targets) == 0 {
		return nil, errors.New("dnsperf has nobody to ask")
	}
	file, err := writeQuestions(dir)
	return &dnsperf{path: p.path, questions: file, dir: dir, job: j}, err
}

// args returns dnsperf's arguments for a run of that duration. dnsperf asks one server; without a balancer that is the
// first backend.
func (d *dnsperf) args(duration time.Duration) []string {
	seconds := int((duration + time.Second - 1) / time.Second) // it knows no parts of one
	target := d.job.Targets[0]
	args := []string{
		"-s", target.Addr().String(), "-p", strconv.Itoa(int(target.Port())), "-d", d.questions, "-l",
		strconv.Itoa(seconds),
		"-c", strconv.Itoa(d.job.Connections), "-q", strconv.Itoa(d.job.Depth), "-t", "1",
	}
	if d.job.Rate > 0 {
		// -v prints a line with the time of each answer. Without a rate there would be too many.
		args = append(args, "-Q", strconv.Itoa(d.job.Rate), "-v")
	}
	return args
}

func (d *dnsperf) ready(ctx context.Context, within time.Duration) error {
	_, err := d.ask(ctx, d.job.Warmup, within)
	return err
}

func (d *dnsperf) run(ctx context.Context, within time.Duration) (loadResult, error) {
	return d.ask(ctx, d.job.Duration, within)
}

func (d *dnsperf) ask(ctx context.Context, duration, within time.Duration) (loadResult, error) {
	out, err := os.CreateTemp(d.dir, "dnsperf-*.out")
	if err != nil {
		return loadResult{}, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := exec.Command(d.path, d.args(duration)...)
	cmd.Stdout = out
	if d.proc, err = start("dnsperf", cmd, d.dir); err != nil {
		return loadResult{}, err
	}
	if err := d.proc.end(ctx, within); err != nil {
		return loadResult{}, err
	}
	d.used = d.used.plus(d.proc.used())
	text, err := os.ReadFile(out.Name())
	if err != nil {
		return loadResult{}, err
	}
	return parseDNSPerf(text)
}

func (d *dnsperf) cpu() (cpuReading, error) { return d.used, nil }

func (d *dnsperf) finish(context.Context, time.Duration) error { return nil } // each process has ended

func (d *dnsperf) close() error {
	if d.proc == nil {
		return nil
	}
	return d.proc.stop()
}

var (
	dnsperfCount = regexp.MustCompile(`(?m)^ *Queries (completed|lost): *(\d+)`)
	dnsperfTime  = regexp.MustCompile(`(?m)^ *Run time \(s\): *([\d.]+)`)
	dnsperfCodes = regexp.MustCompile(`(?m)^ *Response codes: *NOERROR (\d+) \(100\.00%\)`)
)

// parseDNSPerf reads what dnsperf prints: answers, one a line if it was asked to, and then its statistics. An answer
// without success is an error, since all names exist.
func parseDNSPerf(text []byte) (loadResult, error) {
	var r loadResult
	counts := map[string]uint64{}
	for _, m := range dnsperfCount.FindAllSubmatch(text, -1) {
		n, err := strconv.ParseUint(string(m[2]), 10, 64)
		if err != nil {
			return r, err
		}
		counts[string(m[1])] = n
	}
	took := dnsperfTime.FindSubmatch(text)
	if len(counts) != 2 || took == nil {
		return r, fmt.Errorf("dnsperf ends with %.200q", text[max(0, len(text)-200):])
	}
	seconds, err := strconv.ParseFloat(string(took[1]), 64)
	if err != nil {
		return r, err
	}
	r.Requests, r.Lost, r.Elapsed = counts["completed"], counts["lost"], time.Duration(seconds*float64(time.Second))
	if r.Requests == 0 {
		return r, fmt.Errorf("no answer to any of %d questions", r.Lost)
	}
	if codes := dnsperfCodes.FindSubmatch(text); codes == nil {
		return r, errors.New("dnsperf had answers that are no success")
	}
	times, err := dnsperfTimes(text)
	if len(times) > 0 {
		slices.Sort(times)
		r.P50, r.P99, r.Max = percentile(times, 50), percentile(times, 99), times[len(times)-1]
	}
	return r, err
}

// dnsperfTimes reads the lines of answers: "> NOERROR name type seconds".
func dnsperfTimes(text []byte) ([]time.Duration, error) {
	var times []time.Duration
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), "> NOERROR ")
		if !ok {
			continue
		}
		seconds, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("dnsperf's line %q: %w", lines.Text(), err)
		}
		times = append(times, time.Duration(seconds*float64(time.Second)))
	}
	return times, nil
}
