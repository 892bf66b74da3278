package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"
)

const (
	// readyTimeout is how long a balancer may take from its start to its first answer.
	readyTimeout = 10 * time.Second

	// Ports of balancers are from firstPort to lastPort, below the kernel's range of source ports (32768 and up), so
	// that no connection of the bench can take a port between its choice and the balancer's bind.
	firstPort, lastPort = 21000, 32000
)

// A portFinder returns loopback ports that are free for TCP and UDP, each once. Its zero value is ready for use; it is
// for one goroutine.
type portFinder struct{ next uint16 }

func (f *portFinder) find() (netip.AddrPort, error) {
	for range lastPort - firstPort {
		switch {
		case f.next == 0: // not where another run of the bench on this machine has begun
			f.next = firstPort + uint16(os.Getpid()*97%(lastPort-firstPort))
		case f.next >= lastPort:
			f.next = firstPort
		}
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), f.next)
		f.next++
		l, err := net.Listen("tcp4", a.String())
		if err != nil {
			continue
		}
		datagrams, err := net.ListenPacket("udp4", a.String())
		if err != nil {
			l.Close()
			continue
		}
		return a, errors.Join(l.Close(), datagrams.Close())
	}
	return netip.AddrPort{}, fmt.Errorf("no free port on 127.0.0.1 from %d to %d", firstPort, lastPort)
}

// anyProcesses says that it does not matter how many processes there are.
const anyProcesses = 0

// waitReady waits until all processes of a balancer have started and a request through it is answered, and returns the
// processes.
func waitReady(ctx context.Context, p *process, t traffic, listen netip.AddrPort, processes int) ([]int, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := t.ask(ctx, listen)
		if err == nil {
			pids, familyErr := family(p.pid())
			if familyErr != nil {
				return nil, familyErr
			}
			if len(pids) == processes || processes == anyProcesses {
				return pids, nil
			}
			err = fmt.Errorf("has %d processes, want %d", len(pids), processes)
		}
		if err := p.running(); err != nil {
			return nil, err
		}
		if pauseErr := pause(ctx, 20*time.Millisecond); pauseErr != nil {
			if errors.Is(pauseErr, context.DeadlineExceeded) {
				return nil, p.failure(fmt.Errorf("not ready after %s: %w", readyTimeout, err))
			}
			return nil, pauseErr
		}
	}
}

// waitEtcd waits until an etcd says that it is healthy.
func waitEtcd(ctx context.Context, p *process, url string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := getOK(ctx, url)
		if err == nil {
			return nil
		}
		if err := p.running(); err != nil {
			return err
		}
		if pauseErr := pause(ctx, 20*time.Millisecond); pauseErr != nil {
			return p.failure(fmt.Errorf("not ready after %s: %w", readyTimeout, errors.Join(pauseErr, err)))
		}
	}
}

// getOK asks for a page, whose status must be 200.
func getOK(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return nil
}

// ask sends one request by TCP to addr and waits for its answer.
func ask(ctx context.Context, addr netip.AddrPort) error {
	conn, err := connect(ctx, new(net.Dialer), addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	return askOn(conn)
}

// connect opens a connection by TCP to addr, which has the deadline of ctx.
func connect(ctx context.Context, by interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}, addr netip.AddrPort) (net.Conn, error) {
	conn, err := by.DialContext(ctx, "tcp4", addr.String())
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// askTLS does the same over TLS.
func askTLS(ctx context.Context, addr netip.AddrPort) error {
	conn, err := connect(ctx, &tls.Dialer{Config: tlsConfig(tlsJob{}, noSessions{})}, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	return askOn(conn)
}

// askOn sends one request on conn and waits for its answer.
func askOn(conn net.Conn) error {
	const sequence = 1
	var head [requestBytes]byte
	request{sequence: sequence, answer: answerBytes}.put(&head)
	if _, err := conn.Write(head[:]); err != nil {
		return err
	}
	var answer [answerBytes]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if got := parseAnswer(&answer); got != sequence {
		return fmt.Errorf("answer %d to request %d", got, sequence)
	}
	return nil
}
