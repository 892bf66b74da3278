//go:build netns

// These tests run the commands of the documents, at the documents' addresses, and therefore need a network namespace of
// their own:
//
//	unshare --user --map-root-user --net go test -tags netns -run NetnsDocs ./test
//	unshare --user --map-root-user --net go test -tags netns -run NetnsDocsCommandLine ./test -update    # writes docs/cli.md anew

package test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/limeload/limeload-l4/test/harness"
)

const (
	cliDoc     = "../docs/cli.md"
	docsSocket = "/run/limeload/admin.sock"
	docsState  = "/var/lib/limeload/state.json"
	docsFile   = "/etc/limeload/lb.toml"
)

// A scene is a running balancer as in docs/cli.md, with its backends and a few clients.
type scene struct {
	*harness.Balancer
	dir     string // of the commands, which has lb.toml and new.toml
	clients []*net.TCPConn
}

// startScene starts a scene with the configuration of the page.
func startScene(t *testing.T, page string) *scene {
	t.Helper()
	s := &scene{dir: t.TempDir()}
	config := regexp.MustCompile("(?s)```toml\n(.*?)```").FindStringSubmatch(page)
	if config == nil {
		t.Fatal("the page has no configuration")
	}
	text := strings.ReplaceAll(config[1], docsState, filepath.Join(s.dir, "state.json"))
	harness.ServeOn(t, "10.0.0.11:6379", harness.Echo)
	harness.ServeOn(t, "10.0.0.12:6379", harness.Echo)
	harness.ServeOn(t, "10.0.0.14:6379", harness.Echo)
	for _, address := range []string{"10.0.0.21:53", "10.0.0.22:53"} {
		serveNames(t, address)
	}
	started := time.Now()
	// otherwise it would wait for its flows
	s.Balancer = harness.StartBalancerWith(t, harness.BalancerOptions{Config: text, Killed: true})
	t.Cleanup(func() { s.Kill(t) })
	check(t, os.WriteFile(filepath.Join(s.dir, "lb.toml"), []byte(s.Complete(text)), 0o600))
	check(t, os.WriteFile(filepath.Join(s.dir, "new.toml"), []byte(s.Complete(renewed(t, text))), 0o600))
	s.WaitVerdict(t, "b3", "unhealthy", started)
	s.Ask(t, "PATCH", "/v1/pools/redis/backends/b2", map[string]int{"weight": 3}, nil)
	for i := range 4 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(7+i/2)), Port: 51234 + i},
			Timeout: harness.Patience}
		c, err := d.Dial("tcp", s.Address(t, "main"))
		check(t, err)
		client := c.(*net.TCPConn)
		check(t, client.SetLinger(0)) // the client of the next scene has the same port
		t.Cleanup(func() { client.Close() })
		check(t, harness.PingPong(client, 1, 100))
		s.clients = append(s.clients, client)
	}
	for range 3 {
		q := new(dns.Msg)
		q.SetQuestion("www.example.com.", dns.TypeA)
		_, _, err := new(dns.Client).Exchange(q, s.Address(t, "dns"))
		check(t, err)
	}
	return s
}

// serveNames answers all questions for addresses.
func serveNames(t *testing.T, address string) {
	t.Helper()
	c, err := net.ListenPacket("udp", address)
	check(t, err)
	server := &dns.Server{PacketConn: c, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		answer.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 3600},
			A:   net.IPv4(192, 0, 2, 1),
		}}
		_ = w.WriteMsg(answer)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.ActivateAndServe() }()
	t.Cleanup(func() { c.Close(); <-done })
}

// renewed returns the configuration with changes of every kind.
func renewed(t *testing.T, text string) string {
	t.Helper()
	for _, change := range [][2]string{
		{"workers    = 2", "workers    = 4"},
		{"[listener.internal]\naddress  = \"10.0.0.1:5353\"\nprotocol = \"udp\"\nprofile  = \"dns\"\npool     = \"dns\"\n",
			"[listener.web]\naddress = \"10.0.0.1:443\"\npool    = \"redis\"\n"},
		{"algorithm = \"client_hash\"", "algorithm = \"client_hash\"\nretries   = 3"},
		{`name = "b1"`, `name = "b1", weight = 2`},
		{"  { address = \"10.0.0.13:6379\", name = \"b3\" },\n", ""},
	} {
		if !strings.Contains(text, change[0]) {
			t.Fatalf("the configuration has no %q", change[0])
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	return text
}

// prepare makes the changes that a command of the page needs to show its output.
func (s *scene) prepare(t *testing.T, line string) {
	t.Helper()
	switch words := strings.Fields(line); words[0] {
	case "plan":
		s.Ask(t, "PATCH", "/v1/pools/redis/backends/b1", map[string]int{"weight": 5}, nil)
	case "reload":
		s.Ask(t, "PATCH", "/v1/pools/redis/backends/b1", map[string]int{"weight": 5}, nil)
		text, err := os.ReadFile(filepath.Join(s.dir, "new.toml"))
		check(t, err)
		s.Configure(t, string(text))
	case "access":
		if words[1] != "deny" {
			s.Ask(t, "POST", "/v1/access", map[string]any{"prefix": "198.51.100.0/24", "action": "deny",
				"for_seconds": 600, "comment": "scan"}, nil)
		}
	case "backends":
		if slices.Contains(words, "b4") && words[1] == "set" {
			s.Ask(t, "POST", "/v1/pools/redis/backends", map[string]any{"name": "b4", "address": "10.0.0.14:6379",
				"weight": 2}, nil)
		}
	}
}

// run runs a command of the page, and returns its output with the page's paths in place of the test's.
func (s *scene) run(t *testing.T, line string) (stdout string, code int) {
	t.Helper()
	command := harness.Command{
		Path: harness.Binary(t, false), Args: strings.Fields(line), Dir: s.dir,
		Env: []string{"LIMELOAD_ADMIN=unix:" + s.AdminSocket(), "GORACE=atexit_sleep_ms=50", "TZ=UTC"},
	}
	if strings.HasPrefix(line, "events") {
		stdout, code = s.watch(t, command)
	} else {
		var stderr string
		if stdout, stderr, code = harness.Run(t, command); stderr != "" {
			stdout += stderr
		}
	}
	return strings.NewReplacer(
		s.AdminSocket(), docsSocket, filepath.Join(s.dir, "state.json"), docsState, s.File(), docsFile, s.dir+"/", "",
	).Replace(stdout), code
}

// watch runs `events` until it has printed two events.
func (s *scene) watch(t *testing.T, c harness.Command) (stdout string, code int) {
	t.Helper()
	p := harness.Start(t, c)
	for weight := 4; strings.Count(p.Stdout(), "->") < 2; weight++ {
		s.Ask(t, "PATCH", "/v1/pools/redis/backends/b2", map[string]int{"weight": weight%200 + 1}, nil)
		time.Sleep(50 * time.Millisecond) // a subscriber that is not there yet sees the next one
	}
	p.Signal(t, os.Interrupt)
	p.Wait(t)
	return strings.Join(strings.SplitAfterN(p.Stdout(), "\n", 3)[:2], ""), 0
}

// layAddresses gives loopback the addresses of the documents.
func layAddresses(t *testing.T) {
	t.Helper()
	ownNamespace(t)
	for _, a := range []string{"10.0.0.1", "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14", "10.0.0.21", "10.0.0.22",
		"192.0.2.1", "192.0.2.7", "192.0.2.8"} {
		ip(t, "address", "add", a+"/32", "dev", "lo")
		t.Cleanup(func() { ip(t, "address", "del", a+"/32", "dev", "lo") })
	}
}

// TestNetnsDocsCommandLine runs each command that docs/cli.md shows with its output, against a real balancer with real
// backends and clients: the page shows the program's output, apart from times, sizes and ids.
func TestNetnsDocsCommandLine(t *testing.T) {
	if steady("a  1.5s 20.0 KiB") != steady("a 3d4h   1 B") || steady("a 1") == steady("a 2") {
		t.Fatal("the guard does not distinguish outputs")
	}
	layAddresses(t)
	page, err := os.ReadFile(cliDoc)
	check(t, err)
	examples := 0
	written := regexp.MustCompile("(?s)```console\n\\$ limeload-l4 ([^\n]*)\n(.*?)```").ReplaceAllFunc(page,
		func(block []byte) []byte {
			line, shown, _ := strings.Cut(strings.TrimPrefix(string(block), "```console\n$ limeload-l4 "), "\n")
			shown = strings.TrimSuffix(shown, "```")
			examples++
			t.Run(line, func(t *testing.T) {
				s := startScene(t, string(page))
				s.prepare(t, line)
				printed, code := s.run(t, line)
				if code != 0 {
					t.Errorf("exit code %d", code)
				}
				if got, want := steady(printed), steady(shown); got != want && !*update {
					t.Errorf("docs/cli.md shows\n%s\nit prints\n%s", want, got)
				}
				block = fmt.Appendf(nil, "```console\n$ limeload-l4 %s\n%s\n```", line,
					strings.TrimRight(printed, "\n"))
			})
			return block
		})
	if examples < 14 {
		t.Errorf("docs/cli.md has %d examples", examples)
	}
	if *update && !t.Failed() && !bytes.Equal(written, page) {
		check(t, os.WriteFile(cliDoc, written, 0o644))
	}
}

// documents returns all pages, by name.
func documents(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../docs/*.md")
	check(t, err)
	pages := map[string]string{}
	for _, file := range append(files, "../README.md") {
		text, err := os.ReadFile(file)
		check(t, err)
		pages[filepath.Base(file)] = string(text)
	}
	return pages
}

// shownCurls are the curl commands of a page, in blocks and within lines; a shell's comments are left out.
func shownCurls(page string) (commands []string) {
	inline := regexp.MustCompile("`(curl -[^`]+)`")
	inBlock, block := regexp.MustCompile(`^(?:\$ )?(curl -.*)`), false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "```") {
			block = !block
		}
		if !block {
			for _, m := range inline.FindAllStringSubmatch(line, -1) {
				commands = append(commands, m[1])
			}
		} else if m := inBlock.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			before, _, _ := strings.Cut(m[1], " #")
			commands = append(commands, strings.TrimSpace(before))
		}
	}
	return commands
}

// TestNetnsDocsCurl runs every curl command of the documents, except those of docs/api.md and of the documents
// that TestDocuments follows, which have their own tests: each is answered with a status below 400.
func TestNetnsDocsCurl(t *testing.T) {
	layAddresses(t)
	harness.Tool(t, "curl")
	pages := documents(t)
	unix := startScene(t, pages["cli.md"])
	token := filepath.Join(t.TempDir(), "token")
	check(t, os.WriteFile(token, []byte("a-token-of-more-than-sixteen-characters\n"), 0o600))
	over := harness.StartBalancerWith(t,
		harness.BalancerOptions{Killed: true,
			Config: fmt.Sprintf("[listener.main]\naddress = \"10.0.0.1:6380\"\npool = "+
				"\"redis\"\n[pool.redis]\nbackends = [{ address = \"10.0.0.11:6379\" }]\n"+
				"[admin]\naddress = \"192.0.2.1:9000\"\ntoken_file = %q\n", token)})
	defer over.Kill(t)
	n := 0
	for _, d := range documentsToFollow() {
		delete(pages, d.name) // TestDocuments runs their commands
	}
	for name, page := range pages {
		for _, command := range shownCurls(page) {
			if name == "api.md" && !strings.Contains(command, "http://192.0.2.1:9000") {
				continue
			}
			n++
			line := strings.NewReplacer(docsSocket, unix.AdminSocket(), "/etc/limeload/token", token).Replace(command)
			line = strings.Replace(line, "curl ", "curl --silent --show-error --fail-with-body --max-time 60 ", 1)
			if stdout, stderr, code := harness.Run(t,
				harness.Command{Path: harness.Tool(t, "sh"), Args: []string{"-c", line}}); code != 0 {
				t.Errorf("%s: %s\nends with %d: %s%s", name, command, code, stderr, stdout)
			}
		}
	}
	if n < 2 {
		t.Errorf("the documents show %d commands", n)
	}
}
