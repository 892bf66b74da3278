package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// boot runs the machine until it ends, or ctx does, and returns the program's exit code. Its files are in dir.
func boot(ctx context.Context, dir, kernel, archive string, o options, stdout io.Writer) (code int, err error) {
	console, status := filepath.Join(dir, "console"), filepath.Join(dir, "status")
	args := append([]string{
		"-accel", "tcg", "-cpu", "max,la57=off", "-smp", "2", "-m", o.memory,
		"-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
		"-kernel", kernel, "-initrd", archive, "-append", "console=ttyS0 quiet panic=-1 mitigations=off " +
			"cryptomgr.notests=1 nokaslr random.trust_cpu=on",
		"-serial", "file:" + console, "-serial", "stdio", "-serial", "file:" + status,
	}, o.qemu...)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	var problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &problems
	err = cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("the machine was stopped: %w", context.Cause(ctx))
	}
	if errors.Is(err, exec.ErrNotFound) {
		err = fmt.Errorf("%w: `make tools` installs what the tests need", err)
	}
	if err == nil {
		code, err = readCode(status)
	}
	if err != nil {
		said, _ := os.ReadFile(console) // there may be none
		err = fmt.Errorf("%w\n%sthe machine's console:\n%s", err, problems.Bytes(), said)
	}
	return code, err
}

// readCode reads the exit code that the machine's first process has written.
func readCode(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	code, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil {
		return 0, errors.New("the machine ended before the program")
	}
	return code, nil
}
