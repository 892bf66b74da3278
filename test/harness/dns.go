package harness

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// DNSZone is the zone of a DNS server.
const DNSZone = "lb.test."

// A DNS is an authoritative server (NSD) of the zone DNSZone. It answers by UDP and TCP, has no rate limit and, unlike
// a resolver, no cache. Only the test's own goroutine may call its methods.
type DNS struct {
	*Process
	Address string // for UDP and TCP

	// TTL is the TTL in seconds of records without their own and of negative answers, from the next SetZone on.
	TTL int

	conf, zone string // files
	serial     uint32 // of the zone that was set last
}

// StartDNS starts a server on a free port, with a zone without records, and waits until it answers.
func StartDNS(t testing.TB) *DNS {
	t.Helper()
	dir := t.TempDir()
	address := FreeAddress(t)
	d := &DNS{Address: address, conf: filepath.Join(dir, "nsd.conf"), zone: filepath.Join(dir, "zone")}
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		err = os.WriteFile(d.conf, fmt.Appendf(nil, nsdConf, host, port, dir, DNSZone, d.zone), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.write(t, "")
	d.start(t)
	return d
}

// nsdConf runs the server as the invoking user, without a control socket, and with all of its files in one folder.
const nsdConf = `server:
	ip-address: %[1]s@%[2]s
	server-count: 1
	username: ""
	chroot: ""
	zonesdir: "%[3]s"
	database: ""
	pidfile: ""
	zonelistfile: "%[3]s/zone.list"
	xfrdfile: ""
	xfrdir: "%[3]s"
	rrl-ratelimit: 0
	verbosity: 1
remote-control:
	control-enable: no
zone:
	name: "%[4]s"
	zonefile: "%[5]s"
	provide-xfr: 127.0.0.1 NOKEY
`

// SetZone replaces the zone's records by those given, in the form of a zone file with names relative to the zone, and
// waits until only they are served.
func (d *DNS) SetZone(t testing.TB, records string) {
	t.Helper()
	d.write(t, records)
	d.Signal(t, syscall.SIGHUP)
	d.waitServed(t)
}

// Restart starts the server again, on the same port and with the same zone, after Stop or Kill.
func (d *DNS) Restart(t testing.TB) {
	t.Helper()
	d.start(t)
}

// Stop ends the server in an orderly way.
func (d *DNS) Stop(t testing.TB) {
	t.Helper()
	d.Signal(t, syscall.SIGTERM)
	d.Wait(t)
	d.waitProcesses(t, "", 0)
}

// Kill ends the server and its children at once, as a crash would.
func (d *DNS) Kill(t testing.TB) {
	t.Helper()
	d.Process.Kill(t)
	d.waitProcesses(t, "", 0) // its children notice its end and end too
}

// Freeze stops the server and its children with SIGSTOP: it receives questions and answers none. The end of the test
// thaws it.
func (d *DNS) Freeze(t testing.TB) {
	t.Helper()
	d.signalAll(t, syscall.SIGSTOP)
	t.Cleanup(func() { d.Thaw(t) })
}

// Thaw continues a frozen server. It has no effect on a running one.
func (d *DNS) Thaw(t testing.TB) {
	t.Helper()
	d.signalAll(t, syscall.SIGCONT)
}

func (d *DNS) signalAll(t testing.TB, s syscall.Signal) {
	t.Helper()
	all, err := d.processes("")
	if err != nil {
		t.Fatal(err)
	}
	for pid := range all {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatalf("signal %v to process %d of the server: %v", s, pid, err)
		}
	}
}

func (d *DNS) start(t testing.TB) {
	t.Helper()
	p := Start(t, Command{Path: Tool(t, "nsd"), Args: []string{"-d", "-c", d.conf}})
	t.Cleanup(func() { // SIGTERM, so that its children remove their files
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		p.Wait(t)
		d.waitProcesses(t, "", 0)
	})
	d.Process = p
	d.waitServed(t)
}

// write writes the zone file under another name and then renames it, since the server may be reading the old one.
func (d *DNS) write(t testing.TB, records string) {
	t.Helper()
	d.serial++
	zone := fmt.Sprintf("$ORIGIN %[1]s\n$TTL %[4]d\n@ SOA ns.%[1]s admin.%[1]s %[2]d 3600 600 86400 %[4]d\n"+
		"@ NS ns.%[1]s\nns A 127.0.0.1\n%[3]s\n",
		DNSZone, d.serial, records, d.TTL)
	err := os.WriteFile(d.zone+".new", []byte(zone), 0o600)
	if err == nil {
		err = os.Rename(d.zone+".new", d.zone)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// waitServed waits until only the zone written last is served.
func (d *DNS) waitServed(t testing.TB) {
	t.Helper()
	question := new(dns.Msg).SetQuestion(DNSZone, dns.TypeSOA)
	Eventually(t, "the zone is served", func() error {
		select {
		case <-d.Done():
			t.Fatalf("the server ended:\n%s", d.Stderr())
		default:
		}
		answer, err := dns.Exchange(question, d.Address)
		if err != nil {
			return err
		}
		for _, rr := range answer.Answer {
			if soa, ok := rr.(*dns.SOA); ok && soa.Serial == d.serial {
				return nil
			}
		}
		return fmt.Errorf("serial %d is not served; the answer is %v\n%s",
			d.serial, answer, tail(strings.Split(d.Stderr(), "\n")))
	})
	d.waitProcesses(t, "nsd: server", 1) // for a moment a process with the old zone answers too
}

// waitProcesses waits until n of the server's processes have names with this prefix.
func (d *DNS) waitProcesses(t testing.TB, name string, n int) {
	t.Helper()
	Eventually(t, fmt.Sprintf("%d processes %q", n, name), func() error {
		found, err := d.processes(name)
		if err == nil && len(found) != n {
			err = fmt.Errorf("there are %v", found)
		}
		return err
	})
}

// processes returns the server's processes whose names have this prefix: their names by process id.
func (d *DNS) processes(name string) (map[int]string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	found := map[int]string{}
	for _, file := range files {
		// a process whose command line is unreadable or empty has ended meanwhile
		if args, err := os.ReadFile(file); err != nil || !strings.Contains(string(args), d.conf) {
			continue
		}
		dir := filepath.Dir(file)
		if comm, err := os.ReadFile(filepath.Join(dir, "comm")); err == nil && strings.HasPrefix(string(comm), name) {
			pid, err := strconv.Atoi(filepath.Base(dir))
			if err != nil {
				return nil, err
			}
			found[pid] = strings.TrimSpace(string(comm))
		}
	}
	return found, nil
}
