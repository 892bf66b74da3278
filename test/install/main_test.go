package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// A fake is a machine on which installing works, or does not.
type fake struct {
	has     map[string]bool
	root    bool
	sudo    bool
	broken  bool
	ran     []string
	brought []string // what an installation makes exist
}

func (f *fake) machine() machine {
	return machine{
		exists: func(path string) bool { return f.has[path] },
		root:   f.root,
		sudo:   func() bool { return f.sudo },
		run: func(name string, args ...string) error {
			f.ran = append(f.ran, strings.Join(append([]string{name}, args...), " "))
			if f.broken {
				return errors.New("exit status 100")
			}
			for _, path := range f.brought {
				f.has[path] = true
			}
			return nil
		},
	}
}

// complete returns a machine that lacks nothing but what is named.
func complete(lacks ...string) map[string]bool {
	has := map[string]bool{"apt-get": true, "systemctl": true, kernelImage: !slices.Contains(lacks, "kernel")}
	for _, n := range needs() {
		for _, path := range n.paths {
			has[path] = !slices.Contains(lacks, n.deb)
		}
	}
	return has
}

func TestNothingToDo(t *testing.T) {
	f := fake{has: complete()}
	var out, errs strings.Builder
	if code := run(f.machine(), &out, &errs); code != 0 || len(f.ran) > 0 || out.Len()+errs.Len() > 0 {
		t.Errorf("code %d, ran %q, said %q and %q", code, f.ran, out.String(), errs.String())
	}
}

func TestMissing(t *testing.T) {
	packages, units := missing((&fake{has: complete("postgresql", "iperf3")}).machine())
	if !slices.Equal(packages, []string{"postgresql", "iperf3"}) ||
		!slices.Equal(units, []string{"postgresql.service", "iperf3.service"}) {
		t.Errorf("packages %q, units %q", packages, units)
	}
}

func TestInstall(t *testing.T) {
	for _, tc := range []struct {
		name   string
		root   bool
		prefix string
	}{{"root", true, ""}, {"sudo", false, "sudo --non-interactive "}} {
		t.Run(tc.name, func(t *testing.T) {
			f := fake{has: complete("redis-server", "redis-tools"), root: tc.root, sudo: true,
				brought: []string{"redis-server", "redis-benchmark", "redis-cli"}}
			var out, errs strings.Builder
			if code := run(f.machine(), &out, &errs); code != 0 {
				t.Fatalf("code %d, %s", code, errs.String())
			}
			if len(f.ran) != 3 || f.ran[0] != tc.prefix+"apt-get update" ||
				!strings.HasPrefix(f.ran[1], tc.prefix+"sh -c ") ||
				!strings.HasSuffix(f.ran[1], " redis-server redis-tools") ||
				f.ran[2] != tc.prefix+"systemctl disable --quiet redis-server.service" {
				t.Errorf("ran %q", f.ran)
			}
		})
	}
}

// TestKernel unpacks the kernel after the packages, without their rights, and then finds it.
func TestKernel(t *testing.T) {
	for _, lacks := range [][]string{{"kernel"}, {"kernel", "iperf3"}} {
		f := fake{has: complete(lacks...), sudo: true, brought: []string{"iperf3", kernelImage}}
		var out, errs strings.Builder
		if code := run(f.machine(), &out, &errs); code != 0 {
			t.Fatalf("code %d, %s", code, errs.String())
		}
		if f.ran[0] != "sudo --non-interactive apt-get update" || !strings.HasPrefix(f.ran[len(lacks)], "sh -c ") ||
			!strings.Contains(f.ran[len(lacks)], "apt-get download") {
			t.Errorf("without %q, ran %q", lacks, f.ran)
		}
	}
	var out, errs strings.Builder
	f := fake{has: complete("kernel"), root: true} // the script says it is done, and it is not
	if code := run(f.machine(), &out, &errs); code != 1 || !strings.Contains(errs.String(), "there is no "+kernelImage) {
		t.Errorf("code %d, said %q", code, errs.String())
	}
	errs.Reset()
	f = fake{has: complete("kernel")}
	if code := run(f.machine(), &out, &errs); code != 1 || !strings.Contains(errs.String(), "dpkg-deb --extract") ||
		strings.Contains(errs.String(), "apt-get install") {
		t.Errorf("code %d, said %q", code, errs.String())
	}
}

// TestMayNotInstall says exactly what to install, and fails.
func TestMayNotInstall(t *testing.T) {
	for name, f := range map[string]*fake{
		"no rights": {has: complete("iperf3")},
		"no apt":    {has: complete("iperf3"), root: true},
	} {
		t.Run(name, func(t *testing.T) {
			f.has["apt-get"] = !f.root
			var out, errs strings.Builder
			code := run(f.machine(), &out, &errs)
			const command = "sudo apt-get update && sudo apt-get install --no-install-recommends iperf3\n"
			if code != 1 || len(f.ran) > 0 || !strings.Contains(errs.String(), command) {
				t.Errorf("code %d, ran %q, said %q", code, f.ran, errs.String())
			}
		})
	}
}

func TestInstallFails(t *testing.T) {
	var out, errs strings.Builder
	f := fake{has: complete("iperf3"), root: true, broken: true}
	if code := run(f.machine(), &out, &errs); code != 1 ||
		!strings.Contains(errs.String(), "apt-get update: exit status 100") {
		t.Errorf("code %d, said %q", code, errs.String())
	}
	errs.Reset()
	f = fake{has: complete("iperf3"), root: true} // apt-get says it is done, and it is not
	if code := run(f.machine(), &out, &errs); code != 1 ||
		!strings.Contains(errs.String(), "still missing what these packages should bring: iperf3") {
		t.Errorf("code %d, said %q", code, errs.String())
	}
}
