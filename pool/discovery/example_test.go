package discovery_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/pool/discovery"
)

// parse takes one address a line.
func parse(_ string, data []byte) (specs []pool.Spec, err error) {
	for _, line := range strings.Fields(string(data)) {
		addr, err := netip.ParseAddrPort(line)
		if err != nil {
			return nil, err
		}
		specs = append(specs, pool.Spec{ID: line, Addr: pool.At(addr), Weight: 1})
	}
	return specs, nil
}

func ExampleRunner() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "backends")
	if err := os.WriteFile(path, []byte("10.0.0.1:6379\n10.0.0.2:6379\n"), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	p, err := pool.New(pool.Options{Name: "redis", Algorithm: "round_robin", Initial: pool.Healthy})
	if err != nil {
		fmt.Println(err)
		return
	}

	r := discovery.New(discovery.Options{
		Name: "file", Source: discovery.File{Path: path, Parse: parse}, Pool: p, Refresh: time.Minute,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	<-r.First() // the pool has what the file says, if it says anything

	for _, b := range p.Backends() {
		fmt.Println(b.ID)
	}
	cancel()
	fmt.Println(<-ended)
	// Output:
	// 10.0.0.1:6379
	// 10.0.0.2:6379
	// <nil>
}

func ExampleDNS() {
	source := discovery.DNS{Name: "redis.internal", Port: 6379, Resolver: "10.0.0.53"}
	_, err := source.Find(context.Background())
	fmt.Println(err)
	// Output:
	// look up A/AAAA of redis.internal: no usable resolver: not an ip:port
}
