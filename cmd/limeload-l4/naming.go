package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/limeload/limeload-l4/cmd/limeload-l4/admin"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/pool"
)

// maxNamed bounds the names that an error lists.
const maxNamed = 10

// naming adds to an error about a pool, backend or listener that does not exist which of them there are. It asks the
// daemon for them, and returns err as it is if that fails.
func (r *remote) naming(c *cli.Context, args []string, err error) error {
	var names []string
	wrong := ""
	ctx, cancel := r.bounded(c.Context)
	defer cancel()
	argument := func(name string) string { // a flag, or the argument with that name in the usage
		for i, word := range strings.Fields(c.Command.ArgsUsage) {
			if strings.Trim(word, "[].") == strings.ToUpper(name) && i < len(args) {
				return args[i]
			}
		}
		return from(c, name).String(name)
	}
	switch {
	case errors.Is(err, admin.ErrUnknownPool):
		wrong = argument("pool")
		pools, _ := r.client.Pools(ctx) // none on an error
		for _, p := range pools {
			names = append(names, p.Name)
		}
	case errors.Is(err, pool.ErrUnknownBackend):
		wrong = argument("backend")
		backends, _ := r.client.Backends(ctx, argument("pool"))
		for _, b := range backends {
			names = append(names, b.Name)
		}
	case errors.Is(err, admin.ErrUnknownListener), errors.Is(err, admin.ErrNoDNSCache):
		wrong = argument("listener")
		listeners, _ := r.client.Listeners(ctx)
		for _, l := range listeners {
			if errors.Is(err, admin.ErrUnknownListener) || l.DNS != nil && l.DNS.Cache != nil {
				names = append(names, l.Name)
			}
		}
	}
	if len(names) == 0 {
		return err
	}
	if strings.Contains(err.Error(), strings.Join(names, ", ")) { // the daemon has listed them
		if near := conf.Nearest(wrong, names); near != "" {
			return fmt.Errorf("%w; did you mean %q?", err, near)
		}
		return err
	}
	return fmt.Errorf("%w; %s", err, thereAre(wrong, names))
}

// known returns an error if the flags --pool or --listener name something that does not exist. A filter by such a name
// would only find nothing.
func (r *remote) known(c *cli.Context) error {
	ctx, cancel := r.bounded(c.Context)
	defer cancel()
	if name := from(c, "pool").String("pool"); name != "" {
		pools, err := r.client.Pools(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(pools, func(p admin.Pool) bool { return p.Name == name }) {
			return fmt.Errorf("pool %q: %w", name, admin.ErrUnknownPool)
		}
	}
	if name := from(c, "listener").String("listener"); name != "" {
		listeners, err := r.client.Listeners(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(listeners, func(l admin.Listener) bool { return l.Name == name }) {
			return fmt.Errorf("listener %q: %w", name, admin.ErrUnknownListener)
		}
	}
	return nil
}

// probably returns the question which of the names was meant by a wrong one; "" if that is not known.
func probably(wrong string, names []string) string {
	if near := conf.Nearest(wrong, names); near != "" {
		return fmt.Sprintf("did you mean %q? ", near)
	}
	return ""
}

// thereAre lists what there is in place of a wrong name, and which of it was probably meant.
func thereAre(wrong string, names []string) string {
	text := probably(wrong, names)
	if len(names) == 1 {
		return text + "there is only " + names[0]
	}
	if more := len(names) - maxNamed; more > 0 {
		return text + "there are " + strings.Join(names[:maxNamed], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return text + "there are " + strings.Join(names, ", ")
}

// fileError returns an error about a file without the name of the system call.
func fileError(err error) error {
	var wrong *fs.PathError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s: %w", wrong.Path, wrong.Err)
	}
	return err
}
