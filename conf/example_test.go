package conf_test

import (
	"context"
	"fmt"
	"net"

	"github.com/limeload/limeload-l4/conf"
)

func ExampleParse() {
	c, err := conf.Parse("lb.toml", []byte(`
[listener.redis]
address      = ":6379"
pool         = "redis"
idle_timeout = "90m"

[pool.redis]
backends = [{ address = "127.0.0.1:6380" }, { address = "127.0.0.1:6381", weight = 2 }]
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	// Here no name needs a lookup. With names, Resolve asks net.DefaultResolver.
	if err := c.Resolve(context.Background(), net.DefaultResolver.LookupNetIP, nil); err != nil {
		fmt.Println(err)
		return
	}
	l, p := c.Listeners[0], c.Pools[0]
	fmt.Println(l.Name, l.Binds[0].Addr, l.Binds[0].DualStack, l.IdleTimeout, l.RefuseWith)
	for _, b := range p.Backends {
		fmt.Println(p.Name, p.Algorithm, b.Addr, b.Weight)
	}
	// Output:
	// redis [::]:6379 true 1h30m reset
	// redis least_conn 127.0.0.1:6380 1
	// redis least_conn 127.0.0.1:6381 2
}

func ExampleParseBackends() {
	backends, err := conf.ParseBackends("redis.json", []byte(`[
	{ "address": "10.0.0.11:6379" },
	{ "address": "10.0.0.12:6379", "weight": 2, "name": "b2" }
]`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, b := range backends {
		fmt.Println(b.Name, b.Addr, b.Weight)
	}
	_, err = conf.ParseBackends("redis.toml", []byte(`
[[backends]]
address = "redis.internal:6379"
wieght  = 2
`))
	fmt.Println(err)
	// Output:
	// 10.0.0.11:6379 10.0.0.11:6379 1
	// b2 10.0.0.12:6379 2
	// redis.toml:3: backends[0].address: found "redis.internal:6379"; "redis.internal" is a host name; needs "IP:PORT", "[IPV6]:PORT", "IP" for each client's port, or "unix:PATH": it is discovery of type "dns" that resolves names
	// redis.toml:4: backends[0].wieght: unknown key, did you mean "weight"?
}

func ExampleParse_mistakes() {
	_, err := conf.Parse("lb.toml", []byte(`
[listener.redis]
address = ":6379"
pool = "reddis"
idle_timeout = 15

[pool.redis]
conect_timeout = "3s"
backends = [
  { address = "10.0.0.11:6379" },
  { address = "10.0.0.12:6379", weight = 300 },
]
`))
	fmt.Println(err)
	// Output:
	// lb.toml:4: listener.redis.pool: found "reddis"; there is no such pool, did you mean "redis"?
	// lb.toml:5: listener.redis.idle_timeout: found the integer 15; needs a duration with a unit, such as "250ms", "2s" or "5m"
	// lb.toml:8: pool.redis.conect_timeout: unknown key, did you mean "connect_timeout"?
	// lb.toml:11: pool.redis.backends[1].weight: found 300; allowed is 0 to 256
}
