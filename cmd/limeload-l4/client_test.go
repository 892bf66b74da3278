package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
)

// askers returns a valid command line for each command that calls the daemon.
func askers(t *testing.T) [][]string {
	return [][]string{
		{"status"}, {"backends"}, {"backends", "list"}, {"backends", "add", "redis", "10.0.0.14:6379"},
		{"backends", "remove", "redis", "b1"},
		{"backends", "set", "redis", "b1", "--weight", "2"}, {"backends", "drain", "redis", "b2"}, {"sessions"},
		{"sessions", "list"},
		{"sessions", "end", "--all"}, {"dns"}, {"dns", "stats"}, {"dns", "purge", "dns", "example.com"},
		{"dns", "purge", "dns", "--all"}, {"clients"}, {"access"}, {"access", "list"},
		{"fleet"}, {"fleet", "list"}, {"fleet", "verify"},
		{"access", "deny", "192.0.2.0/24", "--for", "10m"}, {"access", "allow", "192.0.2.7"},
		{"access", "remove", "192.0.2.0/24"}, {"access", "check", "192.0.2.7"},
		{"explain", "--pool", "redis", "192.0.2.7"}, {"reload"}, {"upgrade"}, {"plan"},
		{"plan", "--config", write(t, goodConfig)}, {"events"}, {"top", "--once", "--interval", "100ms"},
	}
}

// TestUnreachable: without a daemon, each command ends with the exit code for that, and says why.
func TestUnreachable(t *testing.T) {
	t.Setenv(adminVariable, "unix:"+filepath.Join(t.TempDir(), "admin.sock"))
	for _, args := range askers(t) {
		code, stdout, stderr := command(t, args...)
		if code != exitUnreachable || stdout != "" ||
			!strings.Contains(stderr, "the daemon cannot be reached: there is no socket") {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}

// TestRefused: if the daemon refuses, each command fails with the daemon's text, without its control characters.
func TestRefused(t *testing.T) {
	refusing(t, &admin.Problem{Type: "/problems/internal", Status: http.StatusInternalServerError,
		Detail: "the \x1b[2Jdisk is full"})
	for _, args := range askers(t) {
		code, stdout, stderr := command(t, args...)
		if code != exitFailed || stdout != "" || stderr != `the \x1b[2Jdisk is full`+"\n" {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}

// TestJSON: each command prints one document and nothing else.
func TestJSON(t *testing.T) {
	for _, args := range askers(t) {
		startFake(t)
		code, stdout, _ := command(t, append(args, "--output", "json")...)
		if args[0] == "events" {
			if lines := strings.Split(strings.TrimSpace(stdout), "\n"); code != exitUnreachable || len(lines) != 3 {
				t.Errorf("%q: exit code %d, lines %q", args, code, lines)
			} else {
				for _, line := range lines {
					if !json.Valid([]byte(line)) {
						t.Errorf("%q: %s is no JSON", args, line)
					}
				}
			}
			continue
		}
		var document map[string]any
		if err := json.Unmarshal([]byte(stdout), &document); code != exitDone || err != nil || len(document) == 0 {
			t.Errorf("%q: exit code %d, %v\n%s", args, code, err, stdout)
		}
		if !strings.HasPrefix(stdout, "{\n  \"") {
			t.Errorf("%q is not indented:\n%s", args, stdout)
		}
	}
}

// TestUsage: invalid command lines are refused before the daemon is called.
func TestUsage(t *testing.T) {
	f := startFake(t)
	for _, test := range []struct{ args, want string }{
		{"status now", `unknown command or argument "now"`},
		{"status --what", `unknown flag "--what"`},
		{"status --output yaml", `--output "yaml": needs table or json`},
		{"status --timeout 5", "timeout"},
		{"status --timeout 0s", "--timeout 0s: needs a time above 0"},
		{"status --admin nowhere", `needs unix:PATH or HOST:PORT`},
		{"backends lst", `unknown command or argument "lst"`},
		{"backends add redis", "ADDRESS is missing: the command is `limeload-l4 backends add POOL ADDRESS`"},
		{"backends add", "POOL is missing"},
		{"backends add redis 10.0.0.1:1 more", `"more"`},
		{"backends add redis 10.0.0.1:1 --weight", "--weight needs N"},
		{"backends add redis 10.0.0.1:1 --weight x", `--weight "x": needs a whole number`},
		{"backends add redis 10.0.0.1:1 --colour red", `unknown flag "--colour"`},
		{"backends add redis 10.0.0.1:1 --mode idle", "needs ready, drain or maintenance"},
		{"backends set redis b1", "nothing to set"},
		{"backends set redis b1 --mode idle", "needs ready, drain or maintenance"},
		{"backends drain redis b2 --deadline -1s", "--deadline -1s"},
		{"sessions end", "which ones?"},
		{"sessions end 8c3f --all", "--all is every session"},
		{"sessions end a b", `"b"`},
		{"sessions --limit 0", "--limit 0"},
		{"sessions --min-age -1s", "--min-age"},
		{"sessions end --min-idle 0s", "--min-idle 0s: needs a time above 0"},
		{"sessions end --client 192.0.2.1 --pool=", "--pool is empty"},
		{"sessions --pool= end --client 192.0.2.1", "--pool is empty"},
		{"backends remove redis --", "BACKEND is missing"},
		{"dns purge", "LISTENER is missing"},
		{"dns purge dns", "which ones? Needs a NAME, or --all"},
		{"dns purge dns --below", "which ones? Needs a NAME, or --all"},
		{"dns purge dns example.com --all", "--all is every answer"},
		{"dns purge dns --below --all", "--all is every answer"},
		{"dns purge dns a b", `"b"`},
		{"dns list", `unknown command or argument "list"`},
		{"access deny", "PREFIX is missing: the command is `limeload-l4 access deny PREFIX...`"},
		{"access deny 192.0.2.0/24 192.0.2.7/24", `PREFIX "192.0.2.7/24": its address has bits set after the first 24; ` +
			"needs 192.0.2.0/24, or 192.0.2.7/32 for the address alone"},
		{"access allow example.com", `PREFIX "example.com": needs an address or a prefix`},
		{"access deny 192.0.2.7 --for 10", "for"},
		{"access deny 192.0.2.7 --for 0s", "--for 0s: needs 1s to 3650d0h"},
		{"access deny 192.0.2.7 --for 900000h", "needs 1s to 3650d0h"},
		{"access deny 192.0.2.7 --listener=", "--listener is empty"},
		{"access deny 192.0.2.7 --comment=" + strings.Repeat("x", 201), "--comment: needs 200 bytes at most"},
		{"access remove", "PREFIX is missing"},
		{"access remove 192.0.2.7/24", "needs 192.0.2.0/24"},
		{"access check", "ADDRESS is missing"},
		{"access check 192.0.2.7 192.0.2.8", `"192.0.2.8"`},
		{"access block 192.0.2.7", `unknown command or argument "block"`},
		{"clients --sort name", `--sort "name": needs rate, sessions or bytes`},
		{"clients --limit 0", "--limit 0: needs a number of 1 to 10000"},
		{"clients --limit 10001", "--limit 10001"},
		{"fleet verify --wait -1s", "--wait -1s: needs a time, or 0s"},
		{"fleet lists", `unknown command or argument "lists", did you mean "list"?`},
		{"clients main", `unknown command or argument "main"`},
		{"explain", "CLIENT is missing"},
		{"explain --listener a --pool b 192.0.2.1", "needs one of them"},
		{"events --kind explosion", `--kind "explosion": needs one of backend_added`},
		{"completion", "SHELL is missing: the command is `limeload-l4 completion SHELL`"},
		{"completion tcsh", "needs one of bash, zsh, fish"},
		{"man 7", "needs 8 or 5"},
	} {
		code, stdout, stderr := command(t, strings.Fields(test.args)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q, want %s", test.args, code, stdout, stderr, test.want)
		}
	}
	for _, text := range []string{"", "a\nb", "\x1b[2J"} {
		if code, _, stderr := command(t, "access", "deny", "192.0.2.7", "--comment", text); code != exitUsage {
			t.Errorf("comment %q: exit code %d, %s", text, code, stderr)
		}
	}
	if code, _, stderr := command(t, "access", "deny", "192.0.2.7", ""); code != exitUsage ||
		!strings.Contains(stderr, "PREFIX is empty") {
		t.Errorf("an empty argument: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := command(t, "backends", "remove", "redis", ""); code != exitUsage ||
		!strings.Contains(stderr, "BACKEND is empty") {
		t.Errorf("an empty argument: exit code %d, %s", code, stderr)
	}
	if asked := f.requests(); len(asked) > 0 {
		t.Errorf("the daemon was asked %q", asked)
	}
}

// TestFlagsAnywhere: flags may stand before, between and after the arguments, and before the second command.
func TestFlagsAnywhere(t *testing.T) {
	want := `POST /v1/pools/redis/backends {"name":"","address":"10.0.0.14:6379","weight":0,"zone":"a","mode":"ready"}`
	for _, args := range []string{
		"backends add --weight 0 --zone a redis 10.0.0.14:6379", "backends add redis --weight=0 10.0.0.14:6379 -zone a",
		"backends add redis 10.0.0.14:6379 --zone a --weight 0",
		"backends add --zone a redis --weight 0 -- 10.0.0.14:6379",
	} {
		f := startFake(t)
		if code, _, stderr := command(t, strings.Fields(args)...); code != exitDone ||
			!slices.Equal(f.requests(), []string{want}) {
			t.Errorf("%s: exit code %d, asked %q %s", args, code, f.requests(), stderr)
		}
	}
	f := startFake(t)
	command(t, "backends", "--pool", "redis", "list")
	command(t, "sessions", "--pool", "redis", "end", "--min-idle", "5m")
	calls := []string{"GET /v1/pools/redis/backends", "DELETE /v1/sessions?min_idle=5m0s&pool=redis"}
	if !slices.Equal(f.requests(), calls) {
		t.Errorf("asked %q, want %q", f.requests(), calls)
	}
	if code, stdout, _ := command(t, "backends", "add", "redis", "--help"); code != exitDone ||
		!strings.Contains(stdout, "--max-sessions") {
		t.Errorf("--help behind an argument: exit code %d\n%s", code, stdout)
	}
}

// TestWhatIsAsked checks the request that each command sends.
func TestWhatIsAsked(t *testing.T) {
	f := startFake(t)
	file := write(t, goodConfig)
	for _, test := range []struct{ args, want string }{
		{"backends add redis 10.0.0.14:6379 --name b4 --max-sessions 5 --tier 1 --mode drain",
			`POST /v1/pools/redis/backends {"name":"b4","address":"10.0.0.14:6379","max_sessions":5,"tier":1,"mode":"drain"}`},
		{"backends remove redis b1", "DELETE /v1/pools/redis/backends/b1"},
		{"backends set redis b1 --max-sessions 0", `PATCH /v1/pools/redis/backends/b1 {"max_sessions":0}`},
		{"backends set redis b1 --max-rate 600/m", `PATCH /v1/pools/redis/backends/b1 {"max_rate":"600/m"}`},
		{"backends add redis 10.0.0.14:6379 --max-rate 5/s",
			`POST /v1/pools/redis/backends {"name":"","address":"10.0.0.14:6379","max_rate":"5/s","mode":"ready"}`},
		{"backends set redis b1 --weight 0 --mode ready",
			`PATCH /v1/pools/redis/backends/b1 {"weight":0,"mode":"ready"}`},
		{"backends drain redis b2 --deadline 1m30s", `POST /v1/pools/redis/backends/b2/drain {"deadline_seconds":90}`},
		{"backends drain redis b2 --remove",
			`POST /v1/pools/redis/backends/b2/drain {"deadline_seconds":0,"remove":true}`},
		{"sessions --listener main --backend b1 --client 192.0.2.0/24 --min-age 1h",
			"GET /v1/sessions?backend=b1&client=192.0.2.0%2F24&limit=1000&listener=main&min_age=1h0m0s"},
		{"sessions end 8c3f5e0000000001", "DELETE /v1/sessions?id=8c3f5e0000000001"},
		{"dns", "GET /v1/listeners"},
		{"dns purge dns Example.com.", `POST /v1/listeners/dns/dns/purge {"name":"Example.com."}`},
		{"dns purge --below a/b . ", `POST /v1/listeners/a%2Fb/dns/purge {"name":".","below":true}`},
		{"dns purge dns --all", `POST /v1/listeners/dns/dns/purge {"all":true}`},
		{"access", "GET /v1/access"},
		{"access deny 192.0.2.0/24 --listener a/b --for 1m30s --comment why",
			`POST /v1/access {"prefix":"192.0.2.0/24","action":"deny","listener":"a/b","for_seconds":90,"comment":"why"}`},
		{"access allow 2001:db8::7 192.0.2.7", `POST /v1/access {"prefix":"192.0.2.7","action":"allow"}`},
		{"access remove 192.0.2.0/24", "DELETE /v1/access?prefix=192.0.2.0%2F24"},
		{"access remove 192.0.2.0/24 --listener main", "DELETE /v1/access?listener=main&prefix=192.0.2.0%2F24"},
		{"access check 192.0.2.7", "GET /v1/access/check?address=192.0.2.7"},
		{"access check --listener main 192.0.2.7", "GET /v1/access/check?address=192.0.2.7&listener=main"},
		{"fleet", "GET /v1/fleet"},
		{"fleet verify --wait 0s", "GET /v1/fleet/verify"},
		{"clients", "GET /v1/clients?limit=20&sort=rate"},
		{"clients --listener main --sort bytes --limit 5", "GET /v1/clients?limit=5&listener=main&sort=bytes"},
		{"explain --pool redis 192.0.2.7:5000", "GET /v1/explain?client=192.0.2.7%3A5000&pool=redis"},
		{"events --pool redis --kind drained --kind reloaded", "GET /v1/events?kind=drained&kind=reloaded&pool=redis"},
		{"plan", "POST /v1/plan"},
		{"plan --config " + file, "POST /v1/plan?name=" + strings.ReplaceAll(file, "/", "%2F") + " " +
			strings.TrimSpace(goodConfig)},
		{"reload", "POST /v1/reload"},
		{"upgrade", "POST /v1/upgrade {\"deadline_seconds\":30}"},
		{"upgrade --deadline 90s", "POST /v1/upgrade {\"deadline_seconds\":90}"},
	} {
		before := len(f.requests())
		command(t, strings.Fields(test.args)...)
		asked := f.requests()[before:] // after an error also which names there are
		if !slices.ContainsFunc(asked, func(got string) bool {
			return slices.Equal(strings.Fields(got), strings.Fields(test.want))
		}) {
			t.Errorf("%s asked\n%q\nwant\n%s", test.args, asked, test.want)
		}
	}
}

// TestWhereTheDaemonIs: for the address of the daemon, the flag comes before the variable, and that before the file.
func TestWhereTheDaemonIs(t *testing.T) {
	f := startFake(t)
	named := f.address
	nowhere := "unix:" + filepath.Join(t.TempDir(), "nobody.sock")
	file := func(address string) string {
		return write(t, fmt.Sprintf("[admin]\naddress = %q\n%s", address, goodConfig))
	}
	broken := write(t, fmt.Sprintf("[admin]\naddress = %q\n[log]\nlevel = 7\nwhat = 1\n", named))
	for _, test := range []struct {
		name, variable string
		args           []string
		code           int
	}{
		{"flag", nowhere, []string{"status", "--admin", named}, exitDone},
		{"flag before the file", "", []string{"status", "--admin", named, "--config", file(nowhere)}, exitDone},
		{"variable", named, []string{"status"}, exitDone},
		{"variable before the file", nowhere, []string{"status", "--config", file(named)}, exitUnreachable},
		{"file", "", []string{"status", "--config", file(named)}, exitDone},
		{"file, named before the command", "", []string{"--config", file(named), "status"}, exitDone},
		{"file with mistakes", "", []string{"status", "--config", broken}, exitDone},
		{"file that turns it off", "", []string{"status", "--config", file("")}, exitUnreachable},
		{"no such file", "", []string{"status", "--config", "/nowhere/lb.toml"}, exitFailed},
	} {
		t.Setenv(adminVariable, test.variable)
		if code, _, stderr := command(t, test.args...); code != test.code {
			t.Errorf("%s: exit code %d, want %d: %s", test.name, code, test.code, stderr)
		}
	}
}

// TestToken: the token is sent to its own daemon, and to nobody else.
func TestToken(t *testing.T) {
	f := startFake(t)
	other := newFake(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other.serve(t, listener)
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := write(t, fmt.Sprintf("[admin]\naddress = %q\ntoken_file = %q\n%s", f.address, secret, goodConfig))
	t.Setenv(adminVariable, "")
	command(t, "status", "--config", file)
	command(t, "status", "--config", file, "--admin", f.address)
	command(t, "status", "--admin", f.address, "--token-file", secret)
	command(t, "status", "--config", file, "--token-file", write(t, "another"))
	want := []string{"Bearer s3cret", "Bearer s3cret", "Bearer s3cret", "Bearer another"}
	if !slices.Equal(f.shown(), want) {
		t.Errorf("tokens %q, want %q", f.shown(), want)
	}
	command(t, "status", "--config", file, "--admin", other.address)
	if !slices.Equal(other.shown(), []string{""}) {
		t.Errorf("another address was shown %q", other.shown())
	}
	code, _, stderr := command(t, "status", "--admin", f.address, "--token-file", "/nowhere/token")
	if code != exitFailed || !strings.Contains(stderr, "--token-file") {
		t.Errorf("no such token: exit code %d, %s", code, stderr)
	}
	refusing(t, &admin.Problem{Type: "/problems/unauthorized", Status: http.StatusUnauthorized,
		Detail: "the token is missing or wrong"})
	if code, _, stderr := command(t, "status"); code != exitFailed ||
		stderr != "the token is missing or wrong; name the file that holds it with --token-file\n" {
		t.Errorf("wrong token: exit code %d, %s", code, stderr)
	}
}

// TestSlowDaemon: a command gives up if the daemon does not answer.
func TestSlowDaemon(t *testing.T) {
	f := startFake(t)
	f.mux = http.NewServeMux()
	f.mux.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if code, _, stderr := command(t, "status", "--timeout", "50ms"); code != exitFailed ||
		!strings.Contains(stderr, "--timeout") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}
