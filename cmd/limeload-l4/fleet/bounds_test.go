package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/limeload/limeload-l4/pool/discovery/etcd"
)

// TestMemoryBounds: a node gives the connection up before somebody who fills etcd fills its memory, and many changes of few
// keys are not too much.
func TestMemoryBounds(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		keys, bytes, times int
		want               error
	}{
		"large values":              {1200, MaxValueBytes, 1, etcd.ErrTooMany},
		"not too many large values": {900, MaxValueBytes, 1, nil},
		"large values that change":  {100, MaxValueBytes, 30, nil},
		"small values":              {100_001, 1, 1, etcd.ErrTooMany},
		"values that nobody keeps":  {1200, MaxValueBytes + 1, 1, nil},
	} {
		f := New(Options{Name: "edge", Node: "n", Endpoints: []string{"http://127.0.0.1:1"}})
		value := bytes.Repeat([]byte("1"), c.bytes)
		var err error
		revision := int64(0)
		for range c.times {
			for i := 0; i < c.keys && err == nil; i++ {
				revision++
				err = f.apply([]etcd.KeyChange{{Key: Checks + fmt.Sprint(i), Value: value, Revision: revision}})
			}
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
}
