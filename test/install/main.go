// Command install installs the programs that the tests and benchmarks use: real servers, their clients, and the C
// compiler that the race detector needs. On Debian, as root or with a sudo that asks no password, it installs what is
// missing, without starting any service now or at the next boot. Elsewhere it prints what to install, and fails.
//
// It also unpacks the kernel that test/vm boots into build/kernel. It is started in the folder with go.mod.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	os.Exit(run(hostMachine(), os.Stdout, os.Stderr))
}

// A need is something the tests use: it is there if any of the paths is. A path without a slash is a program in PATH or
// in a folder for administrators' programs; others are file name patterns.
type need struct {
	paths []string
	deb   string   // Debian's
	units []string // services that the package would start at boot
}

func needs() []need {
	return []need{
		{[]string{"redis-server"}, "redis-server", []string{"redis-server.service"}},
		{[]string{"redis-benchmark"}, "redis-tools", nil},
		{[]string{"redis-cli"}, "redis-tools", nil},
		{[]string{"/usr/lib/postgresql/*/bin/postgres", "postgres"}, "postgresql", []string{"postgresql.service"}},
		{[]string{"/usr/lib/postgresql/*/bin/initdb", "initdb"}, "postgresql", nil},
		{[]string{"/usr/lib/postgresql/*/bin/pgbench", "pgbench"}, "postgresql", nil},
		{[]string{"/usr/lib/postgresql/*/bin/pg_basebackup", "pg_basebackup"}, "postgresql", nil},
		{[]string{"/usr/lib/postgresql/*/bin/psql", "psql"}, "postgresql", nil},
		{[]string{"patroni"}, "patroni", []string{"patroni.service"}},
		{[]string{"/usr/lib/python3/dist-packages/etcd"}, "python3-etcd", nil}, // for patroni
		{[]string{"/usr/lib/python3/dist-packages/psycopg2"}, "python3-psycopg2", nil},
		{[]string{"etcd"}, "etcd-server", []string{"etcd.service"}},
		{[]string{"mariadbd"}, "mariadb-server", []string{"mariadb.service"}},
		{[]string{"mariadb-install-db"}, "mariadb-server", nil},
		{[]string{"mariadb"}, "mariadb-client", nil},
		{[]string{"/usr/lib/galera/libgalera_smm.so"}, "galera-4", nil},
		{[]string{"etcdctl"}, "etcd-client", nil},
		{[]string{"rsync"}, "rsync", []string{"rsync.service"}}, // for Galera
		{[]string{"slapd"}, "slapd", []string{"slapd.service"}},
		{[]string{"iperf3"}, "iperf3", []string{"iperf3.service"}},
		{[]string{"nsd"}, "nsd", []string{"nsd.service"}},
		{[]string{"dnsperf"}, "dnsperf", nil},
		{[]string{"dig"}, "bind9-dnsutils", nil},
		{[]string{"kdig"}, "knot-dnsutils", nil},
		{[]string{"testssl"}, "testssl.sh", nil},
		{[]string{"hexdump"}, "bsdextrautils", nil}, // for testssl.sh
		{[]string{"dnsdist"}, "dnsdist", []string{"dnsdist.service"}},
		{[]string{"haproxy"}, "haproxy", []string{"haproxy.service"}},
		{[]string{"nginx"}, "nginx", []string{"nginx.service"}},
		{[]string{"/usr/lib/nginx/modules/ngx_stream_module.so", "/usr/lib64/nginx/modules/ngx_stream_module.so"},
			"libnginx-mod-stream", nil},
		{[]string{"mosquitto"}, "mosquitto", []string{"mosquitto.service"}},
		{[]string{"mosquitto_pub"}, "mosquitto-clients", nil},
		{[]string{"mosquitto_sub"}, "mosquitto-clients", nil},
		{[]string{"gcc"}, "gcc", nil},
		{[]string{"/usr/include/stdlib.h"}, "libc6-dev", nil},
		{[]string{"ip"}, "iproute2", nil},
		{[]string{"bird"}, "bird2", []string{"bird.service"}},
		{[]string{"birdc"}, "bird2", nil},
		{[]string{"keepalived"}, "keepalived", []string{"keepalived.service"}},
		{[]string{"nft"}, "nftables", []string{"nftables.service"}},
		{[]string{"curl"}, "curl", nil},
		{[]string{"sysctl"}, "procps", nil},
		{[]string{"pkill"}, "procps", nil},
		{[]string{"openssl"}, "openssl", nil},
		{[]string{"strace"}, "strace", nil},
		{[]string{"systemd-analyze"}, "systemd", nil}, // it need not run
		{[]string{"systemd-socket-activate"}, "systemd", nil},
		{[]string{"systemd-sysusers"}, "systemd", nil},
		{[]string{"systemd-tmpfiles"}, "systemd", nil},
		{[]string{"zsh"}, "zsh", nil},
		{[]string{"fish"}, "fish", nil},
		{[]string{"mandoc"}, "mandoc", nil},
		{[]string{"groff"}, "groff", nil},
		{[]string{"unshare"}, "util-linux", nil},
		{[]string{"tmux"}, "tmux", nil},
		{[]string{"promtool"}, "prometheus", []string{"prometheus.service"}},
		{[]string{"prometheus"}, "prometheus", nil},
		{[]string{"chromium"}, "chromium", nil}, // for the page
		{[]string{"lintian"}, "lintian", nil},
		{[]string{"mmdebstrap"}, "mmdebstrap", nil}, // the root that packages are installed in
		{[]string{"rpm"}, "rpm", nil},
		{[]string{"buildah"}, "buildah", nil},
		{[]string{"qemu-system-x86_64"}, "qemu-system-x86", nil}, // for test/vm
		{[]string{"busybox"}, "busybox-static", nil},             // for test/vm
	}
}

// A machine is what install asks of the system, so that its tests need not install anything. Its zero value is of no
// use.
type machine struct {
	exists func(path string) bool // of a need's path
	root   bool
	sudo   func() bool // there is one that asks no password
	run    func(name string, args ...string) error
}

// run installs what the machine lacks and returns the exit code.
func run(m machine, stdout, stderr io.Writer) int {
	packages, units := missing(m)
	unpacked := m.exists(kernelImage)
	if len(packages) == 0 && unpacked {
		return 0
	}
	var sudo []string
	if !m.root {
		sudo = []string{"sudo", "--non-interactive"}
	}
	if !m.exists("apt-get") || !m.root && !m.sudo() {
		fmt.Fprint(stderr, byHand(packages, unpacked))
		return 1
	}
	steps := [][]string{append(slices.Clone(sudo), "apt-get", "update")}
	if len(packages) > 0 {
		fmt.Fprintf(stdout, "installing what the tests need: %s\n", strings.Join(packages, " "))
		steps = append(steps, append(append(sudo, "sh", "-c", quietInstall, "install"), packages...))
	}
	if !unpacked {
		fmt.Fprintln(stdout, "unpacking the kernel that the tests boot into build/kernel")
		steps = append(steps, []string{"sh", "-c", unpackKernel}) // which needs no rights
	}
	for _, args := range steps {
		if err := m.run(args[0], args[1:]...); err != nil {
			fmt.Fprintf(stderr, "%s: %v\n", strings.Join(args, " "), err)
			return 1
		}
	}
	if m.exists("systemctl") {
		for _, unit := range units {
			args := append(slices.Clone(sudo), "systemctl", "disable", "--quiet", unit)
			if err := m.run(args[0], args[1:]...); err != nil { // a unit that is not there starts nothing
				fmt.Fprintf(stderr, "%s: %v\n", strings.Join(args, " "), err)
			}
		}
	}
	if packages, _ = missing(m); len(packages) > 0 {
		fmt.Fprintf(stderr, "installed, but still missing what these packages should bring: %s\n",
			strings.Join(packages, " "))
		return 1
	}
	if !m.exists(kernelImage) {
		fmt.Fprintf(stderr, "unpacked, but there is no %s\n", kernelImage)
		return 1
	}
	return 0
}

// quietInstall installs the packages given as arguments while a policy-rc.d forbids their scripts to start services
// (Debian policy, 9.3.3); a policy that is there already is left as it is. The tests start servers of their own, and a
// developer's machine is to have none more than before.
const quietInstall = `
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" || exit 1
fi
DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
`

// kernelImage is there when the kernel is unpacked.
const kernelImage = "build/kernel/boot/vmlinuz-*"

// unpackKernel downloads the package of Debian's kernel for virtual machines and unpacks it. It is not installed, since
// that would make it one of the kernels that this machine boots.
const unpackKernel = `
set -e
rm -rf build/kernel build/kernel.new
mkdir -p build/kernel.new
cd build/kernel.new
apt-get download "$(apt-cache depends --important linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p')"
dpkg-deb --extract ./*.deb .
rm ./*.deb
mv ../kernel.new ../kernel
`

// byHand says what a person who may install packages has to do.
func byHand(packages []string, unpacked bool) string {
	text := "The tests need what this machine lacks, and what cannot be installed from here. On Debian, run:\n\n"
	if len(packages) > 0 {
		text += "  sudo apt-get update && sudo apt-get install --no-install-recommends " + strings.Join(packages, " ") +
			"\n\n"
	}
	if !unpacked {
		text += "  apt-get download $(apt-cache depends --important linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p')\n" +
			"  dpkg-deb --extract linux-image-*-cloud-amd64_*.deb build/kernel\n\n"
	}
	return text
}

// missing is the packages to install, and the services that they bring.
func missing(m machine) (packages, units []string) {
	for _, n := range needs() {
		if slices.ContainsFunc(n.paths, m.exists) {
			continue
		}
		if !slices.Contains(packages, n.deb) {
			packages = append(packages, n.deb)
		}
		units = append(units, n.units...)
	}
	return packages, units
}

func hostMachine() machine {
	return machine{
		exists: exists,
		root:   os.Geteuid() == 0,
		sudo:   func() bool { return exec.Command("sudo", "--non-interactive", "true").Run() == nil },
		run: func(name string, args ...string) error {
			cmd := exec.Command(name, args...)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			return cmd.Run()
		},
	}
}

func exists(path string) bool {
	if strings.Contains(path, "/") {
		found, err := filepath.Glob(path)
		return err == nil && len(found) > 0
	}
	if _, err := exec.LookPath(path); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} { // a user's PATH lacks them
		if _, err := os.Stat(filepath.Join(dir, path)); err == nil {
			return true
		}
	}
	return false
}
