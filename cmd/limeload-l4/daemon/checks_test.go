package daemon

import (
	"testing"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/healthcheck/probe"
)

// TestChecksSendProxy holds in which pools checks begin with a PROXY header: where send_proxy is set and clients come
// by TCP, or nobody comes yet.
func TestChecksSendProxy(t *testing.T) {
	tcp, udp := "[listener.t]\naddress = \":7001\"\npool = \"p\"\n",
		"[listener.u]\naddress = \":7002\"\npool = \"p\"\nprotocol = \"udp\"\n"
	other := "[listener.o]\naddress = \":7003\"\npool = \"other\"\n[pool.other]\nbackends = [\"10.0.0.2:1\"]\n"
	for _, test := range []struct {
		listeners, version string
		want               int
	}{
		{tcp, "", 0}, {tcp, "v1", 1}, {tcp, "v2", 2}, {udp, "v2", 0}, {tcp + udp, "v2", 2}, {other, "v2", 2},
	} {
		for _, kind := range []string{
			`type = "tcp"`, "type = \"all_of\"\nchecks = [{ type = \"tcp\" }, { type = \"icmp\" }]",
		} {
			cfg, err := conf.Parse("lb.toml", []byte(test.listeners+"[pool.p]\nbackends = [\"10.0.0.1:1\"]\nsend_proxy = \""+
				test.version+"\"\n[pool.p.health]\n"+kind+"\n"))
			if err != nil {
				t.Fatal(err)
			}
			p := &cfg.Pools[len(cfg.Pools)-1]
			check, err := buildCheck(cfg, p, newFiles(cfg.File), nil)
			if err != nil {
				t.Fatal(err)
			}
			got := 0
			if wrapped, is := check.checker.(healthcheck.Shared).Checker.(probe.Proxied); is {
				got = wrapped.Version
			}
			if got != test.want || check.proxy != test.want {
				t.Errorf("%q with %q: version %d and %d, want %d", test.version, test.listeners, got, check.proxy, test.want)
			}
		}
	}
}
