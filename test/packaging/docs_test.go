package packaging

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"go.yaml.in/yaml/v3"

	"github.com/limeload/limeload-l4/test/harness"
)

// A node is a part of a YAML document.
type node struct{ value any }

// at follows a path of keys; what is not there is a node without a value.
func (n node) at(path ...any) node {
	for _, key := range path {
		switch v := n.value.(type) {
		case map[string]any:
			name, _ := key.(string)
			n.value = v[name]
		case []any:
			i, is := key.(int)
			if !is || i >= len(v) {
				return node{}
			}
			n.value = v[i]
		default:
			return node{}
		}
	}
	return n
}

func (n node) text() string {
	if n.value == nil {
		return ""
	}
	return fmt.Sprint(n.value)
}

func (n node) list() (nodes []node) {
	values, _ := n.value.([]any)
	for _, v := range values {
		nodes = append(nodes, node{v})
	}
	return nodes
}

// names returns the values that a key has in the list.
func (n node) names(key string) map[string]bool {
	names := make(map[string]bool)
	for _, entry := range n.list() {
		names[entry.at(key).text()] = true
	}
	return names
}

func documents(text string) (nodes []node, err error) {
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var value any
		err := d.Decode(&value)
		if errors.Is(err, io.EOF) {
			return nodes, nil
		}
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, node{value})
	}
}

// blocks returns the blocks of a language in a page.
func blocks(page, language string) (texts []string) {
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(page, -1) {
		texts = append(texts, m[1])
	}
	return texts
}

// drainTime returns how long a process with this configuration may take to end.
func drainTime(config string) (time.Duration, error) {
	var c struct {
		Global struct {
			DrainDelay   string `toml:"drain_delay"`
			DrainTimeout string `toml:"drain_timeout"`
		}
	}
	c.Global.DrainDelay, c.Global.DrainTimeout = "0s", "30s" // the defaults
	if _, err := toml.Decode(config, &c); err != nil {
		return 0, err
	}
	delay, err := time.ParseDuration(c.Global.DrainDelay)
	if err != nil {
		return 0, err
	}
	timeout, err := time.ParseDuration(c.Global.DrainTimeout)
	return delay + timeout, err
}

// A kubernetesCheck collects what is wrong with manifests.
type kubernetesCheck struct{ mistakes []string }

func (k *kubernetesCheck) want(holds bool, what string) {
	if !holds {
		k.mistakes = append(k.mistakes, "not so: "+what)
	}
}

// kubernetesMistakes returns what is wrong with manifests of a balancer and its surroundings.
func kubernetesMistakes(text string) []string {
	docs, err := documents(text)
	if err != nil {
		return []string{err.Error()}
	}
	k := new(kubernetesCheck)
	versions := map[string]string{"ConfigMap": "v1", "Service": "v1", "Deployment": "apps/v1",
		"PodDisruptionBudget": "policy/v1"}
	var deployment node
	objects := make(map[string]node)
	for _, d := range docs {
		kind, name := d.at("kind").text(), d.at("metadata", "name").text()
		k.want(versions[kind] != "" && versions[kind] == d.at("apiVersion").text(), "the version of "+kind+" is known")
		k.want(regexp.MustCompile(`^[a-z0-9-]+$`).MatchString(name), "the name of a "+kind+" is one")
		objects[kind+"/"+name] = d
		if kind == "Deployment" {
			deployment = d
		}
	}
	k.deployment(deployment.at("spec"), objects)
	return k.mistakes
}

func (k *kubernetesCheck) deployment(spec node, objects map[string]node) {
	labels := spec.at("template", "metadata", "labels").text()
	k.want(labels != "" && spec.at("selector", "matchLabels").text() == labels, "the Deployment selects its pods")
	pod := spec.at("template", "spec")
	container := pod.at("containers", 0)
	ports := container.at("ports").names("name")
	for _, p := range []struct{ probe, path string }{{"readinessProbe", "/ready"}, {"livenessProbe", "/live"}} {
		get := container.at(p.probe, "httpGet")
		k.want(get.at("path").text() == p.path && ports[get.at("port").text()], p.probe+" asks "+p.path+" at a port")
	}
	k.want(pod.at("securityContext", "runAsNonRoot").text() == "true" &&
		pod.at("securityContext", "runAsUser").text() == "65532", "the user is that of the image")

	volumes := pod.at("volumes").names("name")
	for _, mount := range container.at("volumeMounts").list() {
		k.want(volumes[mount.at("name").text()], "there is a volume for "+mount.at("mountPath").text())
	}
	var config string
	for _, volume := range pod.at("volumes").list() {
		if name := volume.at("configMap", "name").text(); name != "" {
			config = objects["ConfigMap/"+name].at("data", "lb.toml").text()
		}
	}
	k.want(config != "", "there is a configuration")
	for _, port := range container.at("ports").list() {
		k.want(strings.Contains(config, ":"+port.at("containerPort").text()+`"`), "something listens on "+port.text())
	}
	drain, err := drainTime(config)
	var grace int
	_, _ = fmt.Sscan(pod.at("terminationGracePeriodSeconds").text(), &grace)
	k.want(err == nil && time.Duration(grace)*time.Second >= drain+5*time.Second, "a pod has time to drain")

	for name, d := range objects {
		switch {
		case strings.HasPrefix(name, "PodDisruptionBudget/"):
			k.want(d.at("spec", "selector", "matchLabels").text() == labels, "the budget is for the pods")
		case strings.HasPrefix(name, "Service/") && d.at("spec", "clusterIP").text() == "None":
			dns := d.at("metadata", "name").text() + "." + d.at("metadata", "namespace").text() + ".svc.cluster.local"
			k.want(strings.Contains(config, `"`+dns+`"`), "the headless Service is the one that is asked for")
		case strings.HasPrefix(name, "Service/"):
			k.want(d.at("spec", "selector").text() == labels, "the Service selects the pods")
			for _, port := range d.at("spec", "ports").list() {
				k.want(ports[port.at("targetPort").text()], "the Service leads to a port of the pods")
			}
		}
	}
}

func containersPage(t *testing.T) string {
	t.Helper()
	return read(t, repository+"/docs/containers.md")
}

// checkSyntax has the program check a configuration of a document.
func checkSyntax(t *testing.T, config string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "lb.toml")
	check(t, os.WriteFile(file, []byte(config), 0o600))
	program := filepath.Join(filepath.Dir(first(t, ".")), "linux-amd64", "limeload-l4")
	if _, stderr, code := harness.Run(t, harness.Command{Path: program, Args: []string{"check", "--syntax", "--config",
		file}}); code != 0 {
		t.Errorf("%s\n%s", stderr, config)
	}
}

func TestKubernetesManifests(t *testing.T) {
	t.Parallel()
	var manifests string
	for _, block := range blocks(containersPage(t), "yaml") {
		if strings.Contains(block, "kind: Deployment") {
			manifests = block
		}
	}
	for good, bad := range map[string]string{
		"apps/v1":                           "v1",
		"terminationGracePeriodSeconds: 80": "terminationGracePeriodSeconds: 70",
		"path: /ready":                      "path: /live",
		"{name: metrics, containerPort":     "{name: other, containerPort",
		"containerPort: 6379":               "containerPort: 6380",
		"matchLabels: {app: limeload}":      "matchLabels: {app: other}",
		"targetPort: redis":                 "targetPort: other",
		"name: redis-pods":                  "name: other",
		"configMap: {name: limeload}":       "configMap: {name: other}",
		"runAsUser: 65532":                  "runAsUser: 0",
		"{name: run, mountPath":             "{name: other, mountPath",
		"      containers:":                 "     containers:",
	} {
		if !strings.Contains(manifests, good) {
			t.Fatalf("the page has no %s", good)
		}
		if len(kubernetesMistakes(strings.ReplaceAll(manifests, good, bad))) == 0 {
			t.Errorf("the guard does not find %s", bad)
		}
	}
	for _, mistake := range kubernetesMistakes(manifests) {
		t.Error(mistake)
	}
	docs, err := documents(manifests)
	check(t, err)
	checkSyntax(t, docs[0].at("data", "lb.toml").text())
}

func TestCompose(t *testing.T) {
	t.Parallel()
	docs, err := documents(blocks(containersPage(t), "yaml")[0])
	check(t, err)
	lb := docs[0].at("services", "lb")
	config := blocks(containersPage(t), "toml")[0]
	drain, err := drainTime(config)
	check(t, err)
	if grace, err := time.ParseDuration(lb.at("stop_grace_period").text()); err != nil || grace < drain+5*time.Second {
		t.Errorf("stop_grace_period %v, and a drain takes %v: %v", grace, drain, err)
	}
	if docs[0].at("services", "web").value == nil || !strings.Contains(config, `"web"`) {
		t.Error("the configuration asks for another service than there is")
	}
	if port := lb.at("ports", 0).text(); !strings.Contains(config, `":`+port[strings.Index(port, ":")+1:]+`"`) {
		t.Errorf("nothing listens on %s", port)
	}
	checkSyntax(t, config)
}

func TestNomad(t *testing.T) {
	t.Parallel()
	job := blocks(containersPage(t), "hcl")[0]
	config := regexp.MustCompile(`(?s)<<EOF\n(.*?)\nEOF\n`).FindStringSubmatch(job)
	if config == nil || strings.Count(job, "{") != strings.Count(job, "}") {
		t.Fatal("the job is broken")
	}
	drain, err := drainTime(config[1])
	check(t, err)
	kill := regexp.MustCompile(`kill_timeout = "(.*)"`).FindStringSubmatch(job)
	if timeout, err := time.ParseDuration(kill[1]); err != nil || timeout < drain+5*time.Second {
		t.Errorf("kill_timeout %v, and a drain takes %v: %v", timeout, drain, err)
	}
	checkSyntax(t, config[1])
}

// TestInstallPage compares docs/install.md with what there is: files, paths, messages, and the steps with an archive.
func TestInstallPage(t *testing.T) {
	t.Parallel()
	page := strings.ReplaceAll(read(t, repository+"/docs/install.md"), "1.2.3", oldVersion)
	entries, err := os.ReadDir(first(t, "."))
	check(t, err)
	for _, e := range entries {
		if !strings.Contains(page, "| `"+e.Name()+"` |") {
			t.Errorf("the page does not name %s", e.Name())
		}
	}
	listed := tool(t, "dpkg-deb", "--contents", first(t, oldDeb))
	paths := 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`/.*?) \\|").FindAllStringSubmatch(page, -1) {
		for _, path := range regexp.MustCompile("`(/.*?)`").FindAllStringSubmatch(row[1], -1) {
			paths++
			if !regexp.MustCompile(`(?m) \.` + regexp.QuoteMeta(path[1]) + `/?$`).MatchString(listed) {
				t.Errorf("the package has no %s", path[1])
			}
		}
	}
	if paths < 8 {
		t.Errorf("the page lists %d paths", paths)
	}
	message := regexp.MustCompile(`(?m)^limeload-l4: .*$`).FindString(page)
	for _, script := range []string{"debian/postinst", "rpm/post"} {
		if !strings.Contains(read(t, repository+"/cmd/limeload-l4/packaging/"+script), "\n"+message+"\n") {
			t.Errorf("%s does not print %q", script, message)
		}
	}
	if !strings.Contains(read(t, repository+"/cmd/limeload-l4/packaging/lb.toml"), `"127.0.0.1:17480"`) {
		t.Error("the configuration that is installed listens elsewhere than the page says")
	}

	folder := t.TempDir()
	for _, e := range entries {
		check(t, os.Symlink(filepath.Join(first(t, "."), e.Name()), filepath.Join(folder, e.Name())))
	}
	ran := 0
	for _, block := range blocks(page, "sh") {
		if strings.Contains(block, "sudo ") || strings.Contains(block, "docker ") {
			continue
		}
		ran++
		block = strings.ReplaceAll(block, "./limeload-l4 --config", "test -s") // it would not end
		harness.MustRun(t, harness.Command{Path: "/bin/sh", Args: []string{"-ec", block}, Dir: folder})
	}
	if ran != 2 {
		t.Errorf("%d blocks of the page were run", ran)
	}
}
