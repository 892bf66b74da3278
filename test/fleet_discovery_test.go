package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// etcdRecipe returns the table and the script that docs/pools.md shows for discovery of type etcd.
func etcdRecipe(t *testing.T) (table, script string) {
	t.Helper()
	page, err := os.ReadFile("../docs/pools.md")
	check(t, err)
	_, section, found := strings.Cut(string(page), "**`type = \"etcd\"`**")
	tables := regexp.MustCompile("(?s)```toml\n\\[pool\\.redis\\.discovery\\]\n(.*?)```").FindStringSubmatch(section)
	scripts := regexp.MustCompile("(?s)```sh\n(#!/bin/sh\n.*?)```").FindStringSubmatch(section)
	if !found || tables == nil || scripts == nil {
		t.Fatal("docs/pools.md shows no table and no script for etcd")
	}
	return strings.TrimSpace(tables[1]), scripts[1]
}

// etcdEndpoints is what docs/pools.md has for the members of etcd.
const etcdEndpoints = `["http://10.0.0.1:2379", "http://10.0.0.2:2379", "http://10.0.0.3:2379"]`

// etcdWorld returns a world with the table of docs/pools.md and further lines for it.
func etcdWorld(t *testing.T, etcd *harness.Etcd, more ...string) world {
	t.Helper()
	table, _ := etcdRecipe(t)
	if !strings.Contains(table, etcdEndpoints) {
		t.Fatalf("docs/pools.md has other endpoints:\n%s", table)
	}
	table = strings.Replace(table, etcdEndpoints, fmt.Sprintf("[%q]", etcd.Endpoint), 1)
	return world{
		Listen: harness.FreeAddress(t), Pool: []string{`algorithm = "round_robin"`},
		Discover: append([]string{table}, more...),
	}
}

// TestDiscoverInEtcd has servers that come and go in a real etcd, as docs/pools.md says: by hand, and under leases with
// the script there. Meanwhile etcd is killed and comes back.
func TestDiscoverInEtcd(t *testing.T) {
	t.Parallel()
	backends := namedBackends(t, 3)
	etcd := harness.StartEtcd(t, "--unsafe-no-fsync")
	value := func(i int) string { return fmt.Sprintf(`{"address": %q}`, backends[i].Address()) }
	put := func(key, value string) { etcd.Do(t, "put", "/services/redis/"+key, value) }
	put("b1", value(0))
	w := etcdWorld(t, etcd, "allow_loopback = true")
	b := w.start(t)
	c := newCaller(t, b)
	logged := func(since time.Time, message, backend string) time.Duration {
		t.Helper()
		line := b.WaitLine(t, message+" "+backend, func(l harness.Line) bool {
			return l.Message == message && l.Backend == backend && l.Seen.After(since)
		})
		return line.Seen.Sub(since)
	}
	wantCalls := func(want ...string) {
		t.Helper()
		got := c.calls(t, 4*len(want), false)
		for _, name := range want {
			if got[name] != 4 {
				t.Errorf("sessions went to %v, want %v", got, want)
			}
		}
	}
	wantCalls("b1")
	if checked, _, _ := b.Command(t, "check", "--config", b.File()); !strings.Contains(checked,
		"those of etcd /services/redis/") {
		t.Errorf("check prints\n%s", checked)
	}

	began := time.Now()
	put("b2", value(1))
	t.Logf("a new backend is there %v after `etcdctl put` began", logged(began, harness.MessageAdded, "b2"))
	wantCalls("b1", "b2")
	began = time.Now()
	put("b2", strings.Replace(value(1), "}", `, "mode": "drain"}`, 1))
	logged(began, harness.MessageMode, "b2")
	wantCalls("b1")

	alive := filepath.Join(t.TempDir(), "alive")
	check(t, os.WriteFile(alive, nil, 0o600))
	register := startRegister(t, etcd, value(2), alive)
	logged(began, harness.MessageAdded, "b3")
	wantCalls("b1", "b3")
	began = time.Now()
	check(t, os.Remove(alive)) // the server does not answer any more
	t.Logf("a server that does not answer any more is gone after %v", logged(began, harness.MessageRemoved, "b3"))
	began = time.Now()
	check(t, os.WriteFile(alive, nil, 0o600))
	logged(began, harness.MessageAdded, "b3")

	began = time.Now()
	etcd.Kill(t)
	failed := b.WaitLine(t, "the failure", func(l harness.Line) bool { return l.Message == harness.MessageNoAnswer })
	if want := "ask etcd at " + etcd.Endpoint + ": no answer: connection refused"; failed.Err != want {
		t.Errorf("the log says %q, want %q", failed.Err, want)
	}
	wantCalls("b1", "b3")
	etcd.Restart(t)
	put("b2", value(1))
	logged(began, harness.MessageMode, "b2")
	wantCalls("b1", "b2", "b3")

	began = time.Now()
	register.Signal(t, syscall.SIGTERM)
	logged(began, harness.MessageRemoved, "b3")
	wantCalls("b1", "b2")
	endDiscovery(t, b, w, "127.0.0.1:1")
}

// startRegister runs the script of docs/pools.md for the backend b3, which lives as long as a file is there.
func startRegister(t *testing.T, etcd *harness.Etcd, value, alive string) *harness.Process {
	t.Helper()
	_, script := etcdRecipe(t)
	path := filepath.Join(t.TempDir(), "register")
	check(t, os.WriteFile(path, []byte(script), 0o700))
	return harness.Start(t, harness.Command{
		Path: path, Args: []string{"/services/redis/b3", value, "test", "-e", alive},
		Env: []string{"ETCDCTL_API=3", "ETCDCTL_ENDPOINTS=" + etcd.Endpoint},
	})
}

// TestMistakesInEtcd writes keys that are no backends: each is named in the log with what is wrong, and the others serve.
// An address of this machine is none, and a prefix without keys is an answer.
func TestMistakesInEtcd(t *testing.T) {
	t.Parallel()
	private := harness.Serve(t, harness.SpeakFirst("b1"))
	etcd := harness.StartEtcd(t, "--unsafe-no-fsync")
	etcd.Do(t, "put", "/services/mqtt/x", "1")
	w := etcdWorld(t, etcd)
	b := w.start(t)
	logged := func(message string, words ...string) {
		t.Helper()
		b.WaitLine(t, message+" "+strings.Join(words, " "), func(l harness.Line) bool {
			for _, w := range words {
				if !strings.Contains(l.Err, w) {
					return false
				}
			}
			return l.Message == message && l.Level == "warn"
		})
	}
	const empty = "discovery names no backend: the pool has none from it"
	logged(empty, "ask etcd at "+etcd.Endpoint+`: no backend: no key is below "/services/redis/"; the names beside it are "mqtt"`)
	_ = refusal(t, b.Address(t, "main"))

	etcd.Do(t, "put", "/services/redis/here", fmt.Sprintf("{\"address\": %q}", private.Address()))
	logged(harness.MessageNoAnswer, `unusable backend: "here": 127.0.0.1 is an address of this machine or its link; `+
		"allow_loopback = true allows it")
	_ = refusal(t, b.Address(t, "main"))
	if n := private.Accepted(); n != 0 {
		t.Errorf("%d connections came to a server of this machine", n)
	}

	w.Discover = append(w.Discover, "allow_loopback = true")
	b.Reload(t, w.config(t))
	c := newCaller(t, b)
	b.WaitLine(t, "the backend", func(l harness.Line) bool { return l.Message == harness.MessageAdded && l.Backend == "here" })
	const some = "discovered, except for some that are of no use"
	for key, value := range map[string]string{
		"a": `{"address": "10.0.0.1:6379", "wieght": 3}`, "b": "10.0.0.2:6379", "c": `{"address": "db.internal:6379"}`,
		"d\x1b[2J\n": "{", "here2": fmt.Sprintf("{\"address\": %q}", private.Address()),
	} {
		etcd.Do(t, "put", "--", "/services/redis/"+key, value)
		want := map[string]string{
			"a": `"a": wieght: unknown key, did you mean "weight"?`,
			"b": `"b": found "10.0.0.2:6379"; needs the JSON of one backend, such as {"address": "10.0.0.11:6379"}`,
			"c": `"c": address: found "db.internal:6379"; "db.internal" is a host name`, "d\x1b[2J\n": `"d\x1b[2J\n": not valid JSON: unexpected end of JSON input`,
			"here2": `"here2": "here" has the same address, "` + private.Address() + `"`,
		}[key]
		logged(some, want)
		etcd.Do(t, "del", "/services/redis/"+key)
	}
	if got := c.calls(t, 3, false); got["b1"] != 3 {
		t.Errorf("sessions went to %v", got)
	}
	etcd.Do(t, "del", "--prefix", "/services/redis/")
	b.WaitLine(t, "the empty answer", func(l harness.Line) bool {
		return l.Message == empty && strings.Contains(l.Text, `"removed":1`)
	})
	_ = refusal(t, b.Address(t, "main"))
	endDiscovery(t, b, w, "127.0.0.1:1")
}
