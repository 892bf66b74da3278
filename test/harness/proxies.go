package harness

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// StartHAProxy starts Debian's HAProxy with these sections, and waits until it listens at the addresses. Connections
// without an answer end after Patience.
func StartHAProxy(t testing.TB, sections string, addresses ...string) *Process {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "haproxy.cfg")
	seconds := int(Patience.Seconds())
	text := fmt.Sprintf(haproxyConf, seconds, seconds, seconds) + sections
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := Start(t, Command{Path: Tool(t, "haproxy"), Args: []string{"-db", "-f", file}, Dir: dir})
	p.awaitListening(t, addresses)
	return p
}

// haproxyConf is what HAProxy does not start without.
const haproxyConf = `global
  nbthread 1
defaults
  timeout connect %ds
  timeout client %ds
  timeout server %ds
`

// StartNginxTCP starts Debian's nginx with these servers in its stream module, and waits until it listens at the
// addresses.
func StartNginxTCP(t testing.TB, servers string, addresses ...string) *Process {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "nginx.conf")
	text := strings.NewReplacer("MODULE", streamModule(t), "DIR", dir, "SERVERS", servers).Replace(nginxTCPConf)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := Start(t, Command{Path: Tool(t, "nginx"), Args: []string{"-p", dir, "-e", "stderr", "-c", file}})
	p.awaitListening(t, addresses)
	return p
}

const nginxTCPConf = `load_module MODULE;
daemon off;
master_process off;
pid DIR/nginx.pid;
error_log stderr warn;
events { worker_connections 1024; }
stream {
	access_log off;
	SERVERS
}
`

// streamModule returns the path of nginx's stream module.
func streamModule(t testing.TB) string {
	t.Helper()
	modules, err := filepath.Glob("/usr/lib*/nginx/modules/ngx_stream_module.so")
	if err != nil || len(modules) == 0 {
		t.Fatal("there is no stream module of nginx: `make tools` installs what the tests need")
	}
	return modules[0]
}

// awaitListening waits until a process listens at the addresses.
func (p *Process) awaitListening(t testing.TB, addresses []string) {
	t.Helper()
	for _, address := range addresses {
		Eventually(t, address+" is listened at", func() error {
			c, err := net.Dial("tcp", address)
			if err != nil {
				return fmt.Errorf("%w\n%s", err, p.Stderr())
			}
			return c.Close()
		})
	}
}
