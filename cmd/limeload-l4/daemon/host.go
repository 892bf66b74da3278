package daemon

import (
	"errors"
	"fmt"

	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/l4"
)

// checkHost returns the mistakes of a configuration that only this host's kernel can tell: congestion control
// algorithms that it does not have. Each has the place of its key.
func checkHost(cfg *conf.Config) error {
	known := make(map[string]error)
	check := func(path, name string) error {
		if name == "" {
			return nil
		}
		err, asked := known[name]
		if !asked {
			err = l4.CheckCongestionControl(name)
			known[name] = err
		}
		if err == nil {
			return nil
		}
		return cfg.ErrorAt(path, err)
	}
	var mistakes []error
	for _, l := range cfg.Listeners {
		mistakes = append(mistakes, check(conf.Path("listener", l.Name, "congestion_control"), l.CongestionControl))
	}
	for _, p := range cfg.Pools {
		mistakes = append(mistakes, check(conf.Path("pool", p.Name, "congestion_control"), p.CongestionControl))
	}
	return errors.Join(mistakes...)
}

// hostWarnings returns what a configuration asks of this host that it does not allow at present: source addresses that
// it does not have, and TCP Fast Open.
func hostWarnings(cfg *conf.Config) []string {
	var warnings []string
	warn := func(path, format string, values ...any) {
		warnings = append(warnings, cfg.ErrorAt(path, fmt.Errorf(format, values...)).Error())
	}
	for _, l := range cfg.Listeners {
		if !l.FastOpen {
			continue
		}
		if allowed, value := l4.FastOpenAllowed(); !allowed {
			warn(conf.Path("listener", l.Name, "fast_open"),
				"net.ipv4.tcp_fastopen is %s, which does not allow it for listeners: needs 2 or 3", value)
		}
	}
	for _, p := range cfg.Pools {
		for i, a := range p.SourceAddrs {
			if !l4.IsLocal(a) {
				warn(fmt.Sprintf("%s[%d]", conf.Path("pool", p.Name, "source"), i),
					"%s is not an address of this host now: it is passed over until it is", a)
			}
		}
	}
	return warnings
}

// fileWarnings returns the warnings of a configuration, and those about this host.
func fileWarnings(cfg *conf.Config) []string { return append(cfg.Warnings(), hostWarnings(cfg)...) }
