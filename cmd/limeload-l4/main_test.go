package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/conf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// write puts a configuration into a file and returns its path.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lb.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const goodConfig = `
[listener.web]
address = "127.0.0.1:7999"
pool = "web"
[pool.web]
backends = [{ address = "127.0.0.1:7998" }]
`

func TestExitCodesAndOutput(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	busyUDP, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busyUDP.Close()
	for _, test := range []struct {
		name   string
		args   []string
		code   int
		stdout string // a pattern
		stderr string
	}{
		{"help", []string{"--help"}, exitDone, `(?s)Usage: .*demo.*check`, `^$`},
		{"version", []string{"version"}, exitDone, `^limeload-l4 \S+ go1`, `^$`},
		{"example", []string{"example", "all"}, exitDone, `(?m)^\[listener\.`, `^$`},
		{"unknown command", []string{"serve"}, exitUsage, `^$`, `unknown command or argument "serve"`},
		{"unknown flag", []string{"--what"}, exitUsage, `(?s).*`, `-what`},
		{"argument of a command", []string{"check", "lb.toml", "more"}, exitUsage, `^$`, `"more"`},
		{"good", []string{"check", "--config", write(t, goodConfig)}, exitDone,
			`good\n  listener web: .*\n  pool web: least_conn over 1 backend, no checks`, `^$`},
		{"every mistake", []string{"check", "--config",
			write(t, "[listener.web]\nadress = 1\n[pool.web]\nretries = 99\n")}, exitFailed, `^$`,
			`(?s)lb.toml:2: listener.web.adress: .*did you mean "address".*lb.toml:4: pool.web.retries: found 99`},
		{"name that resolves to nothing", []string{"check", "--config",
			write(t, strings.Replace(goodConfig, "127.0.0.1:7998", "nowhere.invalid:1", 1))},
			exitFailed, `^$`, `lb.toml:6: pool.web.backends\[0\].address: .*nowhere.invalid`},
		{"the same, looked at as a file", []string{"check", "--syntax", "--config",
			write(t, strings.Replace(goodConfig, "127.0.0.1:7998", "nowhere.invalid:1", 1))},
			exitDone, `good`, `^$`},
		{"no file", []string{"--config", "/nowhere/lb.toml"}, exitFailed, `^$`, `^/nowhere/lb.toml: no such file`},
		{"port in use", []string{"--config",
			write(t, strings.Replace(goodConfig, "127.0.0.1:7999", busy.Addr().String(), 1))}, exitFailed, `^$`,
			`^\S+lb.toml:3: listener.web.address: found "127.0.0.1:\d+"; .*address already in use; .*ss -ltnp.*\n$`},
		{"UDP port in use",
			[]string{"--config",
				write(t, strings.Replace(goodConfig, `"127.0.0.1:7999"`,
					fmt.Sprintf("%q\nprotocol = \"udp\"", busyUDP.LocalAddr()), 1))}, exitFailed, `^$`,
			`^\S+lb.toml:3: listener.web.address: found "127.0.0.1:\d+"; .*address already in use; .*ss -lunp.*\n$`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"limeload-l4"}, test.args...), &stdout, &stderr)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, out := range []struct{ name, got, want string }{{"stdout", stdout.String(), test.stdout},
				{"stderr", stderr.String(), test.stderr}} {
				if !regexp.MustCompile(out.want).MatchString(out.got) {
					t.Errorf("%s is %q, want %s", out.name, out.got, out.want)
				}
			}
		})
	}
}

// TestDemo sends the requests that the demo's welcome suggests, and lets one backend fail: no request fails.
func TestDemo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"limeload-l4", "demo"}, w, io.Discard)
		w.Close()
	}()
	front := make(chan string, 1)
	lines := make(chan string, 1)
	go func() {
		var said strings.Builder
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			said.Write(buf[:n])
			if m := regexp.MustCompile(`curl (http://\S+)/ `).FindStringSubmatch(said.String()); m != nil &&
				len(front) == 0 {
				select {
				case front <- m[1]:
				default:
				}
			}
			if err != nil {
				lines <- said.String()
				return
			}
		}
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(url string) string {
		t.Helper()
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	at := <-front
	answered := make(map[string]bool)
	for range 6 {
		answered[get(at+"/")] = true
	}
	if len(answered) != 3 {
		t.Errorf("%d of 3 backends answered: %v", len(answered), answered)
	}
	get(at + "/fail")
	for range 6 {
		get(at + "/")
	}
	cancel()
	if c := <-code; c != exitDone {
		t.Errorf("exit code %d", c)
	}
	if said := <-lines; !strings.Contains(said, "b1 answered GET") || !strings.Contains(said, "goes away") {
		t.Errorf("the demo said:\n%s", said)
	}
}

// TestAlgorithmsAgree: the configuration allows exactly the existing algorithms.
func TestAlgorithmsAgree(t *testing.T) {
	allowed := func(name string) bool {
		_, err := conf.Parse("lb.toml", []byte(goodConfig+"algorithm = \""+name+"\"\n"))
		return err == nil
	}
	if allowed("no_such_thing") {
		t.Fatal("an algorithm that there is not was allowed: this test cannot fail")
	}
	for _, k := range algo.Kinds() {
		if !allowed(k.Name) {
			t.Errorf("the configuration does not allow %s", k.Name)
		}
		if !bytes.Contains(conf.Reference, []byte(k.Name)) {
			t.Errorf("conf/reference.toml does not name %s", k.Name)
		}
	}
}

// TestDocConfigurations parses every whole configuration that a document shows: each block of TOML with a listener.
func TestDocConfigurations(t *testing.T) {
	t.Setenv("NODE", "1") // of start-fleet.md
	if _, err := conf.Parse("bad.toml", []byte("[listener.a]\n")); err == nil {
		t.Fatal("a listener without a pool was parsed: this test cannot fail")
	}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range pages {
		page, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(page, -1) {
			if !bytes.Contains(b[1], []byte("[listener.")) {
				continue
			}
			n++
			if _, err := conf.Parse(filepath.Base(file), b[1]); err != nil {
				t.Error(err)
			}
		}
	}
	if n < 4 {
		t.Errorf("the documents show %d configurations", n)
	}
}

// TestReadmeExamples: the configurations in the README are valid, and the mistakes it shows are as the program prints
// them.
func TestReadmeExamples(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(readme, -1)
	if len(blocks) == 0 {
		t.Fatal("the README shows no configuration")
	}
	for _, b := range blocks {
		if _, err := conf.Parse("README.md", b[1]); err != nil {
			t.Error(err)
		}
	}
	_, err = conf.Parse("lb.toml", []byte(`[pool.redis]
backends = [{ address = "10.0.0.11:6379" }]
conect_timeout = "3s"
[listener.redis]
address = ":6379"
pool = "redis"
idle_timeout = 15
`))
	if !strings.Contains(string(readme), err.Error()) {
		t.Errorf("the README shows other mistakes than\n%v", err)
	}
}
