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

// An Nginx is Debian's nginx with one UDP listener of its stream module, to measure beside the balancer.
type Nginx struct {
	*Process
	Address string
}

// StartNginxUDP starts nginx in front of a UDP backend, with a process for each loop that the balancer would have.
func StartNginxUDP(t testing.TB, backend string, processes int) *Nginx {
	t.Helper()
	dir := t.TempDir()
	file, address := filepath.Join(dir, "nginx.conf"), FreeAddress(t)
	if err := os.WriteFile(file, fmt.Appendf(nil, nginxConf, streamModule(t), dir, processes, backend, address),
		0o600); err != nil {
		t.Fatal(err)
	}
	n := &Nginx{Process: Start(t,
		Command{Path: Tool(t, "nginx"), Args: []string{"-p", dir, "-e", "stderr", "-c", file}}), Address: address}
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

// nginxConf is nginx's configuration as in test/bench: the balancer's receive buffer and flow timeout, a listening
// socket for each process, and no log.
const nginxConf = `load_module %s;
daemon off;
pid %s/nginx.pid;
worker_processes %d;
worker_rlimit_nofile 20000;
error_log stderr warn;
events { worker_connections 4096; }
stream {
	access_log off;
	upstream all { server %s; }
	server {
		listen %s udp reuseport rcvbuf=4m;
		proxy_timeout 30s;
		proxy_pass all;
	}
}
`

// End ends nginx and returns the CPU time that all of its processes have used.
func (n *Nginx) End(t testing.TB) time.Duration {
	t.Helper()
	n.Signal(t, syscall.SIGTERM)
	n.Wait(t)
	// wait4(2) counts the children it has waited for
	return n.cmd.ProcessState.UserTime() + n.cmd.ProcessState.SystemTime()
}
