package harness

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// Save writes a copy (snapshot) of the member's data to a file.
func (e *Etcd) Save(t testing.TB, file string) {
	t.Helper()
	e.Do(t, "snapshot", "save", file)
}

// RestoreEtcd ends all members of a cluster and starts them again with the data of a copy, as a new cluster, or without
// any data if file is "".
func RestoreEtcd(t testing.TB, members []*Etcd, file string) {
	t.Helper()
	for _, e := range members {
		e.Kill(t)
		if err := os.RemoveAll(filepath.Join(e.command.Dir, "data")); err != nil {
			t.Fatal(err)
		}
		if file != "" {
			e.restore(t, file)
		}
	}
	StartEtcdAgain(t, members)
}

// restore makes the data of a stopped member those of a copy.
func (e *Etcd) restore(t testing.TB, file string) {
	t.Helper()
	args := []string{"snapshot", "restore", file, "--data-dir", "data"}
	for _, option := range []string{
		"--name", "--initial-cluster", "--initial-cluster-token", "--initial-advertise-peer-urls",
	} {
		args = append(args, option, e.command.Args[slices.Index(e.command.Args, option)+1])
	}
	c := e.ctl(t, nil)
	c.Args, c.Dir = args, e.command.Dir
	MustRun(t, c)
}

// StartEtcdAgain starts members together, with their data, after they were killed, and waits until all of them serve.
func StartEtcdAgain(t testing.TB, members []*Etcd) {
	t.Helper()
	for _, e := range members {
		e.Process = Start(t, e.command)
	}
	for _, e := range members {
		e.WaitStderr(t, "client requests on")
	}
}

// Hang stops the member without ending it: its connections stay, and nothing is answered. Resume ends that.
func (e *Etcd) Hang(t testing.TB) {
	t.Helper()
	e.Signal(t, syscall.SIGSTOP)
}

// Resume has a member go on that hangs.
func (e *Etcd) Resume(t testing.TB) {
	t.Helper()
	e.Signal(t, syscall.SIGCONT)
}
