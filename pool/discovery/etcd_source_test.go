package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

const redisPrefix = "/services/redis/"

// parseAddress parses a value such as {"address": "10.0.0.1:6379"}.
func parseAddress(name string, value []byte) (pool.Spec, error) {
	var b struct{ Name, Address string }
	if err := json.Unmarshal(value, &b); err != nil {
		return pool.Spec{}, err
	}
	if b.Name == "" {
		b.Name = name
	}
	if path, is := strings.CutPrefix(b.Address, "unix:"); is {
		return pool.Spec{ID: b.Name, Addr: pool.Address{Path: path}, Weight: 1}, nil
	}
	at, err := netip.ParseAddrPort(b.Address)
	return pool.Spec{ID: b.Name, Addr: pool.At(at), Weight: 1}, err
}

func etcdSource(o EtcdOptions, endpoints ...string) *Etcd {
	o.Endpoints, o.Parse = endpoints, parseAddress
	if o.Prefix == "" {
		o.Prefix = redisPrefix
	}
	return NewEtcd(o)
}

// etcdClient returns a client, until the test ends.
func etcdClient(t testing.TB, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// register writes the key of one backend.
func register(t testing.TB, c *clientv3.Client, name, address string, options ...clientv3.OpOption) {
	t.Helper()
	_, err := c.Put(t.Context(), redisPrefix+name, fmt.Sprintf(`{"address": %q}`, address), options...)
	must(t, err)
}

// foundText writes an answer as "ID ADDRESS, ...", and behind a bar what is of no use.
func foundText(found Found, err error) string {
	if err != nil {
		return err.Error()
	}
	var words []string
	for _, s := range found.Backends {
		words = append(words, s.ID+" "+s.Addr.String())
	}
	text := strings.Join(words, ", ")
	if found.Unusable != nil {
		text += " | " + found.Unusable.Error()
	}
	return text
}

func wantEtcd(t testing.TB, s Source, want string) {
	t.Helper()
	if got := foundText(s.Find(t.Context())); got != want {
		t.Errorf("found\n%s\nwant\n%s", got, want)
	}
}

// watchSource watches a source until the test ends.
func watchSource(t testing.TB, s interface {
	Source
	watcher
}) *watching {
	w := &watching{roles: make(chan string, 10_000)}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			_ = s.Watch(ctx, func() { w.roles <- foundText(s.Find(ctx)) })
			pauseFor(ctx, 50*time.Millisecond)
		}
	})
	w.stop = func() { cancel(); running.Wait() }
	t.Cleanup(w.stop)
	return w
}

func TestEtcdFind(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	c := etcdClient(t, server.Endpoint)
	dead := "http://" + harness.FreeAddress(t)
	e := etcdSource(EtcdOptions{}, dead, server.Endpoint)
	ask := "ask etcd at " + dead + ", " + server.Endpoint + ": "
	none := " | " + ask + `no backend: no key is below "/services/redis/"`
	wantEtcd(t, e, none)
	found, err := e.Find(t.Context())
	if err != nil || !errors.Is(found.Unusable, ErrNoBackend) {
		t.Errorf("nothing is found with %v, %v", found.Unusable, err)
	}
	for _, name := range []string{"redsi", "a", "b", "c", "d", "e"} {
		_, err := c.Put(t.Context(), "/services/"+name+"/x", "1")
		must(t, err)
		if name == "redsi" {
			wantEtcd(t, e, none+`; the names beside it are "redsi"`)
		}
	}
	wantEtcd(t, e, none+`; the names beside it are "a", "b", "c", "d", "e", ...`)

	register(t, c, "r2", "10.0.0.2:6379")
	register(t, c, "eu/r1", "10.0.0.1:6379")
	_, err = c.Put(t.Context(), "/services/redis2/r3", `{"address": "10.0.0.3:6379"}`)
	must(t, err)
	wantEtcd(t, e, "r1 10.0.0.1:6379, r2 10.0.0.2:6379") // in the order of the keys
	wantEtcd(t, etcdSource(EtcdOptions{}, dead), "ask etcd at "+dead+": no answer: connection refused")
}

// TestEtcdUnusable: keys that are no backends do not take the others away, and the order of the keys decides.
func TestEtcdUnusable(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	c := etcdClient(t, server.Endpoint)
	put := func(key, value string) {
		t.Helper()
		_, err := c.Put(t.Context(), redisPrefix+key, value)
		must(t, err)
	}
	put("a\x1b[2J", "{")
	put("big", `{"address": "10.0.0.9:1"}`+strings.Repeat(" ", maxEtcdValueBytes))
	e := etcdSource(EtcdOptions{}, server.Endpoint)
	const broken = `"a\x1b[2J": unexpected end of JSON input, "big": its value has more than 16384 bytes`
	wantEtcd(t, e, "ask etcd at "+server.Endpoint+": unusable backend: "+broken)
	register(t, c, "m1", "10.0.0.1:6379")
	register(t, c, "m2", "10.0.0.1:6379")
	put("m3", `{"name": "m1", "address": "10.0.0.3:6379"}`)
	wantEtcd(t, e, "m1 10.0.0.1:6379 | "+broken+`, "m2": "m1" has the same address, "10.0.0.1:6379", `+
		`"m3": "m1" has the same name, "m1"`)
	put("m4", `{"address": "`+strings.Repeat("x", 1000)+`"}`)
	put("m5", `"`)
	put("m6", "")
	found, err := e.Find(t.Context())
	if err != nil || !strings.HasSuffix(found.Unusable.Error(), " and 2 more") || len(found.Unusable.Error()) > 1000 {
		t.Errorf("many are of no use: %v, error %v", found.Unusable, err)
	}
}

// TestEtcdHere: whoever may write a key cannot open what listens for this machine only.
func TestEtcdHere(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	c := etcdClient(t, server.Endpoint)
	register(t, c, "a", "127.0.0.1:9090")
	register(t, c, "b", "unix:/run/limeload/admin.sock")
	register(t, c, "c", "169.254.169.254:80")
	register(t, c, "d", "192.0.2.1:80")
	wantEtcd(t, etcdSource(EtcdOptions{}, server.Endpoint), "d 192.0.2.1:80 | "+
		`"a": 127.0.0.1 is an address of this machine or its link; allow_loopback = true allows it, `+
		`"b": a Unix socket is of this machine; allow_loopback = true allows it, `+
		`"c": 169.254.169.254 is an address of this machine or its link; allow_loopback = true allows it`)
	wantEtcd(t, etcdSource(EtcdOptions{AllowLoopback: true}, server.Endpoint), "a 127.0.0.1:9090, "+
		"b unix:/run/limeload/admin.sock, c 169.254.169.254:80, d 192.0.2.1:80")
}

// TestEtcdWatch: changes are known by events, and a server whose lease ends is gone.
func TestEtcdWatch(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	c := etcdClient(t, server.Endpoint)
	register(t, c, "r1", "10.0.0.1:6379")
	w := watchSource(t, etcdSource(EtcdOptions{}, server.Endpoint))
	w.want(t, "r1 10.0.0.1:6379")
	lease, err := c.Grant(t.Context(), 1)
	must(t, err)
	register(t, c, "r2", "10.0.0.2:6379", clientv3.WithLease(lease.ID))
	w.want(t, "r1 10.0.0.1:6379, r2 10.0.0.2:6379")
	w.wantNext(t, "r1 10.0.0.1:6379")
	register(t, c, "r1", "10.0.0.1:6379") // again: no change
	register(t, c, "r1", "10.0.0.4:6379")
	w.wantNext(t, "r1 10.0.0.4:6379")
	_, err = c.Delete(t.Context(), redisPrefix+"r1")
	must(t, err)
	w.wantNext(t, " | ask etcd at "+server.Endpoint+`: no backend: no key is below "/services/redis/"`)
}

// wantNext waits for the next answer of Find.
func (w *watching) wantNext(t testing.TB, want string) {
	t.Helper()
	select {
	case got := <-w.roles:
		if got != want {
			t.Fatalf("found\n%s\nwant\n%s", got, want)
		}
	case <-time.After(harness.Patience):
		t.Fatalf("never %q", want)
	}
}

// TestEtcdLost: while etcd is away the keys are not known, and afterwards those count that it has then, also if it was
// restored from an old copy, or has lost all of them.
func TestEtcdLost(t *testing.T) {
	t.Parallel()
	members := harness.StartEtcdCluster(t, 1)
	server := members[0]
	register(t, etcdClient(t, server.Endpoint), "r1", "10.0.0.1:6379")
	old := filepath.Join(t.TempDir(), "old")
	server.Save(t, old)
	w := watchSource(t, etcdSource(EtcdOptions{}, server.Endpoint))
	w.want(t, "r1 10.0.0.1:6379")
	server.Kill(t)
	w.want(t, "no answer: connection refused")
	server.Restart(t)
	server.Do(t, "put", redisPrefix+"r2", `{"address": "10.0.0.2:6379"}`)
	w.want(t, "r1 10.0.0.1:6379, r2 10.0.0.2:6379")
	harness.RestoreEtcd(t, members, old)
	w.wantWhole(t, "r1 10.0.0.1:6379")
	server.Do(t, "put", redisPrefix+"r2", `{"address": "10.0.0.22:6379"}`)
	w.want(t, "r1 10.0.0.1:6379, r2 10.0.0.22:6379")
	harness.RestoreEtcd(t, members, "")
	w.want(t, "no backend: no key is below")
	server.Do(t, "put", redisPrefix+"r3", `{"address": "10.0.0.3:6379"}`)
	w.want(t, "r3 10.0.0.3:6379")
}

// wantWhole waits until Find returns this and no more.
func (w *watching) wantWhole(t testing.TB, want string) {
	t.Helper()
	deadline := time.After(harness.Patience)
	for {
		select {
		case got := <-w.roles:
			if got == want {
				return
			}
		case <-deadline:
			t.Fatalf("never %q", want)
		}
	}
}

// TestEtcdSlow: an etcd whose answers take a second is used, and not left for that.
func TestEtcdSlow(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	c := etcdClient(t, server.Endpoint)
	register(t, c, "r1", "10.0.0.1:6379")
	link := harness.StartSlowLink(t, strings.TrimPrefix(server.Endpoint, "http://"))
	link.Delay(time.Second)
	w := watchSource(t, etcdSource(EtcdOptions{}, "http://"+link.Address()))
	w.wantNext(t, "r1 10.0.0.1:6379")
	began := time.Now()
	for i := 2; i < 7; i++ { // for longer than a probe takes to fail
		address := fmt.Sprintf("10.0.0.%d:6379", i)
		register(t, c, "r1", address)
		w.wantNext(t, "r1 "+address) // nothing comes in between, such as another connection
		pauseFor(t.Context(), time.Second)
	}
	t.Logf("5 changes and pauses of a second took %v", time.Since(began))
}

// TestEtcdHangs: a member that is stopped, with its connections still open, is left for another.
func TestEtcdHangs(t *testing.T) {
	t.Parallel()
	cluster := harness.StartEtcdCluster(t, 3)
	cluster[1].Do(t, "put", redisPrefix+"r1", `{"address": "10.0.0.1:6379"}`)
	w := watchSource(t, etcdSource(EtcdOptions{}, cluster[0].Endpoint, cluster[1].Endpoint))
	w.want(t, "r1 10.0.0.1:6379")
	cluster[0].Signal(t, syscall.SIGSTOP)
	harness.Eventually(t, "etcd has a leader that is not stopped", func() error {
		return cluster[1].Try(t, "put", redisPrefix+"r2", `{"address": "10.0.0.2:6379"}`)
	})
	w.want(t, "r1 10.0.0.1:6379, r2 10.0.0.2:6379")
}

// TestEtcdMany: ten thousand keys are read and followed, one more is refused, and it is over when there are fewer again.
func TestEtcdMany(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t, "--unsafe-no-fsync")
	c := etcdClient(t, server.Endpoint)
	const most = 100 // in one transaction
	for from := 0; from < maxBackends; from += most {
		var ops []clientv3.Op
		for i := from; i < from+most; i++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%sr%05d", redisPrefix, i),
				fmt.Sprintf(`{"address": "10.0.%d.%d:6379"}`, i/250, i%250)))
		}
		_, err := c.Txn(t.Context()).Then(ops...).Commit()
		must(t, err)
	}
	e := etcdSource(EtcdOptions{}, server.Endpoint)
	began := time.Now()
	found, err := e.Find(t.Context())
	if err != nil || len(found.Backends) != maxBackends || found.Unusable != nil {
		t.Fatalf("%d backends, unusable %v, error %v", len(found.Backends), found.Unusable, err)
	}
	t.Logf("%d keys take %v", maxBackends, time.Since(began))
	w := watchSource(t, e)
	w.want(t, "r09999 10.0.39.249:6379")
	register(t, c, "r00000", "10.1.0.0:6379")
	began = time.Now()
	w.want(t, "r00000 10.1.0.0:6379")
	t.Logf("a change of one of %d takes %v", maxBackends, time.Since(began))
	register(t, c, "s", "10.2.0.0:6379")
	w.want(t, `too much data: the keys below "/services/redis/": there are too many keys: more than 10000`)
	_, err = c.Delete(t.Context(), redisPrefix+"r00000")
	must(t, err)
	w.want(t, "r00001 10.0.0.1:6379")
}

// TestEtcdReadAgain: all keys are read again from time to time, so that nothing that a watch has not delivered is missing
// for long.
func TestEtcdReadAgain(t *testing.T) {
	t.Parallel()
	server := harness.StartEtcd(t)
	register(t, etcdClient(t, server.Endpoint), "r1", "10.0.0.1:6379")
	e := etcdSource(EtcdOptions{}, server.Endpoint)
	e.again = 100 * time.Millisecond
	w := watchSource(t, e)
	w.want(t, "r1 10.0.0.1:6379")
	e.mu.Lock()
	e.found["lost"] = etcdBackend{spec: pool.Spec{ID: "lost", Addr: pool.At(netip.MustParseAddrPort("10.0.0.9:1"))}}
	e.mu.Unlock()
	w.wantNext(t, "r1 10.0.0.1:6379")
	e.mu.Lock()
	delete(e.found, "r1")
	e.mu.Unlock()
	w.wantNext(t, "r1 10.0.0.1:6379")
}
