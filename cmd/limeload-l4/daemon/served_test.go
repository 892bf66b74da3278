package daemon

import (
	"context"
	"testing"

	"github.com/limeload/limeload-l4/pool/discovery"
)

// A silentSource never answers.
type silentSource struct{}

func (silentSource) Find(ctx context.Context) (discovery.Found, error) {
	<-ctx.Done()
	return discovery.Found{}, ctx.Err()
}

// TestFinderEnd: end waits for the goroutine that reports the first answer, even if there has been none.
func TestFinderEnd(t *testing.T) {
	for range 100 {
		reported := false // under -race this also shows that end comes after the report
		f := &finder{runner: discovery.New(discovery.Options{Source: silentSource{}})}
		f.start(func() { reported = true })
		f.end()
		if !reported {
			t.Fatal("end returned before the report")
		}
	}
}
