package probe

import (
	"context"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// A processGroup is a started program with what it started. Its methods may be called from any goroutine.
//
// Invariant: until reaped is set the leader is alive or a zombie, so that no other group can have its number.
type processGroup struct {
	leader int // set once, then read-only

	// mu guards the field below
	mu     sync.Mutex
	reaped bool
}

// kill ends all of the group at once.
func (g *processGroup) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.reaped {
		_ = syscall.Kill(-g.leader, syscall.SIGKILL)
	}
}

// runGroup runs cmd in a process group of its own, calls started once that was tried, and kills the group when
// cmd has ended, or ctx has. It returns when cmd is gone: at the end of ctx soon, unless the kernel keeps it (in I/O that
// cannot be interrupted). Errors are those of cmd.Start and cmd.Wait.
func runGroup(ctx context.Context, cmd *exec.Cmd, started func()) error {
	// Pdeathsig is sent when the thread ends that started cmd, not the process (go.dev/issue/27505). So nobody else may
	// have the thread meanwhile, who might end it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,
		Pdeathsig: syscall.SIGKILL, // a balancer that is killed leaves no checks behind
	}
	err := cmd.Start()
	started()
	if err != nil {
		return err
	}
	g := processGroup{leader: cmd.Process.Pid}
	stop := context.AfterFunc(ctx, g.kill)
	defer stop()
	// Not by exec.CommandContext, its Cancel and its WaitDelay: those reap the leader first, and after that a group of this
	// number may be somebody else's.
	waitUnreaped(g.leader)
	g.kill()
	g.mu.Lock()
	g.reaped = true
	g.mu.Unlock()
	return cmd.Wait()
}

// waitUnreaped returns when a child has ended, and leaves it to be waited for.
func waitUnreaped(pid int) {
	const byPID = 1 // P_PID of linux/wait.h
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, byPID, uintptr(pid), 0, syscall.WEXITED|syscall.WNOWAIT, 0, 0)
		if errno != syscall.EINTR {
			return
		}
	}
}
