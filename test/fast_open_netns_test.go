//go:build netns

package test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/limeload/limeload-l4/test/harness"
)

// synDataAcked is the bit of tcp_info's options that the data of the SYN was taken (TCPI_OPT_SYN_DATA of linux/tcp.h).
const synDataAcked = 32

// TestNetnsFastOpen has a client send its first request with the SYN: served if the listener wants it and the kernel
// allows it, and otherwise with a normal handshake, of which check, plan and status warn.
func TestNetnsFastOpen(t *testing.T) {
	ownNamespace(t)
	const file = "/proc/sys/net/ipv4/tcp_fastopen"
	old, err := os.ReadFile(file)
	check(t, err)
	t.Cleanup(func() { check(t, os.WriteFile(file, old, 0)) })
	backend := harness.Serve(t, harness.Echo)
	w := world{
		Backends: []string{backend.Address()}, Listen: harness.FreeAddress(t), Listener: []string{"fast_open = true"},
	}
	check(t, os.WriteFile(file, []byte("1"), 0))
	b := w.start(t)
	const warning = "listener.main.fast_open: net.ipv4.tcp_fastopen is 1, which does not allow it"
	warned := func() bool {
		out, _, _ := b.Command(t, "status")
		plan, _, _ := b.Command(t, "plan")
		checked, _, _ := b.Command(t, "check", "--config", b.File())
		warns := strings.Contains(out, warning)
		if strings.Contains(plan, warning) != warns || strings.Contains(checked, warning) != warns {
			t.Errorf("status, plan and check warn differently: %s%s%s", out, plan, checked)
		}
		return warns
	}
	fast := func() bool {
		askFast(t, b.Address(t, "main")) // for the cookie
		return askFast(t, b.Address(t, "main"))
	}
	if !warned() || fast() {
		t.Error("the kernel does not allow it: there is no warning, or it works")
	}
	check(t, os.WriteFile(file, []byte("3"), 0))
	if warned() || !fast() {
		t.Error("the kernel allows it: there is a warning, or it does not work")
	}
	w.Listener = nil
	b.Reload(t, w.config(t))
	if fast() {
		t.Error("it works on a listener that is without it since a reload")
	}
	w.Listener = []string{"fast_open = true"}
	b.Reload(t, w.config(t))
	if !fast() {
		t.Error("it does not work on a listener that has it since a reload")
	}
}

// askFast sends a byte with the SYN, waits for its echo, and reports whether the SYN's data was taken.
func askFast(t *testing.T, address string) bool {
	t.Helper()
	at := netip.MustParseAddrPort(address)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(fd)
	check(t, unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN,
		&unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}))
	check(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}))
	answer := make([]byte, 10)
	n, err := unix.Read(fd, answer)
	check(t, err)
	if string(answer[:n]) != "x" {
		check(t, fmt.Errorf("the answer is %q", answer[:n]))
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	check(t, err)
	return info.Options&synDataAcked != 0
}
