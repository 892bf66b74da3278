package packaging

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/limeload/limeload-l4/test/harness"
)

// containerfileMistakes returns what a Containerfile lacks of an image without a shell, and without rights.
func containerfileMistakes(text string) (mistakes []string) {
	for what, pattern := range map[string]string{
		"it begins with nothing":           `(?m)^FROM scratch$`,
		"its user is a number and no root": `(?m)^USER [1-9]\d*:[1-9]\d*$`,
		"it starts without a shell":        `(?m)^ENTRYPOINT \["/usr/bin/limeload-l4"\]$`,
		"TERM drains it":                   `(?m)^STOPSIGNAL SIGTERM$`,
		"its health is checked by itself":  `(?m)^HEALTHCHECK .*CMD \["/usr/bin/limeload-l4", `,
	} {
		if !regexp.MustCompile(pattern).MatchString(text) {
			mistakes = append(mistakes, "not so: "+what)
		}
	}
	for _, word := range []string{"RUN", "ADD", "SHELL", "ENV"} {
		if regexp.MustCompile(`(?m)^` + word + ` `).MatchString(text) {
			mistakes = append(mistakes, "it has "+word)
		}
	}
	slices.Sort(mistakes)
	return mistakes
}

func TestContainerfile(t *testing.T) {
	t.Parallel()
	bad := "FROM debian\nRUN true\nUSER 0:0\nENTRYPOINT limeload-l4\nSTOPSIGNAL SIGKILL\nHEALTHCHECK CMD true\n"
	if got := containerfileMistakes(bad); len(got) != 6 {
		t.Fatalf("the guard finds %q in the bad sample", got)
	}
	for _, mistake := range containerfileMistakes(read(t, repository+"/cmd/limeload-l4/packaging/Containerfile")) {
		t.Error(mistake)
	}
	folder := filepath.Join(filepath.Dir(first(t, ".")), "image-amd64")
	if _, err := os.Stat(folder); err != nil {
		t.Error(err)
	}
}

// A builder is buildah with a store of its own.
type builder struct{ path, store string }

func (b builder) args(args ...string) []string {
	return append([]string{"--storage-driver", "vfs", "--root", filepath.Join(b.store, "root"), "--runroot",
		filepath.Join(b.store, "run"), "--registries-conf", "/dev/null"}, args...)
}

func (b builder) run(t *testing.T, args ...string) string {
	t.Helper()
	return harness.MustRun(t, harness.Command{Path: b.path, Args: b.args(args...)})
}

// An imageConfig is what an image says of its containers.
type imageConfig struct {
	User, StopSignal string
	Entrypoint       []string
	Healthcheck      struct{ Test []string }
}

// config returns what the image that startedImage has built says.
func (b builder) config(t *testing.T) imageConfig {
	t.Helper()
	var image struct {
		Docker struct {
			Config imageConfig `json:"config"`
		}
	}
	check(t, json.Unmarshal([]byte(b.run(t, "inspect", "--type", "image", "localhost/limeload-l4:test")), &image))
	return image.Docker.Config
}

// startedImage builds the image and starts a container of it with this configuration, without namespaces, which a
// container that runs the tests may not make.
func startedImage(t *testing.T, config string) (b builder, container string, p *harness.Process) {
	t.Helper()
	needRoot(t)
	b = builder{path: harness.Tool(t, "buildah"), store: t.TempDir()}
	folder := filepath.Join(filepath.Dir(first(t, ".")), "image-amd64")
	stdout, stderr, code := harness.Run(t, harness.Command{Path: b.path, Args: b.args("bud", "--isolation", "chroot",
		"--format", "docker", "--tag", "limeload-l4:test", folder)})
	if code != 0 && regexp.MustCompile(`(?i)operation not permitted|permission denied`).MatchString(stderr) {
		t.Skipf("buildah may not work on this machine, and only the Containerfile was looked at: %s", stderr)
	}
	if code != 0 {
		t.Fatalf("buildah: exit code %d\n%s\n%s", code, stdout, stderr)
	}
	container = strings.TrimSpace(b.run(t, "from", "localhost/limeload-l4:test"))
	t.Cleanup(func() { b.run(t, "rm", container) })
	file := filepath.Join(t.TempDir(), "lb.toml")
	check(t, os.WriteFile(file, []byte(config), 0o644))
	check(t, os.Chmod(file, 0o644))
	b.run(t, "copy", container, file, "/etc/limeload/lb.toml")
	p = harness.Start(t, harness.Command{Path: b.path, Args: b.args("run", "--isolation", "chroot", container, "--",
		"/usr/bin/limeload-l4")})
	p.WaitStderr(t, `"message":"ready"`)
	return b, container, p
}

// TestImage builds the image, starts it with a backend, serves a client, checks its health as its HEALTHCHECK does, and
// drains it with its STOPSIGNAL: the session that is open goes on, a new client is refused.
func TestImage(t *testing.T) {
	t.Parallel()
	backend := harness.Serve(t, harness.Echo)
	address := harness.FreeAddress(t)
	b, container, p := startedImage(t, fmt.Sprintf("[listener.echo]\naddress = %q\npool = \"echo\"\n[pool.echo]\n"+
		"backends = [{ address = %q }]\n", address, backend.Address()))
	config := b.config(t)
	if config.User != "65532:65532" || config.StopSignal != "SIGTERM" ||
		!slices.Equal(config.Entrypoint, []string{"/usr/bin/limeload-l4"}) {
		t.Errorf("the image is %+v", config)
	}
	if len(config.Healthcheck.Test) < 2 || config.Healthcheck.Test[0] != "CMD" {
		t.Fatalf("the health check is %q", config.Healthcheck.Test)
	}
	health := func() (string, int) {
		stdout, stderr, code := harness.Run(t, harness.Command{Path: b.path,
			Args: b.args(append([]string{"run", "--isolation", "chroot", container, "--"}, config.Healthcheck.Test[1:]...)...)})
		return stdout + stderr, code
	}
	var serving []string
	harness.Eventually(t, "the container is healthy", func() error {
		text, code := health() // now and then buildah loses the output of a program
		serving = regexp.MustCompile(`process +(\d+), serving`).FindStringSubmatch(text)
		if code != 0 || serving == nil {
			return fmt.Errorf("exit code %d, %s", code, text)
		}
		return nil
	})

	c := harness.Dial(t, address)
	check(t, harness.PingPong(c, 3, 1000))
	pid, err := strconv.Atoi(serving[1])
	check(t, err)
	status := read(t, fmt.Sprintf("/proc/%d/status", pid))
	if !regexp.MustCompile(`(?m)^Uid:\t65532\t65532\t65532\t65532$`).MatchString(status) {
		t.Errorf("the process runs as another user:\n%s", status)
	}
	check(t, syscall.Kill(pid, syscall.SIGTERM))
	p.WaitStderr(t, `"message":"draining"`)
	check(t, harness.PingPong(c, 3, 1000))
	if late, _, err := harness.DialFrom(address); err == nil {
		late.Close()
		t.Error("a client got in during the drain")
	}
	check(t, c.Close())
	if code := p.Wait(t); code != 0 {
		t.Errorf("the container ended with %d", code)
	}
	if _, code := health(); code == 0 {
		t.Error("a container without a process is healthy")
	}
	shell, _, code := harness.Run(t, harness.Command{Path: b.path,
		Args: b.args("run", "--isolation", "chroot", container, "--", "/bin/sh", "-c", "echo here")})
	if code == 0 || strings.Contains(shell, "here") {
		t.Error("the image has a shell")
	}
}
