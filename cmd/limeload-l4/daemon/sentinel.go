package daemon

import (
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool/discovery"
)

// sentinelSource returns the source of a discovery of type sentinel.
func sentinelSource(cfg *conf.Config, path string, d *conf.Discovery, from *files) (discovery.Source, error) {
	password, secure, err := clusterLogin(cfg, path, d, from)
	if err != nil {
		return nil, err
	}
	return discovery.NewSentinel(discovery.SentinelOptions{
		Endpoints: d.Endpoints, Master: d.Master, User: d.User, Password: password, TLS: secure,
	}), nil
}
