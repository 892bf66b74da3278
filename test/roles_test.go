package test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// perSource is how many connections the clients role opens from one source address: few enough for the ephemeral ports
// of one address, whatever else runs.
const perSource = 2000

// clientsRole opens args[1] sessions to args[0], from as many addresses of 127.0.0.0/8 as needed, and gets an answer on
// each: "ready". For each line on in it gets another answer on all of them: "ok".
func clientsRole(args []string, in io.Reader, out io.Writer) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("number of clients: %w", err)
	}
	conns := make([]net.Conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	err = inParallel(n, func(i int) (err error) {
		d := net.Dialer{
			Timeout:   harness.Patience,
			LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i/perSource))},
		}
		if conns[i], err = d.Dial("tcp", args[0]); err != nil {
			return err
		}
		return harness.PingPong(conns[i], 1, 1)
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "ready")

	for lines := bufio.NewScanner(in); lines.Scan(); {
		err := inParallel(n, func(i int) error {
			if err := conns[i].SetDeadline(time.Now().Add(harness.Patience)); err != nil {
				return err
			}
			return harness.PingPong(conns[i], 1, 1)
		})
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "ok")
	}
	return nil
}

// inParallel calls do for 0 to n-1, 32 at a time, and joins the errors.
func inParallel(n int, do func(i int) error) error {
	errs := make([]error, n)
	var running sync.WaitGroup
	for lane := range 32 {
		running.Go(func() {
			for i := lane; i < n; i += 32 {
				errs[i] = do(i)
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// echoRole runs an echoing backend with its own descriptors: it prints its address and serves until in ends.
func echoRole(_ []string, in io.Reader, out io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "listening on", l.Addr())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				harness.Echo(context.Background(), c.(*net.TCPConn))
			})
		}
	})
	_, err = io.Copy(io.Discard, in)
	l.Close()
	serving.Wait() // the clients end first
	return err
}

// remoteRole runs the other end of a network, for netns_linux_test.go. It answers each command on in with a line: "dial
// ADDRESS" opens a session and gets an answer on it, "listen ADDRESS" starts an echoing backend. Both stay open until
// in ends.
func remoteRole(_ []string, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		command, address, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case "dial":
			c, err := net.DialTimeout("tcp", address, harness.Patience)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := harness.PingPong(c, 1, 1); err != nil {
				return err
			}
			fmt.Fprintln(out, "connected from", c.LocalAddr())
		case "listen":
			l, err := net.Listen("tcp", address)
			if err != nil {
				return err
			}
			defer l.Close()
			serving.Go(func() {
				if c, err := l.Accept(); err == nil {
					defer c.Close()
					serving.Go(func() { harness.Echo(ctx, c.(*net.TCPConn)) })
					<-ctx.Done()
				}
			})
			fmt.Fprintln(out, "listening on", l.Addr())
		default:
			return fmt.Errorf("unknown command %q", command)
		}
	}
	return nil
}
