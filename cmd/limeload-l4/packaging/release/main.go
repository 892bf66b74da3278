// Command release makes what a release consists of, from the folder of the repository: static binaries as tar.gz, deb
// and rpm, a list of the modules in each binary (an SBOM), and the checksums of all of them.
//
//	release -version 1.2.3 [-arch amd64,arm64] [-out build/release] deb|rpm|tar|sbom|image|all ...
//
// The same version and date give the same bytes. The date is SOURCE_DATE_EPOCH of the environment, else that of the
// commit. The program does not publish or sign anything, and nobody imports it.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program, and returns its exit code.
func run(args []string, stdout, stderr io.Writer) int {
	r, products, err := parse(args, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "release:", err)
		return 2
	}
	if err := r.make(products); err != nil {
		fmt.Fprintln(stderr, "release:", err)
		return 1
	}
	for _, file := range r.files {
		fmt.Fprintln(stdout, file)
	}
	return 0
}

// A release is what the command line asks for. Its zero value is of no use. One goroutine uses it.
type release struct {
	version string // such as 1.2.3, without a "v"
	date    time.Time
	arches  []string // as Go names them
	build   string   // the folder for what is not part of the release
	out     string   // the folder of the release

	files []string // the paths of the files of the release that are made
}

// versions are the versions that deb, rpm and semver can all express.
var versions = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?(\+[0-9A-Za-z.]+)?$`)

// allProducts returns what a release consists of, in the order in which it is made.
func allProducts() []string { return []string{"tar", "deb", "rpm", "sbom"} }

func parse(args []string, stderr io.Writer) (*release, []string, error) {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.SetOutput(stderr)
	version := flags.String("version", "", "the version, such as 1.2.3")
	arches := flags.String("arch", "amd64,arm64", "the architectures")
	build := flags.String("build", "build", "the folder for what is made on the way")
	out := flags.String("out", "build/release", "the folder of the release")
	if err := flags.Parse(args); err != nil {
		return nil, nil, err
	}
	r := &release{version: strings.TrimPrefix(*version, "v"), build: *build, out: *out}
	if !versions.MatchString(r.version) {
		return nil, nil, fmt.Errorf("version %q: needs three numbers, such as 1.2.3, 1.2.3-rc.1 or 1.2.3+5.gc0ffee; "+
			"outside a git checkout, give it: make VERSION=1.2.3", *version)
	}
	r.arches = strings.FieldsFunc(*arches, func(c rune) bool { return c == ',' || c == ' ' })
	if len(r.arches) == 0 {
		return nil, nil, fmt.Errorf("no architecture")
	}
	for _, arch := range r.arches {
		if arch != "amd64" && arch != "arm64" {
			return nil, nil, fmt.Errorf("architecture %q: needs amd64 or arm64", arch)
		}
	}
	var products []string
	for _, p := range flags.Args() {
		switch {
		case p == "all":
			products = append(products, allProducts()...)
		case p == "image" || slices.Contains(allProducts(), p):
			products = append(products, p)
		default:
			return nil, nil, fmt.Errorf("product %q: needs %s, image or all", p, strings.Join(allProducts(), ", "))
		}
	}
	if len(products) == 0 {
		return nil, nil, fmt.Errorf("nothing to make: name %s, image or all", strings.Join(allProducts(), ", "))
	}
	var err error
	r.date, err = releaseDate()
	return r, products, err
}

// releaseDate returns the date that all files of the release have.
func releaseDate() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.Command("git", "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("date of the commit: %w; outside a git checkout, set SOURCE_DATE_EPOCH", err)
		}
		text = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// make makes the products, for each architecture, and the checksums of the files of the release.
func (r *release) make(products []string) error {
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	for _, arch := range r.arches {
		b, err := r.buildFor(arch)
		if err != nil {
			return err
		}
		for _, product := range products {
			switch product {
			case "tar":
				err = r.archive(b)
			case "sbom":
				err = r.sbom(b)
			case "image":
				err = r.image(b)
			default:
				err = r.pack(b, product)
			}
			if err != nil {
				return fmt.Errorf("%s for %s: %w", product, arch, err)
			}
		}
	}
	for _, product := range allProducts() {
		if !slices.Contains(products, product) {
			return nil // not a whole release
		}
	}
	return r.checksums()
}

// pack makes a deb or an rpm with nfpm.
func (r *release) pack(b built, format string) error {
	cmd := exec.Command("go", "tool", "nfpm", "package", "--packager", format, "--target", r.out,
		"--config", filepath.Join(packaging, "nfpm.yaml"))
	cmd.Env = append(os.Environ(), "VERSION="+r.version, "ARCH="+b.arch, "BUILT="+b.folder,
		"SOURCE_DATE_EPOCH="+strconv.FormatInt(r.date.Unix(), 10))
	output, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("nfpm: %w\n%s", err, output)
	}
	_, file, found := strings.Cut(string(output), "created package: ")
	if !found {
		return fmt.Errorf("nfpm names no package: %s", output)
	}
	r.files = append(r.files, strings.TrimSpace(file))
	return nil
}
