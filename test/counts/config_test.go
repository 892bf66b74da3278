package counts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// Each program has one thread that does the work, so that no two threads share it differently from run to run, and the
// settings of test/bench. In configurations, words in capitals stand for what world.fill puts there.

// descriptors is how many each program may have.
const descriptors = 1024

const (
	quiet     = "level = \"info\"\naccess = \"none\"\n"
	accessLog = "level = \"info\"\naccess = \"all\"\n"
)

// limeloadOf is limeload-l4 with further lines for its listener and its pool.
func limeloadOf(protocol, listener, pool string) string {
	return fmt.Sprintf("[global]\nworkers = 1\n\n[log]\n%s\n[listener.main]\naddress = \"LISTEN\"\npool = \"all\"\n"+
		"protocol = %q\n%s\n[pool.all]\nbackends = [{ address = \"BACKEND\" }]\n%s", quiet, protocol, listener, pool)
}

// only is limeload-l4 alone.
func only(listener string) map[string]string {
	return map[string]string{limeload: limeloadOf("tcp", listener, "")}
}

// streams has further lines for the listener of each program.
func streams(limeloadLines, haproxyLines, nginxLines string) map[string]string {
	outer, inner := "", nginxLines
	if nginxLines == nginxRefuse {
		outer = "limit_conn_zone $binary_remote_addr zone=clients:10m; limit_conn_log_level info;"
	}
	return map[string]string{
		limeload: limeloadOf("tcp", limeloadLines, ""),
		haproxy:  haproxyOf("LISTEN", haproxyLines, ""),
		nginx:    nginxOf("LISTEN reuseport", outer, inner),
	}
}

// haproxyRefuse and nginxRefuse refuse a client's second connection.
const (
	haproxyRefuse = "stick-table type ip size 1m expire 10s store conn_cur\n" +
		"tcp-request connection track-sc0 src\ntcp-request connection reject if { sc0_conn_cur gt 1 }\n"
	nginxRefuse = "limit_conn clients 1;"
)

// haproxySplice makes HAProxy splice. It then splices requests of a few bytes, too, with twice as many calls, so only
// bulk has it here.
const haproxySplice = "option splice-request\noption splice-response\n"

// haproxyOf is HAProxy with the arguments of bind and server, and further lines.
func haproxyOf(bind, lines, server string) string {
	return fmt.Sprintf(`global
nbthread 1
maxconn 200
maxpipes 16
tune.pipesize 262144
defaults
mode tcp
no log
timeout connect 5s
timeout client 1h
timeout server 1h
listen main
bind %s
%sserver b1 BACKEND %s
`, bind, lines, server)
}

// nginxOf is nginx with the arguments of listen, and further directives beside the server and in it.
func nginxOf(listen, outer, inner string) string {
	return fmt.Sprintf(`load_module MODULE;
daemon off;
master_process off;
pid DIR/nginx.pid;
error_log stderr warn;
events { worker_connections 500; }
stream {
	access_log off;
	%s
	server {
		listen %s;
		tcp_nodelay on;
		proxy_half_close on;
		proxy_pass BACKEND;
		%s
	}
}
`, outer, listen, inner)
}

// command returns what starts a program with a configuration.
func command(t testing.TB, program, config string) harness.Command {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "config")
	c := harness.Command{Descriptors: descriptors}
	switch program {
	case limeload:
		c.Path, c.Args = harness.Binary(t, true), []string{"--config", file}
		config += "\n[admin]\naddress = \"\"\n"
	case haproxy:
		c.Path, c.Args = harness.Tool(t, program), []string{"-db", "-f", file}
	case nginx:
		modules, err := filepath.Glob("/usr/lib*/nginx/modules/ngx_stream_module.so")
		check(t, err)
		if len(modules) == 0 {
			t.Fatal("nginx lacks its stream module: `make tools` installs what the tests need")
		}
		config = strings.NewReplacer("MODULE", modules[0], "DIR", dir).Replace(config)
		c.Path, c.Args = harness.Tool(t, program), []string{"-p", dir, "-e", "stderr", "-c", file}
	}
	check(t, os.WriteFile(file, []byte(config), 0o600))
	return c
}
