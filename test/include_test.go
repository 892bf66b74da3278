package test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestIncludedFiles adds, changes and removes included files of a balancer that watches them, with a mistake in one,
// and plans a change of another.
func TestIncludedFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "conf.d")
	check(t, os.Mkdir(dir, 0o700))
	write := func(name, text string) {
		t.Helper()
		next := filepath.Join(dir, name+".next")
		check(t, os.WriteFile(next, []byte(text), 0o600))
		check(t, os.Rename(next, filepath.Join(dir, name)))
	}
	pool := func(name string, backend *harness.Backend) string {
		return fmt.Sprintf("[pool.%s]\nbackends = [%q]\n", name, backend.Address())
	}
	one, two := harness.Serve(t, harness.Name("one")), harness.Serve(t, harness.Name("two"))
	first, second := harness.FreeAddress(t), harness.FreeAddress(t)
	listener := func(name, address, pool string) string {
		return fmt.Sprintf("[listener.%s]\naddress = %q\npool = %q\n", name, address, pool)
	}
	write("a.toml", pool("a", one))
	config := func(watch bool) string {
		return fmt.Sprintf("include = [%q]\n[global]\nwatch = %v\n", dir+"/*.toml", watch) + listener("main", first, "a")
	}
	b := harness.StartBalancerWith(t, harness.BalancerOptions{Config: config(false)})
	b.Reload(t, config(true))
	reached := func(address, name string) {
		t.Helper()
		harness.Eventually(t, "clients of "+address+" reach "+name, func() error {
			c, _, err := harness.DialFrom(address)
			if err != nil {
				return err
			}
			defer c.Close()
			if got, err := io.ReadAll(c); string(got) != name {
				return fmt.Errorf("they reach %q, %v", got, err)
			}
			return nil
		})
	}
	reached(first, "one")
	write("b.toml", pool("b", two)+listener("other", second, "b"))
	reached(second, "two")
	write("a.toml", pool("a", two))
	reached(first, "two")

	write("b.toml", pool("b", one)+"retries = 99\n"+listener("other", second, "b"))
	b.WaitLine(t, "the mistake is logged", func(l harness.Line) bool {
		return strings.Contains(l.Err, filepath.Join(dir, "b.toml")+":3: pool.b.retries: found 99")
	})
	reached(second, "two")
	check(t, os.Remove(filepath.Join(dir, "b.toml")))
	harness.Eventually(t, "the listener is gone", func() error {
		if all := observe(t, b).listeners; len(all) != 1 {
			return fmt.Errorf("there are %v", all)
		}
		return nil
	})
	reached(first, "two")
	b.Reload(t, config(false)) // and nothing of the watching is left
}
