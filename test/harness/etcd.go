package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// EtcdOptions says how to start etcd. The zero value is plain HTTP without logins.
type EtcdOptions struct {
	Certificate, Key string // PEM files: it speaks HTTPS. They are valid for 127.0.0.1
	ClientCA         string // a PEM file: with HTTPS, clients need a certificate of this authority
}

// An Etcd is a running member of an etcd cluster. Its methods use etcd's HTTP interface, of which every request and
// answer is JSON with the keys and values in base64.
type Etcd struct {
	*Process
	URL string // for clients

	name, dir, peer string
	cluster         string // all members, as etcd wants them
	options         EtcdOptions
}

// StartEtcd starts an etcd of one member on a free port, and waits until it serves clients.
func StartEtcd(t testing.TB, o EtcdOptions) *Etcd {
	t.Helper()
	return StartEtcdCluster(t, 1, o)[0]
}

// StartEtcdCluster is StartEtcd for a cluster of n members.
func StartEtcdCluster(t testing.TB, n int, o EtcdOptions) []*Etcd {
	t.Helper()
	scheme := "http"
	if o.Certificate != "" {
		scheme = "https"
	}
	members, peers := make([]*Etcd, n), make([]string, n)
	for i := range members {
		name := fmt.Sprintf("etcd%d", i+1)
		members[i] = &Etcd{
			URL: scheme + "://" + FreeAddress(t), name: name, dir: filepath.Join(t.TempDir(), "data"),
			peer: "http://" + FreeAddress(t), options: o,
		}
		peers[i] = name + "=" + members[i].peer
	}
	for _, e := range members {
		e.cluster = strings.Join(peers, ",")
		e.launch(t)
	}
	for _, e := range members {
		e.WaitStderr(t, "serving client traffic")
	}
	return members
}

// Restart starts a member again, with its ports and data, after it was killed or ended, and waits until it serves
// clients.
func (e *Etcd) Restart(t testing.TB) {
	t.Helper()
	e.launch(t)
	e.WaitStderr(t, "serving client traffic")
}

func (e *Etcd) launch(t testing.TB) {
	t.Helper()
	args := []string{
		"--name", e.name, "--data-dir", e.dir, "--unsafe-no-fsync", "--logger", "zap", "--log-outputs", "stderr",
		"--listen-client-urls", e.URL, "--advertise-client-urls", e.URL,
		"--listen-peer-urls", e.peer, "--initial-advertise-peer-urls", e.peer, "--initial-cluster", e.cluster,
	}
	if e.options.Certificate != "" {
		args = append(args, "--cert-file", e.options.Certificate, "--key-file", e.options.Key)
	}
	if e.options.ClientCA != "" {
		args = append(args, "--client-cert-auth", "--trusted-ca-file", e.options.ClientCA)
	}
	e.Process = Start(t, Command{Path: Tool(t, "etcd"), Args: args})
}

// Put sets a key.
func (e *Etcd) Put(t testing.TB, key, value string) {
	t.Helper()
	e.mustAsk(t, "/v3/kv/put", map[string]any{"key": []byte(key), "value": []byte(value)}, nil)
}

// Delete removes a key.
func (e *Etcd) Delete(t testing.TB, key string) {
	t.Helper()
	e.mustAsk(t, "/v3/kv/deleterange", map[string]any{"key": []byte(key)}, nil)
}

// Get returns the value of a key, and whether there is one.
func (e *Etcd) Get(t testing.TB, key string) (value string, found bool) {
	t.Helper()
	var answer struct{ Kvs []struct{ Value []byte } }
	e.mustAsk(t, "/v3/kv/range", map[string]any{"key": []byte(key)}, &answer)
	if len(answer.Kvs) == 0 {
		return "", false
	}
	return string(answer.Kvs[0].Value), true
}

// RequireLogin makes etcd ask for logins: root has this password, and so has a user that may only read the keys from
// prefix on.
func (e *Etcd) RequireLogin(t testing.TB, user, password, prefix string) {
	t.Helper()
	e.mustAsk(t, "/v3/auth/role/add", map[string]any{"name": "root"}, nil)
	e.mustAsk(t, "/v3/auth/role/add", map[string]any{"name": "reader"}, nil)
	end := []byte(prefix)
	end[len(end)-1]++ // the key behind all that begin with prefix
	e.mustAsk(t, "/v3/auth/role/grant", map[string]any{"name": "reader", "perm": map[string]any{
		"permType": "READ", "key": []byte(prefix), "range_end": end,
	}}, nil)
	for name, role := range map[string]string{"root": "root", user: "reader"} {
		e.mustAsk(t, "/v3/auth/user/add", map[string]any{"name": name, "password": password}, nil)
		e.mustAsk(t, "/v3/auth/user/grant", map[string]any{"user": name, "role": role}, nil)
	}
	e.mustAsk(t, "/v3/auth/enable", map[string]any{}, nil)
}

// mustAsk sends a request to a member that speaks plain HTTP, and reads its answer into answer unless that is nil.
func (e *Etcd) mustAsk(t testing.TB, path string, request, answer any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	body, err := e.ask(ctx, path, request)
	if err == nil {
		defer body.Close()
		if answer == nil {
			answer = new(json.RawMessage)
		}
		err = json.NewDecoder(body).Decode(answer)
	}
	if err != nil {
		t.Fatalf("etcd: %v", err)
	}
}

func (e *Etcd) ask(ctx context.Context, path string, request any) (io.ReadCloser, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return nil, fmt.Errorf("%s: %s: %s", path, answer.Status, text)
	}
	return answer.Body, nil
}

// A KeyChange is one change of a key in etcd.
type KeyChange struct {
	Key, Value string
	Deleted    bool
	Seen       time.Time // when the test got to know
}

// Watch calls seen for each change of the keys that begin with prefix, from one goroutine. It returns when etcd has
// confirmed the watch, which lasts until the test ends or etcd does.
func (e *Etcd) Watch(t testing.TB, prefix string, seen func(KeyChange)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	end := []byte(prefix)
	end[len(end)-1]++
	body, err := e.ask(ctx, "/v3/watch", map[string]any{"create_request": map[string]any{
		"key": []byte(prefix), "range_end": end,
	}})
	if err != nil {
		cancel()
		t.Fatalf("watch %s: %v", prefix, err)
	}
	confirmed, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		cancel()
		body.Close()
		<-done
	})
	go func() { // its end is awaited at the end of the test
		defer close(done)
		if err := readChanges(body, confirmed, seen); err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
			t.Logf("watch %s: %v", prefix, err) // etcd was stopped
		}
	}()
	select {
	case <-confirmed:
	case <-done:
		t.Fatalf("watch %s: it ended at once", prefix)
	case <-time.After(Patience):
		t.Fatalf("watch %s: not confirmed within %v", prefix, Patience)
	}
}

// readChanges reads the answers to a watch until there is an error.
func readChanges(body io.Reader, confirmed chan<- struct{}, seen func(KeyChange)) error {
	decoder := json.NewDecoder(body)
	for {
		var answer struct {
			Result struct {
				Created bool
				Events  []struct {
					Type string
					Kv   struct{ Key, Value []byte }
				}
			}
		}
		if err := decoder.Decode(&answer); err != nil {
			return err
		}
		now := time.Now()
		if answer.Result.Created {
			close(confirmed)
		}
		for _, event := range answer.Result.Events {
			seen(KeyChange{
				Key: string(event.Kv.Key), Value: string(event.Kv.Value), Deleted: event.Type == "DELETE", Seen: now,
			})
		}
	}
}
