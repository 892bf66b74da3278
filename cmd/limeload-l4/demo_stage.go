package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/cmd/limeload-l4/daemon"
)

const (
	// demoAdmin is the demo's admin address. If it is taken, another port is used.
	demoAdmin = "127.0.0.1:7081"
	// paintEvery is how often the demo's table is drawn on a terminal.
	paintEvery = 500 * time.Millisecond
	// reportEvery is how often a line says how the client fares, where there is no terminal.
	reportEvery = 5 * time.Second
)

// A demoStage is what every demo has: a folder, a balancer with its configuration, and somewhere to tell what happens.
// Its zero value is of no use, see newDemoStage. Close it at the end.
type demoStage struct {
	dir    string // for everything of the demo
	say    *narrator
	front  string // the address of the listener
	admin  string
	token  string
	client *admin.Client
	daemon *daemon.Daemon
}

// newDemoStage makes the folder of a demo.
func newDemoStage(out io.Writer) (*demoStage, error) {
	dir, err := os.MkdirTemp("", "limeload-demo-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the demo: %w", err)
	}
	return &demoStage{dir: dir, say: newNarrator(out), token: rand.Text()}, nil
}

// close removes the folder.
func (s *demoStage) close() {
	if s.client != nil {
		s.client.Close()
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.say.line("the folder of the demo stays: %v", err)
	}
}

const demoAdminConfig = `
[admin]
address    = %q
token_file = "token"

[log]
access = false
`

// open builds the balancer, at this address or, if it is taken, at another one. text is its configuration.
func (s *demoStage) open(ctx context.Context, front string, text func(front string) string) (err error) {
	if err := os.WriteFile(filepath.Join(s.dir, "token"), []byte(s.token+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the token of the demo: %w", err)
	}
	for try := 0; ; try++ {
		if s.front, err = freeAddress(front); err != nil {
			return err
		}
		if s.admin, err = freeAddress(demoAdmin); err != nil {
			return err
		}
		config := text(s.front) + fmt.Sprintf(demoAdminConfig, s.admin)
		if err := os.WriteFile(s.file(), []byte(config), 0o600); err != nil {
			return fmt.Errorf("write the configuration of the demo: %w", err)
		}
		cfg, err := daemon.Load(ctx, s.file())
		if err != nil {
			return err
		}
		s.daemon, err = daemon.New(daemon.Options{
			Config: cfg, Version: version(), Log: zerolog.New(s.say).Level(zerolog.InfoLevel),
		})
		if err == nil {
			break
		}
		if try == 3 || !errors.Is(err, syscall.EADDRINUSE) { // somebody was faster
			return err
		}
	}
	s.client, err = admin.NewClient(admin.ClientOptions{Address: s.admin, Token: s.token})
	return err
}

// ready waits until the balancer serves, and reports whether it does; false if ctx ends first.
func (s *demoStage) ready(ctx context.Context) bool {
	for s.client.Ready(ctx) != nil {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return true
}

func (s *demoStage) file() string { return filepath.Join(s.dir, "lb.toml") }

// flag returns the flag with which commands find the demo's balancer.
func (s *demoStage) flag() string { return "-c " + s.file() }

// page returns how to open the web page.
func (s *demoStage) page() string {
	return fmt.Sprintf("The page is at http://%s/ and asks for this token:\n%s", s.admin, s.token)
}

// paint shows how the demo goes until ctx ends: on a terminal a table that is drawn again and again, elsewhere a line
// now and then. client returns how the client fares.
func (s *demoStage) paint(ctx context.Context, client func() string) {
	every := reportEvery
	if s.say.live() {
		every = paintEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	r := &remote{client: s.client, timeout: answerIn}
	var history topHistory
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !s.say.live() {
			s.say.line("%s", client())
			continue
		}
		sample, err := r.sample(ctx)
		if err != nil {
			continue // at the start and at the end
		}
		shot := history.measured(sample)
		lines := []string{""}
		l := topBackendTable(shot.Backends, false).layout(s.say.screen.width)
		lines = append(lines, l.head()...)
		for _, line := range l.body(s.say.screen) {
			lines = append(lines, line.text)
		}
		s.say.show(append(lines, client()))
	}
}

// freeAddress returns an address if nobody listens there, and else one of this machine with a free port.
func freeAddress(wanted string) (string, error) {
	l, err := net.Listen("tcp", wanted)
	if errors.Is(err, syscall.EADDRINUSE) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return "", fmt.Errorf("look for a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// programName returns how this program can be started from another terminal: by its name if that is in PATH.
func programName() string {
	self, err := os.Executable()
	if err != nil {
		return "limeload-l4"
	}
	if found, err := exec.LookPath("limeload-l4"); err == nil {
		if found, err = filepath.EvalSymlinks(found); err == nil && found == self {
			return "limeload-l4"
		}
	}
	if here, err := os.Getwd(); err == nil {
		if short, err := filepath.Rel(here, self); err == nil && !strings.HasPrefix(short, "..") {
			return short
		}
	}
	return self
}
