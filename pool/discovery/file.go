package discovery

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/limeload/limeload-l4/conf/file"
	"github.com/limeload/limeload-l4/pool"
)

// MaxFileBytes is how large a file of backends may be: 10,000 of them take about 1 MiB.
const MaxFileBytes = 4 << 20

// A File finds backends in a file. It is a plain value and safe for concurrent use if Parse is.
//
// The file is read whole at each Find and watched in between. It may be replaced by a rename, or through a symbolic
// link in its folder as Kubernetes does for a ConfigMap. It may be written in place, too, but that can show a part of
// it: a file is not read before it was left alone for a moment, and a writer that pauses for longer within it has to be
// found out by Parse.
type File struct {
	Path string
	// Parse makes backends of a file's content. Its error says what is wrong with it; it may keep data.
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
			return // to read it will say why
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
