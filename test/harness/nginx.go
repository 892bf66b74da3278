package harness

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// An Nginx is Debian's nginx with one listener of its stream module, to compare with the balancer.
type Nginx struct {
	*Process
	Address string
}

// StartNginxUDP starts nginx in front of a UDP backend, with a process for each loop that the balancer would have.
func StartNginxUDP(t testing.TB, backend string, processes int) *Nginx {
	t.Helper()
	address := FreeAddress(t)
	n := startNginx(t, address, fmt.Sprintf(nginxUDP, backend, address), processes)
	Eventually(t, "nginx listens", func() error {
		c, err := net.ListenPacket("udp", address)
		if err != nil {
			return nil // the address is in use: nginx has it
		}
		c.Close()
		return fmt.Errorf("the address is free\n%s", n.Stderr())
	})
	return n
}

// StartNginxPreread starts nginx with a TCP listener that chooses the backend by the server name in the ClientHello.
// names are the lines of its map.
func StartNginxPreread(t testing.TB, names string) *Nginx {
	t.Helper()
	address := FreeAddress(t)
	n := startNginx(t, address, fmt.Sprintf(nginxPreread, names, address), 1)
	Eventually(t, "nginx listens", func() error {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, n.Stderr())
		}
		return c.Close()
	})
	return n
}

// startNginx starts nginx with these lines in its block "stream".
func startNginx(t testing.TB, address, stream string, processes int) *Nginx {
	t.Helper()
	dir, master := t.TempDir(), "on"
	if processes == 1 {
		master = "off" // a process that is killed must leave no other one behind
	}
	file := filepath.Join(dir, "nginx.conf")
	text := fmt.Appendf(nil, nginxConf, streamModule(t), dir, master, processes, stream)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return &Nginx{Process: Start(t,
		Command{Path: Tool(t, "nginx"), Args: []string{"-p", dir, "-e", "stderr", "-c", file}}), Address: address}
}

// nginxConf is nginx's configuration as in test/bench: the balancer's receive buffer and flow timeout, a listening
// socket for each process, and no log.
const nginxConf = `load_module %s;
daemon off;
pid %s/nginx.pid;
master_process %s;
worker_processes %d;
worker_rlimit_nofile 20000;
error_log stderr warn;
events { worker_connections 4096; }
stream {
	access_log off;
	%s
}
`

const nginxUDP = `upstream all { server %s; }
	server {
		listen %s udp reuseport rcvbuf=4m;
		proxy_timeout 30s;
		proxy_pass all;
	}`

const nginxPreread = `map $ssl_preread_server_name $backend { hostnames; %s }
	server {
		listen %s;
		ssl_preread on;
		proxy_pass $backend;
	}`

// End ends nginx and returns the CPU time that all of its processes have used.
func (n *Nginx) End(t testing.TB) time.Duration {
	t.Helper()
	n.Signal(t, syscall.SIGTERM)
	n.Wait(t)
	// wait4(2) counts the children it has waited for
	return n.cmd.ProcessState.UserTime() + n.cmd.ProcessState.SystemTime()
}
