package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// etcdStarts bounds how long a member may take to serve.
	etcdStarts = 30 * time.Second
	// etcdQuota is etcd's own default; a fleet must fit into it.
	etcdQuota = 2 << 30
)

// An etcdServer is an etcd of one member with a store in a temporary folder. It has one owner; its zero value is of no
// use, see startEtcd.
type etcdServer struct {
	dir, endpoint string
	args          []string
	cmd           *exec.Cmd
	output        *bytes.Buffer
}

// startEtcd starts an etcd on free ports. The caller ends it with stop.
func startEtcd(ctx context.Context) (*etcdServer, error) {
	dir, err := os.MkdirTemp("", "fleetsim-")
	if err != nil {
		return nil, err
	}
	client, peer, err := freeAddresses()
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	s := &etcdServer{dir: dir, endpoint: "http://" + client}
	s.args = []string{
		"--name", "one", "--data-dir", dir + "/data", "--listen-client-urls", s.endpoint,
		"--advertise-client-urls", s.endpoint, "--listen-peer-urls", "http://" + peer,
		"--initial-advertise-peer-urls", "http://" + peer, "--initial-cluster", "one=http://" + peer,
		"--quota-backend-bytes", strconv.Itoa(etcdQuota), "--metrics", "extensive",
	}
	if err := s.start(ctx); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// freeAddresses returns two addresses of 127.0.0.1 that were free a moment ago.
func freeAddresses() (one, two string, err error) {
	a, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer a.Close()
	b, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer b.Close()
	return a.Addr().String(), b.Addr().String(), nil
}

// start starts the process, also after kill, and waits until it serves.
func (s *etcdServer) start(ctx context.Context) error {
	path, err := exec.LookPath("etcd")
	if err != nil {
		return fmt.Errorf("%w: `make tools` installs it", err)
	}
	s.cmd, s.output = exec.Command(path, s.args...), new(bytes.Buffer)
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	return await(ctx, etcdStarts, "etcd serves", func() error {
		_, err := s.figures()
		return err
	})
}

// kill ends the process as a crash would; its data stays.
func (s *etcdServer) kill() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill etcd: %w", err)
	}
	_ = s.cmd.Wait() // it says that it was killed
	return nil
}

// stop ends the process, if it runs, and removes its data.
func (s *etcdServer) stop() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.kill() // it may have ended by itself
	}
	os.RemoveAll(s.dir)
}

// figures are etcd's metrics, by name; those of the same name are added up, but for gRPC methods, which have
// "name method".
type figures map[string]float64

// figures asks etcd for its metrics.
func (s *etcdServer) figures() (figures, error) {
	client := &http.Client{Timeout: etcdStarts, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(s.endpoint + "/metrics")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	f := make(figures)
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		at := strings.LastIndexByte(lines.Text(), ' ')
		if at < 0 || lines.Text()[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(lines.Text()[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("etcd's metrics have %q", lines.Text())
		}
		name, labels, _ := strings.Cut(lines.Text()[:at], "{")
		f[name] += value
		if _, method, is := strings.Cut(labels, `grpc_method="`); is {
			method, _, _ = strings.Cut(method, `"`)
			f[name+" "+method] += value
		}
	}
	if f["etcd_server_has_leader"] == 0 {
		return nil, errors.New("etcd has no leader yet")
	}
	return f, nil
}

// await waits until holds returns nil.
func await(ctx context.Context, limit time.Duration, what string, holds func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := holds()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not so after %v: %w", what, limit, err)
		case <-tick.C:
		}
	}
}
