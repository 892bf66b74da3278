package main

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const rest = " S 41 42 42 0 -1 4194304 100 0 0 0 250 150 30 20 20 0 3 0 12345 1000 100"
	for _, name := range []string{"(nginx)", "(tmux: server)", "(a) S 7 (b)"} {
		st, err := parseStat("1234 " + name + rest)
		if err != nil || st != (procStat{parent: 41, cpu: 4 * time.Second, children: time.Second / 2}) {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 2 3", "1 (x) S y 42 42 0 -1 4194304 100 0 0 0 250 150 30 20"} {
		if st, err := parseStat(bad); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", bad, st)
		}
	}
}

func TestParseMachineStat(t *testing.T) {
	got, err := parseMachineStat("cpu  100 20 3 99999 99999 4 5 6 50 0\ncpu0 1 2 3\n")
	if want := 138 * clockTick; err != nil || got != want {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3"} {
		if got, err := parseMachineStat(bad); err == nil {
			t.Errorf("parseMachineStat(%q) = %v, want an error", bad, got)
		}
	}
}

func TestReadCPU(t *testing.T) {
	self := []int{os.Getpid()}
	before, err := readCPU(self)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // until the test has used enough for ticks to be seen
		for deadline := time.Now().Add(50 * time.Millisecond); time.Now().Before(deadline); {
		}
	}
	after, err := readCPU(self)
	if err != nil {
		t.Fatal(err)
	}
	used := after.since(before)
	if used.clock <= 0 {
		t.Errorf("CPU time went from %+v to %+v", before, after)
	}
	if used.disagrees(1) {
		t.Errorf("the CPU clock says %s and /proc/PID/stat %s", used.clock, used.stat)
	}
	if _, err := readCPU([]int{-5}); err == nil {
		t.Error("no error for a process that is not there")
	}
}

func TestCPUReadingDisagrees(t *testing.T) {
	for _, c := range []struct {
		reading cpuReading
		want    bool
	}{
		{cpuReading{clock: time.Second, stat: 990 * time.Millisecond}, false},
		{cpuReading{clock: 5 * time.Millisecond}, false}, // less than a tick
		{cpuReading{clock: time.Second, stat: 800 * time.Millisecond}, true},
		{cpuReading{clock: 800 * time.Millisecond, stat: time.Second}, true},
	} {
		if got := c.reading.disagrees(1); got != c.want {
			t.Errorf("%+v disagrees: %v, want %v", c.reading, got, c.want)
		}
	}
}

func TestParseRssAnon(t *testing.T) {
	got, err := parseRssAnon("Name:\tx\nVmRSS:\t    9000 kB\nRssAnon:\t     152 kB\nRssFile:\t 100 kB\n")
	if err != nil || got != 152<<10 {
		t.Errorf("%d, %v, want %d", got, err, 152<<10)
	}
	for _, bad := range []string{"", "VmRSS:\t 1 kB\n", "RssAnon:\tmany kB\n"} {
		if got, err := parseRssAnon(bad); err == nil {
			t.Errorf("parseRssAnon(%q) = %d, want an error", bad, got)
		}
	}
}

func TestFamilyAndHolding(t *testing.T) {
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// with its first answer it has started: its libraries are loaded, and their files closed
	if _, err := stdin.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	pids, err := family(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if pids[0] != os.Getpid() || !slices.Contains(pids, cmd.Process.Pid) {
		t.Errorf("family %v, want %d first and %d in it", pids, os.Getpid(), cmd.Process.Pid)
	}
	before, err := readHolding(pids)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	after, err := readHolding(pids)
	if err != nil {
		t.Fatal(err)
	}
	if after.descriptors != before.descriptors+2 || after.memory <= 0 {
		t.Errorf("holding went from %+v to %+v with one more pipe", before, after)
	}
	r.Close()
	w.Close()
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
