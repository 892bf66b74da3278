package harness

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A Host is a network namespace, which stands for a machine. Processes run in it with Command.On, and the test itself
// dials and listens in it with Dial and Serve. It shares the machine's files. Creating one needs a network namespace of
// one's own, as in
//
//	unshare --user --map-root-user --net go test -tags netns -run Netns ./test
//
// Its methods may be called from any goroutine, except those that take a testing.TB. The zero value is of no use, see
// NewHost.
type Host struct {
	Name string

	keeper *Process // keeps the namespace
}

// NewHost makes a host with loopback and nothing else. It ends with the test.
func NewHost(t testing.TB, name string) *Host {
	t.Helper()
	h := &Host{Name: name, keeper: Start(t, Command{
		Path: Tool(t, "unshare"), Args: []string{"--net", "--", "cat"}, Stdin: true, // cat is executed in place: the pid stays
	})}
	Eventually(t, name+" has a namespace of its own", func() error {
		mine, err := os.Readlink("/proc/thread-self/ns/net") // the main thread may be elsewhere for ever, see do
		if err != nil {
			return err
		}
		its, err := os.Readlink(h.namespace())
		if err != nil {
			return fmt.Errorf("%w: the test needs a network namespace of its own, see Host", err)
		}
		if its == mine {
			return errors.New("it is still in this one's")
		}
		return nil
	})
	h.IP(t, "link", "set", "lo", "up")
	return h
}

func (h *Host) namespace() string { return fmt.Sprintf("/proc/%d/ns/net", h.keeper.PID()) }

// enter returns the command that runs path in the host.
func (h *Host) enter(path string, args []string) (string, []string, error) {
	nsenter, err := findTool("nsenter")
	enter := []string{"--target", strconv.Itoa(h.keeper.PID()), "--net", "--", path}
	return nsenter, append(enter, args...), err
}

// IP runs the command ip in the host.
func (h *Host) IP(t testing.TB, args ...string) string {
	t.Helper()
	return MustRun(t, Command{Path: Tool(t, "ip"), Args: args, On: h})
}

// Shell runs a command line in the host, and returns its output.
func (h *Host) Shell(t testing.TB, line string) string {
	t.Helper()
	return MustRun(t, Command{Path: "/bin/sh", Args: []string{"-c", line}, On: h})
}

// Set sets a setting of the kernel, such as net.ipv4.ip_forward.
func (h *Host) Set(t testing.TB, name, value string) {
	t.Helper()
	err := h.Do(func() error {
		return os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0)
	})
	if err != nil {
		t.Fatalf("set %s on %s: %v", name, h.Name, err)
	}
}

// Do calls f on a thread in the host's namespace: sockets that f opens belong to the host, and work everywhere then. f
// must not start processes.
func (h *Host) Do(f func() error) error {
	// Other goroutines get no part in it: Go starts no thread from a locked one. The thread must not end with its
	// goroutine, which would kill the processes that it has started before (see Start).
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(os.NewSyscallError("setns", err)) // a thread astray
		}
		runtime.UnlockOSThread()
	}()
	namespace, err := os.Open(h.namespace())
	if err != nil {
		return err
	}
	defer namespace.Close()
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("setns", err)
	}
	return f()
}

// Addresses returns the addresses of a device, with the lengths of their prefixes.
func (h *Host) Addresses(device string) (all []string, err error) {
	err = h.Do(func() error {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		addresses, err := i.Addrs()
		for _, a := range addresses {
			all = append(all, a.String())
		}
		return err
	})
	return all, err
}

// Dial connects from the host to a TCP address. from is the local address, or nil.
func (h *Host) Dial(from *net.TCPAddr, address string) (*net.TCPConn, error) {
	var c *net.TCPConn
	err := h.Do(func() error {
		d := net.Dialer{Timeout: Patience}
		if from != nil {
			d.LocalAddr = from
		}
		conn, err := d.Dial("tcp", address)
		if err == nil {
			c = conn.(*net.TCPConn)
		}
		return err
	})
	return c, err
}

// Serve starts a backend in the host. It is closed at the end of the test.
func (h *Host) Serve(t testing.TB, address string, handle Handler) *Backend {
	t.Helper()
	var l net.Listener
	err := h.Do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		t.Fatalf("listen on %s: %v", h.Name, err)
	}
	b := newBackend(l.(*net.TCPListener), handle)
	t.Cleanup(b.Close)
	b.serving.Go(b.accept)
	return b
}

// ServeUDP starts a UDP server in the host. It is closed at the end of the test.
func (h *Host) ServeUDP(t testing.TB, address string, handle DatagramHandler) *UDPBackend {
	t.Helper()
	var c net.PacketConn
	err := h.Do(func() (err error) {
		c, err = net.ListenPacket("udp", address)
		return err
	})
	if err != nil {
		t.Fatalf("listen on %s: %v", h.Name, err)
	}
	return startUDP(t, c.(*net.UDPConn), handle)
}

// A Network is a switch with cables to hosts.
type Network struct {
	bridge *Host
	ports  map[*Host]string
}

// NewNetwork makes a network. It ends with the test.
func NewNetwork(t testing.TB, name string) *Network {
	t.Helper()
	n := &Network{bridge: NewHost(t, name), ports: map[*Host]string{}}
	n.bridge.IP(t, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
	n.bridge.IP(t, "link", "set", "bridge", "up")
	return n
}

// Join connects a host to the network: device is the name there, addresses have the lengths of their prefixes. A host
// has one cable to a network.
func (n *Network) Join(t testing.TB, h *Host, device string, addresses ...string) {
	t.Helper()
	port := fmt.Sprintf("port%d", len(n.ports)+1)
	n.ports[h] = port
	n.bridge.IP(t, "link", "add", port, "type", "veth", "peer", "name", device, "netns", strconv.Itoa(h.keeper.PID()))
	n.bridge.IP(t, "link", "set", port, "master", "bridge", "up")
	for _, address := range addresses {
		if strings.Contains(address, ":") {
			// otherwise the address is not usable for a second, while the host looks for another one that has it
			h.IP(t, "address", "add", address, "dev", device, "nodad")
		} else {
			h.IP(t, "address", "add", address, "dev", device)
		}
	}
	h.IP(t, "link", "set", device, "up")
}

// Cut drops all packets between a host and the network from now on, silently for the host: its own end of the cable
// stays up.
func (n *Network) Cut(t testing.TB, h *Host) {
	t.Helper()
	n.bridge.IP(t, "link", "set", n.ports[h], "nomaster")
}

// Mend undoes Cut.
func (n *Network) Mend(t testing.TB, h *Host) {
	t.Helper()
	n.bridge.IP(t, "link", "set", n.ports[h], "master", "bridge")
}
