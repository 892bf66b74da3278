//go:build netns

// These tests run the recipes of docs/fleet.md, with the files as the page shows them, on hosts that are network
// namespaces:
//
//	unshare --user --map-root-user --net go test -tags netns -run NetnsFleet ./test

package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestNetnsHosts: hosts reach each other over a network, until one is cut off.
func TestNetnsHosts(t *testing.T) {
	t.Parallel()
	n := harness.NewNetwork(t, "lan")
	a, b := harness.NewHost(t, "a"), harness.NewHost(t, "b")
	n.Join(t, a, "eth0", "10.0.0.1/24", "2001:db8::1/64")
	n.Join(t, b, "eth0", "10.0.0.2/24", "2001:db8::2/64")
	for _, address := range []string{"10.0.0.2:80", "[2001:db8::2]:80"} {
		b.Serve(t, address, harness.Echo)
		c, err := a.Dial(nil, address)
		check(t, err)
		defer c.Close()
		check(t, harness.PingPong(c, 1, 1))
	}
	n.Cut(t, b)
	a.IP(t, "neigh", "flush", "dev", "eth0") // so that connect fails soon
	if c, err := a.Dial(nil, "10.0.0.2:80"); err == nil {
		c.Close()
		t.Error("a connection crosses a cut cable")
	}
	n.Mend(t, b)
	c, err := a.Dial(nil, "10.0.0.2:80")
	check(t, err)
	c.Close()
}

// recipe returns the files that a section of docs/fleet.md shows, by the names in their first lines.
func recipe(t *testing.T, heading string) map[string]string {
	t.Helper()
	page, err := os.ReadFile("../docs/fleet.md")
	check(t, err)
	files := map[string]string{}
	in := false
	for _, part := range regexp.MustCompile("(?ms)^#{2,3} [^\n]*$|^```[a-z]+\n.*?^```$").FindAllString(string(page), -1) {
		if strings.HasPrefix(part, "#") {
			in = strings.TrimLeft(part, "# ") == heading
			continue
		}
		_, text, _ := strings.Cut(strings.TrimSuffix(part, "```"), "\n")
		if name := regexp.MustCompile(`\A(?:#!.*\n)?# (\S+)\n`).FindStringSubmatch(text); in && name != nil {
			files[name[1]] = text
		}
	}
	if len(files) == 0 {
		t.Fatalf("docs/fleet.md shows no file below %q", heading)
	}
	return files
}

// put writes a file of a recipe into a folder of the test's, with other words in place of some, and returns its path.
// Each of these words must be there.
func put(t *testing.T, files map[string]string, name string, replace ...string) string {
	t.Helper()
	text, is := files[name]
	if !is {
		t.Fatalf("docs/fleet.md does not show %s", name)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("%s has no %q", name, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	file := filepath.Join(t.TempDir(), filepath.Base(name))
	mode := os.FileMode(0o600) // keepalived takes no executable file
	if strings.HasPrefix(text, "#!") {
		mode = 0o700
	}
	check(t, os.WriteFile(file, []byte(text), mode))
	return file
}

// setAll sets the settings of a file of sysctl.
func setAll(t *testing.T, h *harness.Host, files map[string]string, name string) {
	t.Helper()
	settings := regexp.MustCompile(`(?m)^([a-z0-9._]+) = (.*)$`).FindAllStringSubmatch(files[name], -1)
	if len(settings) == 0 {
		t.Fatalf("docs/fleet.md shows no settings in %s", name)
	}
	for _, s := range settings {
		h.Set(t, s[1], s[2])
	}
}

// daemon starts a program on a host, which ends itself and its children on TERM at the end of the test.
func daemon(t *testing.T, h *harness.Host, program string, args ...string) *harness.Process {
	t.Helper()
	p := harness.Start(t, harness.Command{Path: harness.Tool(t, program), Args: args, On: h})
	t.Cleanup(func() {
		select {
		case <-p.Done():
		default:
			p.Signal(t, syscall.SIGTERM)
			p.Wait(t)
		}
	})
	return p
}

// whereabouts answers each byte with two: the last one of the node's address, and of its own.
func whereabouts(_ context.Context, c *net.TCPConn) {
	last := func(a net.Addr) byte { ip := a.(*net.TCPAddr).IP; return ip[len(ip)-1] }
	answer := []byte{last(c.RemoteAddr()), last(c.LocalAddr())}
	for question := make([]byte, 1); ; {
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// askWhere asks a backend that runs whereabouts.
func askWhere(c net.Conn) (node, backend byte, err error) {
	if _, err := c.Write([]byte("?")); err != nil {
		return 0, 0, err
	}
	var answer [2]byte
	_, err = io.ReadFull(c, answer[:])
	return answer[0], answer[1], err
}

// Visitors are clients that open a session, use it and close it, one after the other, until stop.
type visitors struct {
	ended    chan struct{}
	visiting sync.WaitGroup

	mu       sync.Mutex
	sessions int
	refused  []error // connects that failed
	broken   []error // sessions that failed later
	slowest  time.Duration
}

// startVisitors starts visitors on a host.
func startVisitors(t *testing.T, h *harness.Host, address string) *visitors {
	t.Helper()
	v := &visitors{ended: make(chan struct{})}
	for range 4 {
		v.visiting.Go(func() {
			_ = h.Do(func() error {
				for v.once(address) {
				}
				return nil
			})
		})
	}
	t.Cleanup(func() { v.stop() })
	harness.Eventually(t, "visitors are served", func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.sessions < 10 {
			return fmt.Errorf("%d sessions, %v", v.sessions, v.refused)
		}
		return nil
	})
	return v
}

// once opens a session, and says whether to go on.
func (v *visitors) once(address string) bool {
	started := time.Now()
	c, err := net.DialTimeout("tcp", address, harness.Patience/2)
	refused := err
	if err == nil {
		_ = c.SetDeadline(started.Add(harness.Patience / 2))
		_, _, err = askWhere(c)
		c.Close()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.sessions++
	v.slowest = max(v.slowest, time.Since(started))
	switch {
	case refused != nil:
		v.refused = append(v.refused, refused)
	case err != nil:
		v.broken = append(v.broken, err)
	}
	select {
	case <-v.ended:
		return false
	case <-time.After(5 * time.Millisecond):
		return true
	}
}

// stop ends the visits. It may be called again.
func (v *visitors) stop() {
	select {
	case <-v.ended:
	default:
		close(v.ended)
	}
	v.visiting.Wait()
}

// report ends the visits, and fails the test if one was refused.
func (v *visitors) report(t *testing.T, what string) {
	t.Helper()
	v.stop()
	t.Logf("%s: %d new sessions, %d refused, %d broken, the slowest took %v", what, v.sessions, len(v.refused),
		len(v.broken), v.slowest.Round(time.Millisecond))
	if len(v.refused) > 0 {
		t.Errorf("%s: refused: %v", what, v.refused[:min(3, len(v.refused))])
	}
}

// outage waits until an address answers, and returns how long after since it did so, in steps of 0.1 s.
func outage(t *testing.T, h *harness.Host, address string, since time.Time) time.Duration {
	t.Helper()
	var answered time.Time
	harness.Eventually(t, address+" answers", func() error {
		return h.Do(func() error {
			c, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
				return err
			}
			_, _, err = askWhere(c)
			answered = time.Now()
			return err
		})
	})
	return answered.Sub(since).Round(100 * time.Millisecond)
}

// Established are sessions that stay open.
type established []*openSession

// An openSession is a session and where it went at first.
type openSession struct {
	*net.TCPConn
	node, backend byte
}

// establish opens n sessions from a host.
func establish(t *testing.T, h *harness.Host, address string, n int) established {
	t.Helper()
	return establishFrom(t, h, nil, address, n)
}

// establishFrom is establish from an address of the host.
func establishFrom(t *testing.T, h *harness.Host, from *net.TCPAddr, address string, n int) established {
	t.Helper()
	e := make(established, n)
	t.Cleanup(e.close)
	check(t, inParallel(n, func(i int) error {
		c, err := h.Dial(from, address)
		if err != nil {
			return err
		}
		e[i] = &openSession{TCPConn: c}
		e[i].node, e[i].backend, err = askWhere(c)
		return err
	}))
	return e
}

func (e established) close() {
	for _, s := range e {
		if s != nil {
			s.Close()
		}
	}
}

// on returns how many of the sessions are on a node.
func (e established) on(node int) (n int) {
	for _, s := range e {
		if int(s.node) == node {
			n++
		}
	}
	return n
}

// sessionAnswers is how long a session of a fleet has to answer before it counts as broken. Those of a node that is gone
// without a word take all of it.
const sessionAnswers = 30 * time.Second

// use uses all sessions once. It returns those that work, and those that do not within sessionAnswers.
func (e established) use() (work, broken established) {
	works := make([]bool, len(e))
	var asking sync.WaitGroup
	for i, s := range e {
		asking.Go(func() {
			if s.SetDeadline(time.Now().Add(sessionAnswers)) != nil {
				return
			}
			node, backend, err := askWhere(s)
			works[i] = err == nil && node == s.node && backend == s.backend
		})
	}
	asking.Wait()
	for i, s := range e {
		if works[i] {
			work = append(work, s)
		} else {
			broken = append(broken, s)
		}
	}
	return work, broken
}
