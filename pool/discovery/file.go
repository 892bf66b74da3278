package discovery

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/limeload/limeload-l4/conf/file"
	"github.com/limeload/limeload-l4/pool"
)

// MaxFileBytes bounds the size of a file of backends: 10,000 backends take about 1 MiB.
const MaxFileBytes = 4 << 20

// A File finds backends in a file. It is a plain value and safe for concurrent use if Parse is.
//
// The file is read whole at each Find and watched in between. It may be replaced by a rename, or through a symbolic
// link in its folder as Kubernetes does for a ConfigMap. It may also be written in place, but then a read can see a
// part of it. So a file is read only after it has not been written to for a moment; if a writer pauses for longer,
// Parse has to detect the incomplete file.
type File struct {
	Path string
	// Parse returns the backends of a file's content, or an error that says what is wrong. It may keep data.
	Parse func(path string, data []byte) ([]pool.Spec, error)
}

// Find reads the file.
func (f File) Find(ctx context.Context) (Found, error) {
	f.settle(ctx)
	data, err := file.Read(f.Path, MaxFileBytes)
	if err != nil {
		return Found{}, fmt.Errorf("read backends: %w", err)
	}
	backends, err := f.Parse(f.Path, data)
	if err != nil {
		return Found{}, fmt.Errorf("parse backends: %w", err)
	}
	return Found{Backends: backends}, nil
}

// settle waits until the file was not written to for settleTime, but no longer than maxSettling.
func (f File) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, maxSettling)
	defer cancel()
	for ctx.Err() == nil {
		info, err := os.Stat(f.Path)
		if err != nil {
			return // the read will return the reason
		}
		age := time.Since(info.ModTime())
		if age < 0 || age >= settleTime { // another machine's clock may have set the time
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(settleTime - age):
		}
	}
}
