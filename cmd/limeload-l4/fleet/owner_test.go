package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestNameTaken: a second process with the name of a node says nothing, but knows the changes. It joins once the first
// one has left.
func TestNameTaken(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	first := startNode(t, Options{Node: "a", Instance: "first", Endpoints: []string{server.Endpoint}})
	awaitNodes(t, 1, first)
	first.set(Changes+"x", "1")
	second := startNode(t, Options{Node: "a", Instance: "second", Endpoints: []string{server.Endpoint}})
	harness.Eventually(t, "the second one says that the name is taken", func() error {
		err := second.Link().Err
		if !errors.Is(err, ErrNameTaken) || !strings.Contains(err.Error(), "fleet.node") {
			return fmt.Errorf("error %w", err)
		}
		return nil
	})
	awaitRecord(t, Changes+"x", "1", second)
	second.set(Changes+"y", "2")
	if n := first.Nodes(); len(n) != 1 || n[0].Instance != "first" {
		t.Errorf("%+v", n)
	}
	if up, down, _ := second.reports(); up != 0 || down != 1 {
		t.Errorf("the second one has reported %d connections and %d losses", up, down)
	}
	first.kill()
	first.Leave(t.Context())
	harness.Eventually(t, "the second one has the name", func() error {
		if n := second.Nodes(); len(n) != 1 || n[0].Instance != "second" {
			return fmt.Errorf("%+v, link %+v", n, second.Link())
		}
		return nil
	})
	second.awaitSettled(t)
}

// TestTakeOver: the new process of an upgrade has the name at once, and the old one goes on without a report. What the
// old one has said stays until the new one says it.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	old := startNode(t, Options{Node: "a", Instance: "old", Endpoints: []string{server.Endpoint}})
	other := startNode(t, Options{Node: "b", Endpoints: []string{server.Endpoint}})
	old.Say(Checks+"x", []byte("1"))
	awaitNodes(t, 2, old, other)
	old.awaitSettled(t)
	other.expect(2)
	began := time.Now()
	started := startNode(t, Options{Node: "a", Instance: "new", Before: "old", Endpoints: []string{server.Endpoint}})
	started.awaitSettled(t)
	if took := time.Since(began); took > leaseTime/2 {
		t.Errorf("the new process has the name after %v", took)
	}
	old.awaitReplaced(t)
	old.kill()
	old.Leave(t.Context()) // does nothing
	if got := other.HeardOf(Checks + "x"); string(got) != "1" {
		t.Errorf("what the old process has said is %q", got)
	}
	old.Say(Checks+"x", []byte("2"))
	started.Say(Checks+"x", []byte("3"))
	harness.Eventually(t, "the new process says another value", func() error {
		if got := other.HeardOf(Checks + "x"); string(got) != "3" {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	if n := other.Nodes(); n[0].Instance != "new" || other.fewestNodes() != 2 {
		t.Errorf("%+v; there were %d nodes at a time", n, other.fewestNodes())
	}
	if _, down, _ := old.reports(); down != 0 {
		t.Errorf("the old process has reported %d losses", down)
	}
}

// awaitReplaced waits until a node knows that a new process has its name.
func (n *testNode) awaitReplaced(t *testing.T) {
	t.Helper()
	harness.Eventually(t, n.o.Instance+" is replaced", func() error {
		if err := n.Link().Err; !errors.Is(err, ErrReplaced) {
			return fmt.Errorf("error %w", err)
		}
		return nil
	})
}

// TestTakeOverFails: if the new process of an upgrade takes the name and does not stay, the old one has it again, and
// writes what was changed meanwhile.
func TestTakeOverFails(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	old := startNode(t, Options{Node: "a", Instance: "old", Endpoints: []string{server.Endpoint}})
	other := startNode(t, Options{Node: "b", Endpoints: []string{server.Endpoint}})
	awaitNodes(t, 2, old, other)
	started := startNode(t, Options{Node: "a", Instance: "new", Before: "old", Endpoints: []string{server.Endpoint}})
	started.awaitSettled(t)
	old.awaitReplaced(t)
	old.set(Changes+"x", "1")
	started.kill()
	started.Leave(t.Context())
	old.awaitSettled(t)
	awaitRecord(t, Changes+"x", "1", other)
	harness.Eventually(t, "the old process has the name", func() error {
		if n := other.Nodes(); len(n) != 2 || n[0].Instance != "old" {
			return fmt.Errorf("%+v, link %+v", n, old.Link())
		}
		return nil
	})
}

// TestCrashed: the next process on the same machine does not wait for the end of a dead one's lease.
func TestCrashed(t *testing.T) {
	t.Parallel()
	server := startEtcd(t)
	crashed := exec.Command("sleep", "3600")
	if err := crashed.Start(); err != nil {
		t.Fatal(err)
	}
	dead := thisProcess()
	dead.PID = crashed.Process.Pid
	dead.Began, _ = began(dead.PID)
	if dead.isDead(thisProcess()) {
		t.Error("a process is dead before its end")
	}
	if err := crashed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the process is dead", func() error { // before somebody waits for it
		if !dead.isDead(thisProcess()) {
			return errors.New("it is not")
		}
		return nil
	})
	_ = crashed.Wait() // it was killed
	value, err := json.Marshal(claim{Instance: "crashed", Host: "h", process: dead})
	if err != nil {
		t.Fatal(err)
	}
	server.Do(t, "put", "/limeload/edge/"+owners+"a", string(value))
	started := startNode(t, Options{Node: "a", Instance: "next", Endpoints: []string{server.Endpoint}})
	awaitNodes(t, 1, started)
	if _, down, _ := started.reports(); down != 0 {
		t.Errorf("%d losses were reported", down)
	}
}

// TestIsDead: a process counts as dead only if that is certain.
func TestIsDead(t *testing.T) {
	t.Parallel()
	this := thisProcess()
	if this.PID != os.Getpid() || this.Began == 0 || this.Machine == "" {
		t.Fatalf("this process: %+v", this)
	}
	for _, c := range []struct {
		what   string
		change func(p *process)
		want   bool
	}{
		{"itself", func(*process) {}, false},
		{"an earlier one of this ID", func(p *process) { p.Began-- }, true},
		{"one that was never there", func(p *process) { p.PID = 1 << 30 }, true},
		{"one of another machine", func(p *process) { p.PID = 1 << 30; p.Machine = "other" }, false},
		{"one of an unknown machine", func(p *process) { p.PID = 1 << 30; p.Machine = "" }, false},
		{"nonsense", func(p *process) { p.PID = -1 }, false},
	} {
		p := this
		c.change(&p)
		if got := p.isDead(this); got != c.want {
			t.Errorf("%s: dead %v, want %v", c.what, got, c.want)
		}
	}
}
