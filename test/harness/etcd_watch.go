package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// A KeyChange is one change of a key in etcd.
type KeyChange struct {
	Key, Value string
	Deleted    bool
	Seen       time.Time // when the test got to know
}

// Watch calls seen for each change of the keys that begin with prefix, from one goroutine. It returns when etcd, which
// must speak plain HTTP, has confirmed the watch. The watch lasts until the test ends or etcd does.
func (e *Etcd) Watch(t testing.TB, prefix string, seen func(KeyChange)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	end := []byte(prefix)
	end[len(end)-1]++
	body, err := e.watch(ctx, map[string]any{"create_request": map[string]any{
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
		if err := readChanges(body, confirmed, seen); ctx.Err() == nil && !errors.Is(err, io.EOF) {
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

// watch asks for a watch by etcd's HTTP interface, in which keys and values are in base64.
func (e *Etcd) watch(ctx context.Context, request any) (io.ReadCloser, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.Endpoint+"/v3/watch", bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		return nil, fmt.Errorf("etcd answers %s", answer.Status)
	}
	return answer.Body, nil
}

// readChanges reads the answers to a watch until there is an error, which is io.EOF at their end.
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
