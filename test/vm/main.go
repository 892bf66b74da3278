// Command vm runs a program in a virtual machine, for tests that need what the kernel of this machine lacks: kernel TLS.
// The machine has Debian's cloud kernel, which `make tools` unpacks into build/kernel, the kernel's modules of TLS,
// busybox, and the programs and folders that -pack names. It has no disk and no network but loopback, and is gone when
// the program ends.
//
// It is made for go test, which starts it with the test binary and its arguments:
//
//	CGO_ENABLED=0 go test -count=1 -exec "$PWD/build/vm -pack openssl" -run TestKernelTLS ./test
//
// The program runs as root, in the folder with the name of the current one, with the variables whose names start with
// LIMELOAD_. Its output appears on standard output, and its exit code is that of vm. The processor is emulated: times
// inside are no measurement.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	// go test sends SIGQUIT when its -timeout has passed.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// A list is a flag that may be given several times.
type list []string

// String implements flag.Value.
func (l *list) String() string { return strings.Join(*l, " ") }

// Set implements flag.Value.
func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// An options says what to run, and in what. Its zero value is of no use, see parse.
type options struct {
	kernel  string   // the folder with the unpacked package
	pack    list     // programs, files and folders besides the program itself
	qemu    list     // further arguments of QEMU
	memory  string   // as QEMU takes it
	program []string // with its arguments
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("vm", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: vm [flags] program [arguments]")
		flags.PrintDefaults()
	}
	flags.StringVar(&o.kernel, "kernel", "", "the folder of the unpacked package; empty: build/kernel beside go.mod")
	flags.Var(&o.pack, "pack", "a program, file or folder that is needed inside, with its libraries; may be given again")
	flags.Var(&o.qemu, "qemu", "a further argument of QEMU; may be given again")
	flags.StringVar(&o.memory, "memory", "2G", "the machine's memory")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.program = flags.Args(); len(o.program) == 0 {
		flags.Usage()
		return o, errors.New("no program")
	}
	return o, nil
}

// run runs the program of the arguments in a machine, and returns its exit code, or 2 if there is none.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	code := 2
	if err == nil {
		code, err = inMachine(ctx, o, stdout)
	}
	if err != nil {
		fmt.Fprintf(stderr, "vm: %v\n", err)
		return 2
	}
	return code
}

// inMachine packs all that the program needs, boots the machine and returns the program's exit code.
func inMachine(ctx context.Context, o options, stdout io.Writer) (code int, err error) {
	if o.kernel == "" {
		root, err := moduleRoot()
		if err != nil {
			return 0, err
		}
		o.kernel = filepath.Join(root, "build", "kernel")
	}
	k, err := findKernel(o.kernel)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "limeload-vm-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "initramfs")
	if err := pack(image, k, o); err != nil {
		return 0, fmt.Errorf("pack what the machine needs: %w", err)
	}
	return boot(ctx, dir, k.image, image, o, stdout)
}

// moduleRoot returns the folder with go.mod that the current folder is in.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			err = errors.New("no go.mod in the current folder or above it: name the kernel's folder by -kernel")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}
