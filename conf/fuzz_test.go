package conf

import (
	"bytes"
	"context"
	"errors"
	"hash/fnv"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func unprintable(c rune) bool { return !strconv.IsPrint(c) }

// FuzzParse: nothing makes Parse panic; its mistakes are on lines of the file and are each one printable line; an
// accepted configuration is complete, and resolves or says why not.
func FuzzParse(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("lb.toml", data)
		if err != nil {
			checkErrors(t, "lb.toml", data, err)
			return
		}
		c.Warnings()
		if len(c.Listeners) == 0 {
			t.Error("accepted without a listener")
		}
		if err := c.Resolve(context.Background(), lookupByHash, nil); err != nil {
			checkErrors(t, "lb.toml", data, err)
			return
		}
		for _, l := range c.Listeners {
			for _, b := range l.Binds {
				if b.Path == "" && (!b.Addr.IsValid() || b.Addr.Port() == 0 || b.Port != b.Addr.Port()) {
					t.Errorf("accepted listener %+v", l)
				}
			}
			if len(l.Binds) == 0 || len(l.Binds) > maxBinds || !validName(l.Name) {
				t.Errorf("accepted listener %+v", l)
			}
		}
		for _, p := range c.Pools {
			if len(p.Backends) == 0 && p.Discovery == nil || !validName(p.Name) {
				t.Errorf("accepted pool %+v", p)
			}
			if p.Health != nil {
				checkHealth(t, p.Health)
			}
			ids := map[string]bool{}
			for _, b := range p.Backends {
				if !b.Addr.IsValid() && len(c.Unresolved()) > 0 {
					continue
				}
				if !b.Addr.IsValid() || b.Addr.Port() == 0 || b.Name == "" || ids[b.Name] {
					t.Errorf("accepted backend %+v", b)
				}
				ids[b.Name] = true
			}
		}
	})
}

// checkHealth: what is accepted can be built without looking for mistakes again.
func checkHealth(t *testing.T, h *Health) {
	t.Helper()
	composite := func(c *Check) bool { return c.Type == "all_of" || c.Type == "any_of" }
	if composite(&h.Check) != (len(h.Checks) >= 2) {
		t.Errorf("accepted %s with %d checks", h.Type, len(h.Checks))
	}
	all := []*Check{&h.Check}
	for i := range h.Checks {
		all = append(all, &h.Checks[i])
		if composite(&h.Checks[i]) {
			t.Errorf("accepted checks inside of checks: %+v", h.Checks[i])
		}
	}
	for _, c := range all {
		if (c.Type == "dns") != (c.QueryName != "" && c.QueryType != "") ||
			(c.Type == "exec") != (len(c.Command) > 0) ||
			(c.Type == "postgres" || c.Type == "mysql") && c.User == "" || len(c.Statuses) == 0 || len(c.Expect) == 0 ||
			(c.Cert == "") != (c.Key == "") {
			t.Errorf("accepted check %+v", c)
		}
		for _, s := range c.Steps {
			if (len(s.Bytes) == 0) == (s.Regexp == nil) {
				t.Errorf("accepted step %+v", s)
			}
		}
	}
}

// FuzzParseBackends: nothing makes ParseBackends panic, whatever the file is called; its mistakes
// are as Parse's; what it accepts is complete.
func FuzzParseBackends(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, file := range []string{"b.toml", "b.json"} {
			backends, err := ParseBackends(file, data)
			if err != nil {
				checkErrors(t, file, data, err)
				continue
			}
			ids, addresses := map[string]bool{}, map[netip.AddrPort]bool{}
			for _, b := range backends {
				if b.Name != b.Address && !validName(b.Name) || ids[b.Name] || addresses[b.Addr] ||
					checkIP(b.Addr.Addr(), true) != "" ||
					b.Addr.Port() == 0 || b.Weight < 0 || b.Weight > 256 || b.Tier < 0 || b.MaxSessions < 0 ||
					b.Mode == "" {
					t.Errorf("accepted backend %+v", b)
				}
				ids[b.Name], addresses[b.Addr] = true, true
			}
		}
	})
}

func checkErrors(t *testing.T, file string, data []byte, err error) {
	t.Helper()
	errs, ok := errors.AsType[Errors](err)
	if !ok || len(errs) == 0 {
		t.Fatalf("the error is %T %v", err, err)
	}
	lines := bytes.Count(data, []byte("\n")) + 1
	for i, e := range errs {
		if e.File != file {
			t.Errorf("the file is %q: %v", e.File, e)
		}
		if e.Line < 1 && len(data) <= MaxFileBytes || e.Line > lines {
			t.Errorf("line %d of %d: %v", e.Line, lines, e)
		}
		if i > 0 && e.Line < errs[i-1].Line {
			t.Errorf("line %d after line %d", e.Line, errs[i-1].Line)
		}
		if text := e.Error(); !utf8.ValidString(text) || strings.ContainsFunc(text, unprintable) || len(text) > 8<<10 {
			t.Errorf("the message is %q", text)
		}
	}
}

// lookupByHash always gives a name the same answer: some get none, some an error, some an unusable address.
func lookupByHash(_ context.Context, _, host string) ([]netip.Addr, error) {
	h := fnv.New32a()
	h.Write([]byte(host))
	sum := h.Sum32()
	four := netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	switch sum % 8 {
	case 0:
		return nil, errors.New("no such host \x1b[31m")
	case 1:
		return nil, nil
	case 2:
		return []netip.Addr{netip.IPv6Unspecified()}, nil
	}
	return []netip.Addr{netip.IPv6Loopback(), four}, nil
}

func addSeeds(f *testing.F) {
	f.Add(Reference)
	seeds, err := filepath.Glob("testdata/seeds/*.*")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, path := range seeds {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}
