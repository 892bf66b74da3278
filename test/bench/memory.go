package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A holding has the memory and descriptors of some processes at one time.
type holding struct {
	memory      int64 // RssAnon, bytes: their own memory, without program text and shared files
	descriptors int
}

// readHolding adds up the holdings of the processes. They do not include the kernel's memory for sockets and pipes, of
// which descriptors give an idea.
func readHolding(pids []int) (holding, error) {
	var sum holding
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return holding{}, err
		}
		memory, err := parseRssAnon(string(b))
		if err != nil {
			return holding{}, fmt.Errorf("/proc/%d/status: %w", pid, err)
		}
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return holding{}, err
		}
		sum.memory += memory
		sum.descriptors += len(fds)
	}
	return sum, nil
}

// readSwitches returns how often the threads of the processes have gone to sleep: their voluntary context switches.
func readSwitches(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		if err != nil {
			return 0, err
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				continue // the thread has ended meanwhile
			}
			if err != nil {
				return 0, err
			}
			n, err := parseSwitches(string(b))
			if err != nil {
				return 0, fmt.Errorf("%s: %w", f, err)
			}
			sum += n
		}
	}
	return sum, nil
}

func parseSwitches(status string) (int64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
			return strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
		}
	}
	return 0, errors.New("no voluntary_ctxt_switches")
}

func parseRssAnon(status string) (int64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no RssAnon")
}

// family returns the process and all that descend from it.
func family(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue // not a process
		}
		st, err := readStat(p)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		children[st.parent] = append(children[st.parent], p)
	}
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children[pids[i]]...)
	}
	return pids, nil
}
