package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/conf"
)

// A handed is a socket that a .socket unit would open.
type handed struct {
	name string // FileDescriptorName=
	open func(*testing.T) *os.File
}

// A filer is a listener that can return its socket as a file.
type filer interface {
	net.Listener
	File() (*os.File, error)
}

// listening opens a listening socket as ListenStream= does. In the network "tcp", ":0" accepts IPv4 and IPv6 clients.
func listening(network, address string) func(*testing.T) *os.File {
	return func(t *testing.T) *os.File {
		t.Helper()
		var plain net.ListenConfig
		plain.SetMultipathTCP(false) // Go's default is MPTCP, systemd's is TCP
		l, err := plain.Listen(t.Context(), network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.(filer).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
}

// protocolMPTCP is IPPROTO_MPTCP of linux/in.h.
const protocolMPTCP = 262

// unlike opens a socket that no listener can use.
func unlike(family, kind, protocol int) func(*testing.T) *os.File {
	return func(t *testing.T) *os.File {
		t.Helper()
		fd, err := syscall.Socket(family, kind|syscall.SOCK_CLOEXEC, protocol)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "socket")
		t.Cleanup(func() { f.Close() })
		return f
	}
}

// handOver moves files to consecutive descriptors, as an exec by systemd leaves them: blocking and inheritable. It
// returns the first one. takeSockets and the end of the test close them.
func handOver(t *testing.T, files []*os.File) int {
	t.Helper()
	const first = 700 // far above the open descriptors of the tests
	for i, f := range files {
		if err := errors.Join(syscall.Dup3(int(f.Fd()), first+i, 0), syscall.SetNonblock(first+i, false)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(first + i) })
	}
	return first
}

func isOpen(fd int) bool {
	_, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
	return errno == 0
}

func TestTakeSockets(t *testing.T) {
	v4 := listening("tcp4", "127.0.0.1:0")(t)
	v6 := listening("tcp6", "[::1]:0")(t)
	both := listening("tcp", ":0")(t)
	names := []string{"redis", "postgres", "redis", "dns"}
	first := handOver(t, []*os.File{v4, v6, v4, both})
	sockets, err := takeSockets(first, names)
	if err != nil {
		t.Fatal(err)
	}
	if len(sockets) != 3 {
		t.Fatalf("%d names, want 3: %v", len(sockets), sockets)
	}
	for name, of := range sockets { // before addressOf, which makes them non-blocking
		for _, fd := range of[0].fds {
			if flags := fcntl(t, fd, syscall.F_GETFD); flags&syscall.FD_CLOEXEC == 0 {
				t.Errorf("descriptor %d of %s would be inherited by checks", fd, name)
			}
			if flags := fcntl(t, fd, syscall.F_GETFL); flags&syscall.O_NONBLOCK == 0 {
				t.Errorf("descriptor %d of %s blocks", fd, name)
			}
		}
	}
	for name, want := range map[string]struct {
		file *os.File
		fds  []int
		dual bool
	}{"redis": {v4, []int{first, first + 2}, false}, "postgres": {v6, []int{first + 1}, false},
		"dns": {both, []int{first + 3}, true}} {
		if len(sockets[name]) != 1 {
			t.Fatalf("%s has the addresses of %v, want one", name, sockets[name])
		}
		s := sockets[name][0]
		if !slices.Equal(s.fds, want.fds) {
			t.Errorf("%s has descriptors %v, want %v", name, s.fds, want.fds)
		}
		if at := addressOf(t, want.file); s.address != at ||
			s.address.Addr().IsUnspecified() && s.dualStack != want.dual {
			t.Errorf("%s listens on %s (dual stack: %v), want %s", name, s.address, s.dualStack, at)
		}
	}
}

// TestTakeSocketsOfSeveralAddresses holds that sockets of one name may have several addresses, of one unit's
// ListenStream= lines, and that each goes to the address of the listener that it fits.
func TestTakeSocketsOfSeveralAddresses(t *testing.T) {
	v4 := listening("tcp4", "127.0.0.1:0")(t)
	v6 := listening("tcp6", "[::1]:0")(t)
	first := handOver(t, []*os.File{v4, v6, v4})
	sockets, err := takeSockets(first, []string{"db", "db", "db"})
	if err != nil {
		t.Fatal(err)
	}
	at4, at6 := addressOf(t, v4), addressOf(t, v6)
	config := func(addresses string) *conf.Config {
		cfg, err := conf.Parse("lb.toml", fmt.Appendf(nil, `
[listener.db]
address = [%s]
pool = "p"
[pool.p]
backends = [{ address = "127.0.0.1:1" }]
`, addresses))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	cfg := config(fmt.Sprintf("%q, %q, %q", "127.0.0.1:7", at6, at4))
	if err := checkInherited(cfg, sockets); err != nil {
		t.Error(err)
	}
	of, _ := assignSockets(&cfg.Listeners[0], sockets["db"])
	if len(of) != 2 || !slices.Equal(of[1].fds, []int{first + 1}) || !slices.Equal(of[2].fds, []int{first, first + 2}) {
		t.Errorf("assigned %v", of)
	}
	err = checkInherited(config(fmt.Sprintf("%q, %q", at4, "127.0.0.1:7")), sockets)
	if want := fmt.Sprintf("inherited socket %s, FileDescriptorName=db: listener.db.address is %q, %q; "+
		"needs a ListenStream= that fits", at6, at4, "127.0.0.1:7"); err == nil || err.Error() != want {
		t.Errorf("error\n%v, want\n%s", err, want)
	}
}

// addressOf returns where a listening socket listens.
func addressOf(t *testing.T, socket *os.File) netip.AddrPort {
	t.Helper()
	l, err := net.FileListener(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func fcntl(t *testing.T, fd, command int) int {
	t.Helper()
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), uintptr(command), 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return int(flags)
}

func TestTakeSocketsRefuses(t *testing.T) {
	one := listening("tcp4", "127.0.0.1:0")
	unix := func(t *testing.T) *os.File { return listening("unix", filepath.Join(t.TempDir(), "s"))(t) }
	noSocket := func(t *testing.T) *os.File {
		f, err := os.CreateTemp(t.TempDir(), "file")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	for name, test := range map[string]struct {
		handed []handed
		want   []string // one line each
	}{
		"datagrams": {[]handed{{"dns", unlike(syscall.AF_INET, syscall.SOCK_DGRAM, 0)}},
			[]string{"FileDescriptorName=dns: not TCP; needs ListenStream="}},
		"multipath TCP": {[]handed{{"redis", unlike(syscall.AF_INET, syscall.SOCK_STREAM, protocolMPTCP)}},
			[]string{"needs ListenStream= and no SocketProtocol="}},
		"not listening": {[]handed{{"redis", unlike(syscall.AF_INET6, syscall.SOCK_STREAM, 0)}},
			[]string{"FileDescriptorName=redis: not listening; needs Accept=no"}},
		"unix":   {[]handed{{"redis", unix}}, []string{"neither IPv4 nor IPv6; ListenStream= needs a port"}},
		"a file": {[]handed{{"redis", noSocket}}, []string{"getsockopt: socket operation on non-socket"}},
		"all at once": {[]handed{{"a", unix}, {"good", one}, {"b", noSocket}},
			[]string{"socket 700, FileDescriptorName=a", "socket 702, FileDescriptorName=b"}},
	} {
		t.Run(name, func(t *testing.T) {
			var files []*os.File
			var names []string
			for _, h := range test.handed {
				files, names = append(files, h.open(t)), append(names, h.name)
			}
			first := handOver(t, files)
			sockets, err := takeSockets(first, names)
			if err == nil || sockets != nil {
				t.Fatalf("got %v, %v", sockets, err)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(test.want) {
				t.Fatalf("%d mistakes, want %d: %v", len(lines), len(test.want), err)
			}
			for i, want := range test.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("mistake %q, want %q", lines[i], want)
				}
			}
			for i := range names {
				if isOpen(first + i) {
					t.Errorf("descriptor %d is still open", first+i)
				}
			}
		})
	}
}

func TestCheckInherited(t *testing.T) {
	cfg, err := conf.Parse("lb.toml", []byte(`
[listener.v4]
address = "127.0.0.1:6379"
pool = "p"
[listener.v6]
address = "[::1]:6379"
pool = "p"
[listener.all]
address = ":5432"
pool = "p"
[listener.all6]
address = "[::]:5433"
pool = "p"
[listener.all4]
address = "0.0.0.0:5434"
pool = "p"
[pool.p]
backends = [{ address = "127.0.0.1:1" }]
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, address string
		dual          bool
		want          string // of the error; "" is none
	}{
		{"v4", "127.0.0.1:6379", false, ""},
		{"v4", "127.0.0.1:6380", false,
			`inherited socket 127.0.0.1:6380, FileDescriptorName=v4: listener.v4.address is "127.0.0.1:6379"; needs a ListenStream= that fits`},
		{"v4", "0.0.0.0:6379", false, "fits"},
		{"v4", "[::ffff:127.0.0.1]:6379", true, "fits"},
		{"v6", "[::1]:6379", true, ""}, // systemd leaves IPV6_V6ONLY off, which does not matter for a single address
		{"v6", "[::1]:6379", false, ""},
		{"all", "[::]:5432", true, ""},
		{"all", "[::]:5432", false, "[::]:5432 (IPv6 alone), "},
		{"all", "0.0.0.0:5432", false, ""}, // no IPv6 in the kernel
		{"all", "127.0.0.1:5432", false, "fits"},
		{"all6", "[::]:5433", false, ""},
		{"all6", "[::]:5433", true, "[::]:5433 (IPv6 and IPv4), "},
		{"all6", "0.0.0.0:5433", false, "fits"},
		{"all4", "0.0.0.0:5434", false, ""},
		{"all4", "[::]:5434", true, "fits"},
		{"limeload-l4.socket", "127.0.0.1:6379", false,
			`FileDescriptorName=limeload-l4.socket: no listener has that name; needs one of "v4", "v6", "all", "all6", "all4"`},
	} {
		t.Run(test.name+" on "+test.address, func(t *testing.T) {
			sockets := map[string][]inheritedSocket{
				test.name: {{address: netip.MustParseAddrPort(test.address), dualStack: test.dual}}}
			err := checkInherited(cfg, sockets)
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
}

func TestLISTENVariables(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for _, test := range []struct {
		name            string
		pid, fds, names string
		want            string // of the error; "" is none
	}{
		{"none", "", "", "", ""},
		{"another process's", "1", "2", "a:b", ""},
		{"no number", self, "two", "", `LISTEN_FDS: found "two"; needs the number of sockets handed over`},
		{"negative", self, "-1", "", `LISTEN_FDS: found "-1"`},
		{"too many", self, "99999999", "", `LISTEN_FDS: found "99999999"`},
		{"too few names", self, "2", "redis",
			`LISTEN_FDNAMES: found "redis"; needs a name for each of the 2 sockets handed over`},
		{"zero", self, "0", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("LISTEN_PID", test.pid)
			t.Setenv("LISTEN_FDS", test.fds)
			t.Setenv("LISTEN_FDNAMES", test.names)
			sockets, err := inheritedSockets()
			if len(sockets) > 0 {
				t.Errorf("got %v", sockets)
			}
			if test.want == "" && err != nil ||
				test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
				if left, set := os.LookupEnv(name); set {
					t.Errorf("%s=%s is left in the environment", name, left)
				}
			}
		})
	}
}

// TestInheritedSockets starts this test as systemd starts a service: with descriptors from 3 on, and the variables with
// its pid.
func TestInheritedSockets(t *testing.T) {
	const variable = "LIMELOAD_TEST_ACTIVATED"
	if want := os.Getenv(variable); want != "" { // this is the service
		sockets, err := inheritedSockets()
		if err != nil {
			t.Fatal(err)
		}
		if s := sockets["redis"]; len(s) != 1 || s[0].address.String() != want ||
			!slices.Equal(s[0].fds, []int{firstInherited}) {
			t.Errorf("inherited %v, want redis on %s", sockets, want)
		}
		return
	}
	socket := listening("tcp4", "127.0.0.1:0")(t)
	// exec keeps the pid
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run '^TestInheritedSockets$'`, os.Args[0])
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=redis", variable+"="+addressOf(t, socket).String())
	cmd.ExtraFiles = []*os.File{socket}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v: %s", err, out)
	}
}
