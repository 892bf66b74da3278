package probe

import (
	"context"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// A processGroup is a running program and the processes that it has started. Its methods may be called from any
// goroutine.
//
// Invariant: until reaped is set, the leader runs or is a zombie, and so no other group can have its number.
type processGroup struct {
	leader int // set once, then read-only

	// mu guards the field below
	mu     sync.Mutex
	reaped bool
}

// kill kills the whole group.
func (g *processGroup) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.reaped {
		_ = syscall.Kill(-g.leader, syscall.SIGKILL)
	}
}

// runGroup runs cmd in a new process group, and kills the group when cmd or ctx has ended. It calls started after the
// attempt to start cmd. It returns when cmd has ended: soon after the end of ctx, unless the kernel delays it (in I/O
// that cannot be interrupted). Errors are those of cmd.Start and cmd.Wait.
func runGroup(ctx context.Context, cmd *exec.Cmd, started func()) error {
	// The kernel sends Pdeathsig when the thread that started cmd ends, not the process (go.dev/issue/27505). So no
	// other goroutine may use this thread meanwhile, since it might end the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,
		Pdeathsig: syscall.SIGKILL, // a program must not outlive a balancer that is killed
	}
	err := cmd.Start()
	started()
	if err != nil {
		return err
	}
	g := processGroup{leader: cmd.Process.Pid}
	stop := context.AfterFunc(ctx, g.kill)
	defer stop()
	// exec.CommandContext with Cancel and WaitDelay would reap the leader first. After that, another group may have its
	// number.
	waitUnreaped(g.leader)
	g.kill()
	g.mu.Lock()
	g.reaped = true
	g.mu.Unlock()
	return cmd.Wait()
}

// waitUnreaped returns when a child has ended, and leaves it a zombie.
func waitUnreaped(pid int) {
	const byPID = 1 // P_PID of linux/wait.h
	for {
		const flags = syscall.WEXITED | syscall.WNOWAIT
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, byPID, uintptr(pid), 0, flags, 0, 0)
		if errno != syscall.EINTR {
			return
		}
	}
}
