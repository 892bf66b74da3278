package packaging

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/limeload/limeload-l4/test/harness"
)

// systemctl stands for the one of systemd, which does not run in a chroot: it writes down how it is called. A service
// is active if its admin socket is there, and enabled if its link is.
const systemctl = `#!/bin/sh
echo "$*" >>/tmp/systemctl
wants=/etc/systemd/system/multi-user.target.wants
case $* in
*is-active*) exec test -S /run/limeload/admin.sock ;;
*is-enabled*) test -L $wants/limeload-l4.service && echo enabled ;;
*preset*) mkdir -p $wants && ln -sf /usr/lib/systemd/system/limeload-l4.service $wants ;;
*disable*) rm -f $wants/limeload-l4.service; rmdir $wants 2>/dev/null || true ;;
esac
`

// withSystemd makes the scripts of packages take the root for a machine that systemd runs.
func (r root) withSystemd(t *testing.T) {
	t.Helper()
	check(t, os.MkdirAll(r.in("run/systemd/system"), 0o755))
	r.write(t, "usr/bin/systemctl", systemctl, 0o755)
}

// calls returns what the service was asked by systemctl since the last time: start, stop and the like.
func (r root) calls(t *testing.T) (verbs []string) {
	t.Helper()
	text, err := os.ReadFile(r.in("tmp/systemctl"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		words := slices.DeleteFunc(strings.Fields(line), func(word string) bool { return strings.HasPrefix(word, "-") })
		if slices.Contains(words, "limeload-l4.service") && !strings.HasPrefix(words[0], "is-") {
			verbs = append(verbs, words[0])
		}
	}
	_ = os.Remove(r.in("tmp/systemctl"))
	return verbs
}

// readmeConfiguration returns the README's first configuration, with other addresses.
func readmeConfiguration(t *testing.T, listener, primary string) string {
	t.Helper()
	config := regexp.MustCompile("(?s)```toml\n(.*?)```").FindStringSubmatch(read(t, repository+"/README.md"))
	if config == nil {
		t.Fatal("the README shows no configuration")
	}
	places := []string{`":5432"`, fmt.Sprintf("%q", listener), "10.0.0.21:5432", primary, "10.0.0.22:5432",
		harness.FreeAddress(t)}
	for i := 0; i < len(places); i += 2 {
		if !strings.Contains(config[1], places[i]) {
			t.Fatalf("the README's first configuration has no %s", places[i])
		}
	}
	return strings.NewReplacer(places...).Replace(config[1])
}

// startService starts the program as its unit would: with its command line, as its user, and with its folders.
func (r root) startService(t *testing.T) *harness.Process {
	t.Helper()
	unit := read(t, r.in("usr/lib/systemd/system/limeload-l4.service"))
	setting := func(name string) string {
		t.Helper()
		m := regexp.MustCompile(`(?m)^` + name + `=(.*)$`).FindStringSubmatch(unit)
		if m == nil {
			t.Fatalf("the unit has no %s=", name)
		}
		return m[1]
	}
	user, group := setting("User"), setting("Group")
	for _, folder := range []string{"/run/" + setting("RuntimeDirectory"), "/var/lib/" + setting("StateDirectory")} {
		r.run(t, "install", "-d", "-m", "0750", "-o", user, "-g", group, folder)
	}
	args := append([]string{"--userspec=" + user + ":" + group, r.path}, strings.Fields(setting("ExecStart"))...)
	p := harness.Start(t, harness.Command{Path: harness.Tool(t, "chroot"), Args: args})
	p.WaitStderr(t, `"message":"ready"`)
	return p
}

// A queryLoop is a client that connects, asks and leaves, again and again.
type queryLoop struct {
	done   atomic.Int64
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex // guards failed
	failed []error
}

func startQueryLoop(ctx context.Context, url string) *queryLoop {
	l := new(queryLoop)
	ctx, l.cancel = context.WithCancel(ctx)
	l.wg.Go(func() { l.run(ctx, url) })
	return l
}

func (l *queryLoop) run(ctx context.Context, url string) {
	for ctx.Err() == nil {
		// a request that has begun is not cancelled
		if err := query(context.WithoutCancel(ctx), url); err != nil {
			l.mu.Lock()
			l.failed = append(l.failed, err)
			l.mu.Unlock()
		}
		l.done.Add(1)
	}
}

func query(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	if _, err = c.Exec(ctx, "select 1"); err != nil {
		_ = c.Close(ctx)
		return err
	}
	return c.Close(ctx)
}

// more waits until so many more requests are over.
func (l *queryLoop) more(t *testing.T, n int64) {
	t.Helper()
	until := l.done.Load() + n
	harness.Eventually(t, "requests go on", func() error {
		if now := l.done.Load(); now < until {
			return fmt.Errorf("%d of %d", now, until)
		}
		return nil
	})
}

// end stops the loop and returns its failures.
func (l *queryLoop) end() []error {
	l.cancel()
	l.wg.Wait()
	return l.failed
}

// TestDebianPackage installs the package in a fresh Debian root, runs the README's configuration with a real Postgres,
// installs a newer version under traffic, removes it and purges it. No connect fails, no session ends, and nothing is
// left but what the operator wrote.
func TestDebianPackage(t *testing.T) {
	t.Parallel()
	r := newRoot(t)
	postgres := harness.StartPostgres(t)
	r.withSystemd(t)
	fresh := r.files(t)

	r.installOld(t)
	address := harness.FreeAddress(t)
	config := readmeConfiguration(t, address, net.JoinHostPort(postgres.Host, postgres.Port))
	r.write(t, "etc/limeload/lb.toml", config, 0o640)
	r.write(t, "etc/limeload/monitor.password", "not asked for\n", 0o640)
	r.run(t, "chgrp", "limeload", "/etc/limeload/lb.toml", "/etc/limeload/monitor.password")
	if text := r.run(t, "limeload-l4", "check"); !strings.Contains(text, "good") {
		t.Errorf("limeload-l4 check: %s", text)
	}
	service := r.startService(t)
	url := fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", postgres.User, address)
	r.upgradeUnderTraffic(t, url)

	r.run(t, "dpkg", "--remove", "limeload-l4")
	if calls := r.calls(t); !slices.Equal(calls, []string{"stop"}) {
		t.Errorf("the removal did %q to the service, want a stop", calls)
	}
	for _, id := range r.processes(t) {
		check(t, syscall.Kill(id, syscall.SIGTERM))
	}
	if code := service.Wait(t); code != 0 {
		t.Errorf("the service ended with %d", code)
	}
	harness.Eventually(t, "the service is gone", func() error {
		if ids := r.processes(t); len(ids) > 0 {
			return fmt.Errorf("%v run", ids)
		}
		return nil
	})
	if _, err := os.Stat(r.in("usr/bin/limeload-l4")); !os.IsNotExist(err) {
		t.Errorf("the removal leaves the program: %v", err)
	}
	if got := r.owner(t, "/etc/limeload/lb.toml"); got != "root:limeload 0640" {
		t.Errorf("the removal leaves the configuration as %s", got)
	}
	r.installAgain(t)
	r.purge(t, fresh)
}

// installAgain installs the package after a removal, twice with choices of an administrator, and removes it.
func (r root) installAgain(t *testing.T) {
	t.Helper()
	install := func(what string, want ...string) {
		t.Helper()
		r.run(t, "dpkg", "--install", "/tmp/new.deb")
		if calls := r.calls(t); !slices.Equal(calls, want) {
			t.Errorf("the installation %s did %q to the service, want %q", what, calls, want)
		}
	}
	install("after a removal", "start")
	check(t, os.Remove(r.in(enabled))) // as `systemctl disable` does
	install("of a service that is disabled")
	if _, err := os.Lstat(r.in(enabled)); !os.IsNotExist(err) {
		t.Errorf("an upgrade enables a service that is disabled: %v", err)
	}
	r.run(t, "dpkg", "--remove", "limeload-l4")
	r.calls(t)
	r.write(t, "usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
	install("where policy-rc.d forbids to start services")
	check(t, os.Remove(r.in("usr/sbin/policy-rc.d")))
	r.run(t, "dpkg", "--remove", "limeload-l4")
	r.calls(t)
}

// enabled is what makes systemd start the service at boot.
const enabled = "etc/systemd/system/multi-user.target.wants/limeload-l4.service"

// installed are further files of the package, below /usr.
const installed = `
	lib/systemd/system/limeload-l4.service lib/modules-load.d/limeload-l4.conf lib/sysusers.d/limeload-l4.conf
	lib/tmpfiles.d/limeload-l4.conf share/man/man5/lb.toml.5.gz share/man/man8/limeload-l4.8.gz
	share/bash-completion/completions/limeload-l4 share/zsh/vendor-completions/_limeload-l4
	share/fish/vendor_completions.d/limeload-l4.fish share/doc/limeload-l4/copyright
	share/doc/limeload-l4/changelog.Debian.gz share/doc/limeload-l4/systemd.md
	share/doc/limeload-l4/examples/limeload-l4-redis.socket share/doc/limeload-l4/examples/exec-checks.conf
	share/doc/limeload-l4/examples/reference.toml share/doc/limeload-l4/examples/limeload.rules.yml`

// installOld installs the old version and checks its files.
func (r root) installOld(t *testing.T) {
	t.Helper()
	check(t, os.Link(first(t, oldDeb), r.in("tmp/old.deb")))
	r.run(t, "dpkg", "--install", "/tmp/old.deb")
	if calls := r.calls(t); !slices.Equal(calls, []string{"preset", "start"}) {
		t.Errorf("the installation did %q to the service, want preset and start", calls)
	}
	if target, err := os.Readlink(r.in(enabled)); err != nil || filepath.Base(target) != "limeload-l4.service" {
		t.Errorf("the service is not enabled: %q, %v", target, err)
	}
	for path, want := range map[string]string{"/usr/bin/limeload-l4": "root:root 0755",
		"/etc/limeload": "root:limeload 0750", "/etc/limeload/lb.toml": "root:limeload 0640"} {
		if got := r.owner(t, path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	const plain = "root:root 0644\n"
	args := []string{"stat", "-c", "%U:%G 0%a"}
	for _, path := range strings.Fields(installed) {
		args = append(args, "/usr/"+path)
	}
	if got := r.run(t, args...); got+"\n" != strings.Repeat(plain, len(args)-3) {
		t.Errorf("not all of %q are %s%s", args[3:], plain, got)
	}
	if text := r.run(t, "dpkg", "--verify", "limeload-l4"); text != "" {
		t.Errorf("dpkg --verify: %s", text)
	}
	if text := r.run(t, "getent", "passwd", "limeload"); !strings.Contains(text, ":/var/lib/limeload:/usr/sbin/nologin") {
		t.Errorf("the user is %s", text)
	}
	if text := r.run(t, "limeload-l4", "--version"); !strings.HasPrefix(text, "limeload-l4 "+oldVersion+" ") {
		t.Errorf("the version is %s", text)
	}
	r.run(t, "limeload-l4", "check") // of the configuration as installed
	// an upgrade where nothing runs is silent, and starts nothing
	text := r.run(t, "dpkg", "--install", "/tmp/old.deb")
	if calls := r.calls(t); len(calls) > 0 || strings.Contains(text, "\nlimeload-l4: ") {
		t.Errorf("the installation over itself did %q to a service that does not run: %s", calls, text)
	}
}

// upgradeUnderTraffic installs the new version while clients come and go, and one stays in a transaction.
func (r root) upgradeUnderTraffic(t *testing.T, url string) {
	t.Helper()
	check(t, os.Link(second(t, newDeb), r.in("tmp/new.deb"))) // made before the traffic, which would wait for it
	config := read(t, r.in("etc/limeload/lb.toml"))
	stays, err := pgx.Connect(t.Context(), url)
	check(t, err)
	defer stays.Close(context.WithoutCancel(t.Context()))
	tx, err := stays.Begin(t.Context())
	check(t, err)
	_, err = tx.Exec(t.Context(), "create temporary table kept on commit drop as select 1 as one")
	check(t, err)

	before := r.processes(t)
	loop := startQueryLoop(t.Context(), url)
	defer loop.end()
	loop.more(t, 10)
	text := r.run(t, "dpkg", "--install", "/tmp/new.deb")
	loop.more(t, 10)
	if failed := loop.end(); len(failed) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(failed), loop.done.Load(), failed[0])
	}
	var one int
	if err := tx.QueryRow(t.Context(), "select one from kept").Scan(&one); err != nil || one != 1 {
		t.Errorf("the session that stayed: %d, %v", one, err)
	}
	check(t, tx.Commit(t.Context()))
	if calls := r.calls(t); len(calls) > 0 {
		t.Errorf("the upgrade did %q to the service", calls)
	}
	if read(t, r.in("etc/limeload/lb.toml")) != config || r.owner(t, "/etc/limeload/lb.toml") != "root:limeload 0640" {
		t.Error("the upgrade changed the configuration")
	}
	if text := r.run(t, "limeload-l4", "--version"); !strings.HasPrefix(text, "limeload-l4 "+newVersion+" ") {
		t.Errorf("the version is %s", text)
	}

	status := r.run(t, "limeload-l4", "status")
	if strings.Contains(text, "goes on as it is") || !strings.Contains(status, newVersion) ||
		slices.Equal(r.processes(t), before) {
		t.Errorf("the new version does not serve: %s\n%s", text, status)
	}
}

// purge purges the package, and checks that nothing is left but what the operator wrote.
func (r root) purge(t *testing.T, fresh map[string]string) {
	t.Helper()
	r.run(t, "dpkg", "--purge", "limeload-l4")
	left := r.leftovers(t, fresh)
	want := []string{"/etc/limeload", "/etc/limeload/monitor.password"}
	if got := slices.Sorted(maps.Keys(left)); !slices.Equal(got, want) {
		t.Errorf("the purge leaves %q, want %q", got, want)
	}
	user := strings.Split(r.run(t, "getent", "passwd", "limeload"), ":")[2] // it stays, as Debian advises
	for path, owner := range r.files(t) {
		if strings.HasPrefix(owner, user+":") {
			t.Errorf("%s belongs to limeload after the purge", path)
		}
	}
}
